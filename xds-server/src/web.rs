//! The ports for people, scrapers, probes and Pods that ask for a certificate. They speak HTTP/1.1 within limits, since
//! anybody who reaches a port may connect.

use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::accept::Accept;
use crate::handshakes::{Handshakes, Reason};

/// The limits of such a port.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connections: usize,
    /// The time for the head of a request, counted from the answer before it. So it is also the idle time of a kept
    /// connection.
    pub head: Duration,
    /// A connection is told to end after this time.
    pub age: Duration,
    /// Then the answer under way has this time. A client that reads more slowly loses the rest of it.
    pub last_answer: Duration,
}

/// How such a port speaks TLS.
#[derive(Clone)]
pub struct Tls {
    pub acceptor: TlsAcceptor,
    pub failures: Handshakes,
}

/// The most bytes of a request's head. Requests are short, but a browser adds the cookies of every server on its host.
const MAX_HEAD: usize = 32 << 10;

// === impl Limits ===

impl Limits {
    pub const PEOPLE: Self = Self {
        // Enough for some browsers, a few scrapers and probes.
        connections: 128,
        head: Duration::from_secs(10),
        age: Duration::from_secs(5 * 60),
        last_answer: Duration::from_secs(30),
    };
}

/// Serves until the task is aborted. `port` is the port's name in log messages.
pub async fn serve(listener: TcpListener, port: &'static str, router: Router, limits: Limits) {
    serve_by(listener, port, router, limits, None).await;
}

/// The same under TLS.
pub async fn serve_tls(listener: TcpListener, port: &'static str, router: Router, limits: Limits, tls: Tls) {
    tls.failures.open(port);
    serve_by(listener, port, router, limits, Some(tls)).await;
}

/// Where a request comes from, in its extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

async fn serve_by(listener: TcpListener, port: &'static str, router: Router, limits: Limits, tls: Option<Tls>) {
    let mut accept = Accept::new(listener, port, limits.connections);
    // The set is dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let (stream, room) = tokio::select! {
            accepted = accept.next() => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        let (router, tls) = (router.clone(), tls.clone());
        let Ok(peer) = stream.peer_addr() else {
            // It has gone again.
            continue;
        };
        let router = router.layer(Extension(Peer(peer.ip())));
        connections.spawn(async move {
            match tls {
                None => connection(stream, router, limits).await,
                Some(tls) => match timeout(limits.head, tls.acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, router, limits).await,
                    Ok(Err(error)) => {
                        tls.failures.failed(port, Reason::of(&error), Some(peer));
                        tracing::debug!(%error, port, "a TLS handshake failed");
                    }
                    Err(_elapsed) => {
                        tls.failures.failed(port, Reason::Timeout, Some(peer));
                        tracing::debug!(port, "a TLS handshake took too long");
                    }
                },
            }
            drop(room);
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, limits: Limits) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(MAX_HEAD);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = sleep(limits.age) => {
            connection.as_mut().graceful_shutdown();
            match timeout(limits.last_answer, connection).await {
                Ok(ended) => ended,
                Err(_elapsed) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(120);
    const SOON: Duration = Duration::from_millis(50);
    const NEVER: Duration = Duration::from_secs(3600);
    const SLOW: Limits = Limits { connections: 2, head: NEVER, age: NEVER, last_answer: NEVER };

    async fn port(limits: Limits) -> SocketAddr {
        // Larger than what the kernel buffers between client and server.
        let large = "x".repeat(32 << 20);
        let router = Router::new().route("/", get(async || "ok")).route("/large", get(async || large));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, "test", router, limits));
        address
    }

    async fn ask(address: SocketAddr, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Reads all that comes until the server closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the server does not close");
        // If the server closes with something unread, TCP sends a reset.
        let _end_or_reset = read;
        String::from_utf8_lossy(&text).into_owned()
    }

    #[tokio::test]
    async fn half_a_head_and_an_idle_connection_end() {
        // A busy machine may take longer than a moment to hear of what was sent at once.
        let address = port(Limits { head: SOON * 20, ..SLOW }).await;
        rest(&mut ask(address, "GET / HTTP/1.1\r\nhost: local").await).await;
        rest(&mut ask(address, "").await).await;
        let mut kept = ask(address, "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(rest(&mut kept).await.ends_with("ok"));
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_ends() {
        let address = port(Limits { connections: 1, age: SOON * 10, last_answer: SOON * 10, ..SLOW }).await;
        let _unread = ask(address, "GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        // There is room for the one connection again.
        let again = async {
            while !rest(&mut ask(address, "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await).await.ends_with("ok") {
                sleep(SOON).await;
            }
        };
        timeout(PATIENCE, again).await.expect("its place is never free");
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_the_others_go_on() {
        let address = port(SLOW).await;
        let mut first = ask(address, "").await;
        let _second = ask(address, "").await;
        assert_eq!(rest(&mut ask(address, "").await).await, "");
        first.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        assert!(rest(&mut first).await.ends_with("ok"));
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let address = port(SLOW).await;
        let head = format!("GET / HTTP/1.1\r\nhost: localhost\r\ncookie: {}", "x".repeat(2 * MAX_HEAD));
        let answer = rest(&mut ask(address, &head).await).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}
