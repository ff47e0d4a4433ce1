//! Connections of proxies, of members of the mesh, and of other replicas: accepted, through the TLS handshake, and known by
//! name. All of it has bounds.
//!
//! ```text
//! accept (at most so many) -> TLS handshake (a Door), side by side, in a given time -> Caller -> the gRPC server
//! ```
//! Strangers get as far as the handshake. So what they can hold has bounds of its own.

use std::fmt::Display;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tollgate_core::mesh::Mesh;
use tonic::transport::server::Connected;

use crate::accept::Accept;
use crate::handshakes::{Handshakes, Reason};
use crate::identity::{Caller, Member};

/// The limits of the proxies' port.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections in all.
    pub connections: usize,
    /// The most of them that have not said yet who they are.
    pub handshakes: usize,
    /// The time for the TLS handshake, and once more for the opening of HTTP/2 after it.
    pub handshake: Duration,
}

/// Whom a port lets in.
#[derive(Clone)]
pub enum Door {
    /// Those with a certificate of our CA.
    Own(TlsAcceptor),
    /// Members of a mesh. The certificate that we show them is another one from time to time; as long as there is none,
    /// nobody comes in.
    Mesh { acceptor: watch::Receiver<Option<TlsAcceptor>>, mesh: Arc<Mesh> },
}

/// A connection of somebody that we know.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    opening: Opening,
    _room: OwnedSemaphorePermit,
}

/// HTTP/2 begins with bytes of the client. Nothing else makes sure that they come, because pings start only afterwards.
#[derive(Debug)]
enum Opening {
    Awaited { missing: usize, deadline: Pin<Box<Sleep>> },
    Done,
}

/// The bytes of HTTP/2's connection preface and of the head of the SETTINGS frame that follows (RFC 9113, 3.4).
const OPENING: usize = 24 + 9;

// === impl Limits ===

impl Limits {
    pub const PROXIES: Self = Self {
        // An Envoy has one connection per worker and one more. This is enough for some hundred large ones, and below
        // the number of files that a process is usually allowed in a cluster.
        connections: 10_000,
        // After a restart all proxies come back at once, and a handshake takes about a millisecond.
        handshakes: 1_000,
        // Enough for some round trips between continents.
        handshake: Duration::from_secs(5),
    };
}

/// The connections that have come through the handshake.
pub fn incoming(
    listener: TcpListener,
    door: impl Into<Door>,
    limits: Limits,
    handshakes: Handshakes,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(1);
    let door = door.into();
    handshakes.open(door.port());
    let accept = Accept::new(listener, door.port(), limits.connections);
    tokio::spawn(self::accept(accept, door, limits, handshakes, sender));
    ReceiverStream::new(receiver)
}

async fn accept(
    mut accept: Accept,
    door: Door,
    limits: Limits,
    failures: Handshakes,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    let strangers = Arc::new(Semaphore::new(limits.handshakes));
    let mut handshakes = JoinSet::new();
    loop {
        let (stream, room) = tokio::select! {
            accepted = accept.next() => accepted,
            Some(_ended) = handshakes.join_next() => continue,
            () = sender.closed() => return,
        };
        let Ok(stranger) = Arc::clone(&strangers).try_acquire_owned() else {
            tracing::debug!("too many handshakes are under way");
            continue;
        };
        let Some(tls) = door.acceptor() else { continue };
        let (door, sender, failures) = (door.clone(), sender.clone(), failures.clone());
        let peer = stream.peer_addr().ok();
        handshakes.spawn(async move {
            match timeout(limits.handshake, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    drop(stranger);
                    match Connection::new(stream, &door, limits.handshake, room) {
                        Some(connection) => {
                            let _server_has_ended = sender.send(Ok(connection)).await;
                        }
                        None => failures.failed(door.port(), Reason::UnknownName, peer),
                    }
                }
                Ok(Err(error)) => {
                    failures.failed(door.port(), Reason::of(&error), peer);
                    tracing::debug!(%error, port = door.port(), "a TLS handshake failed");
                }
                Err(_elapsed) => {
                    failures.failed(door.port(), Reason::Timeout, peer);
                    tracing::debug!(port = door.port(), "a TLS handshake took too long");
                }
            }
        });
    }
}

// === impl Door ===

impl Door {
    /// The port's name in log messages.
    fn port(&self) -> &'static str {
        match self {
            Self::Own(_) => "xds",
            Self::Mesh { .. } => "sidecars",
        }
    }

    /// For the next connection.
    fn acceptor(&self) -> Option<TlsAcceptor> {
        match self {
            Self::Own(acceptor) => Some(acceptor.clone()),
            Self::Mesh { acceptor, .. } => acceptor.borrow().clone(),
        }
    }

    /// TLS has checked the certificate. The name in it says whose it is.
    fn caller(&self, certificate: &[u8]) -> Option<Caller> {
        let refused = |error: &dyn Display| tracing::warn!(%error, port = self.port(), "a connection is refused");
        match self {
            Self::Own(_) => Caller::of_certificate(certificate).inspect_err(|error| refused(error)).ok(),
            Self::Mesh { mesh, .. } => {
                let member = Member::of_certificate(certificate, mesh).inspect_err(|error| refused(error)).ok();
                member.map(Caller::Member)
            }
        }
    }
}

impl From<ServerConfig> for Door {
    fn from(config: ServerConfig) -> Self {
        Self::Own(Arc::new(config).into())
    }
}

// === impl Connection ===

impl Connection {
    fn new(stream: TlsStream<TcpStream>, door: &Door, patience: Duration, room: OwnedSemaphorePermit) -> Option<Self> {
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first)?;
        let caller = door.caller(leaf)?;
        let opening = Opening::Awaited { missing: OPENING, deadline: Box::pin(sleep(patience)) };
        Some(Self { stream, caller, opening, _room: room })
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Opening::Awaited { missing, deadline } = &mut this.opening {
            *missing = missing.saturating_sub(buffer.filled().len() - before);
            if *missing == 0 {
                this.opening = Opening::Done;
            } else if deadline.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
