//! The proxies' port as strangers and proxies meet it, byte by byte.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::WantsClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ConfigBuilder, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::incoming::{Connection, Limits, incoming};
use super::pki::foreign::Foreign;
use super::pki::{Authority, CurrentAuthority, Issued, Keeper, Leaf, Origin, SERVER_NAME};
use super::tls;
use crate::audit::Audit;
use crate::handshakes::Handshakes;
use crate::identity::{Caller, Identity};
use crate::report::{Consumers, Metrics, Status};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long to wait for what must happen, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_millis(100);
const LIMITS: Limits = Limits { connections: 2, handshakes: 2, handshake: PATIENCE };
/// How a client of HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

struct Port {
    address: SocketAddr,
    authority: CurrentAuthority,
    incoming: ReceiverStream<std::io::Result<Connection>>,
    _dir: tempfile::TempDir,
}

async fn port(limits: Limits) -> Port {
    let dir = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(dir.path(), DAY).unwrap();
    Port::of(&keeper, limits, dir).await
}

fn trusting(roots: &str) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut trusted = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        trusted.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(trusted)
}

fn with(builder: ConfigBuilder<ClientConfig, WantsClientCert>, issued: &Issued) -> ClientConfig {
    let chain = CertificateDer::pem_slice_iter(issued.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    builder.with_client_auth_cert(chain, key).unwrap()
}

fn identity() -> Identity {
    "spiffe://tollgate/gateway/default/llm".parse().unwrap()
}

// === impl Port ===

impl Port {
    async fn of(keeper: &Keeper, limits: Limits, dir: tempfile::TempDir) -> Self {
        let authority = keeper.authority();
        let tls = tls::config(authority.clone(), keeper.server_certificate()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, authority, incoming: incoming(listener, tls, limits, Handshakes::default()), _dir: dir }
    }

    /// A client with a certificate of this authority. It trusts the port's authority.
    fn client(&self, authority: &Authority, lifetime: Duration) -> Arc<ClientConfig> {
        let issued = authority.issue(Leaf::Proxy(&identity()), lifetime).unwrap();
        Arc::new(with(self.trusting(), &issued))
    }

    fn trusting(&self) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        trusting(self.authority.get().trusted())
    }

    fn proxy(&self) -> Arc<ClientConfig> {
        self.client(&self.authority.get(), DAY)
    }

    async fn shake_hands(&self, client: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        TlsConnector::from(Arc::clone(client)).connect(name, stream).await
    }

    /// With TLS 1.3 the refusal comes after the client believes that it is connected.
    async fn refuses(&self, client: &Arc<ClientConfig>) -> bool {
        let Ok(mut stream) = self.shake_hands(client).await else { return true };
        let end = timeout(PATIENCE, stream.read(&mut [0])).await.expect("the server says nothing");
        matches!(end, Err(_) | Ok(0))
    }

    async fn next(&mut self) -> Connection {
        timeout(PATIENCE, self.incoming.next()).await.expect("nobody comes in").unwrap().unwrap()
    }

    /// Waits until such a client is let in, or no longer.
    async fn comes_to(&mut self, let_in: bool, client: &Arc<ClientConfig>) {
        let comes = async {
            loop {
                let is_in = match self.shake_hands(client).await {
                    Err(_) => false,
                    // To those whom it refuses the server says so.
                    Ok(mut stream) => {
                        let mut byte = [0];
                        tokio::select! {
                            _ended = stream.read(&mut byte) => false,
                            connection = self.incoming.next() => connection.is_some(),
                        }
                    }
                };
                if is_in == let_in {
                    return;
                }
                sleep(SOON).await;
            }
        };
        timeout(PATIENCE, comes).await.expect("the other way round for too long");
    }

    /// Nobody is waiting to be let in.
    async fn is_empty(&mut self) -> bool {
        timeout(SOON, self.incoming.next()).await.is_err()
    }
}

/// Waits until the server closes. Returns what the server said before.
async fn closes(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let _end_or_reset = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("it stays open");
    said
}

#[tokio::test]
async fn a_proxy_is_known_by_its_certificate() {
    use tonic::transport::server::Connected as _;
    let mut port = port(LIMITS).await;
    let _stream = port.shake_hands(&port.proxy()).await.unwrap();
    assert_eq!(port.next().await.connect_info(), Caller::Proxy(identity()));
}

#[tokio::test]
async fn strangers_are_refused() {
    let mut port = port(LIMITS).await;
    assert!(port.refuses(&Arc::new(port.trusting().with_no_client_auth())).await, "without a certificate");
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = port.client(&Authority::open(elsewhere.path()).unwrap(), DAY);
    assert!(port.refuses(&foreign).await, "of another CA");
    let mut plain = TcpStream::connect(port.address).await.unwrap();
    plain.write_all(PREFACE).await.unwrap();
    // The server sends a TLS alert at most, and nothing of HTTP/2.
    let said = closes(&mut plain).await;
    assert!(said.is_empty() || said.first() == Some(&0x15), "{said:?}");
    assert!(port.is_empty().await);
}

/// A proxy that was let in before has a session to resume. A server that resumes it looks at no certificate.
#[tokio::test]
async fn a_certificate_that_has_ended_does_not_come_back_by_a_session() {
    let mut port = port(LIMITS).await;
    let client = port.client(&port.authority.get(), Duration::from_secs(10));
    let mut stream = port.shake_hands(&client).await.unwrap();
    let mut connection = port.next().await;
    connection.write_all(b"a ticket would come before this").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    if let Ok(again) = port.shake_hands(&client).await {
        assert_eq!(again.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        drop(port.next().await);
    }
    let end = Timestamp::now() + Duration::from_secs(12);
    while Timestamp::now() < end {
        sleep(SOON).await;
    }
    assert!(port.refuses(&client).await);
    // The connection that stands goes on.
    connection.write_all(b"more").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
}

/// In three steps, each of which somebody else takes in the folder of the CA.
#[tokio::test(flavor = "multi_thread")]
async fn another_ca_takes_the_place_of_the_one_before_and_no_connection_ends() {
    let (dir, given) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (Foreign::root("old"), Foreign::root("new"));
    let both = format!("{}{}", old.certificate, new.certificate);
    let put = |ca: &Foreign, trusted: &str| {
        for (name, text) in [("tls.key", &*ca.key), ("tls.crt", &ca.certificate), ("ca.crt", trusted)] {
            std::fs::write(given.path().join(name), text).unwrap();
        }
    };
    put(&old, &old.certificate);
    let origin = Origin::Folder(given.path().to_owned());
    origin.first(dir.path()).await.unwrap();
    // It looks every two seconds.
    let keeper = Keeper::open(dir.path(), Duration::from_secs(48)).unwrap().following(origin);
    let mut port = Port::of(&keeper, Limits { connections: 16, handshakes: 16, ..LIMITS }, dir).await;
    let log = given.path().join("audit.jsonl");
    let audit = Audit::open(&log).unwrap();
    let metrics = Metrics::with(audit.clone());
    let keeping = tokio::spawn(keeper.keep(metrics.clone()));
    let of = |ca: &Foreign, trusted: &str| {
        let ca = Authority::of(Path::new("nowhere"), ca.given(None)).unwrap();
        Arc::new(with(trusting(trusted), &ca.issue(Leaf::Proxy(&identity()), DAY).unwrap()))
    };
    let mut stream = port.shake_hands(&of(&old, &old.certificate)).await.unwrap();
    let mut connection = port.next().await;
    assert!(port.refuses(&of(&new, &old.certificate)).await);

    put(&old, &both);
    port.comes_to(true, &of(&new, &old.certificate)).await;
    put(&new, &both);
    // The server is certified by the new one now. Proxies still come with what the old one has signed.
    port.comes_to(true, &of(&old, &new.certificate)).await;
    put(&new, &new.certificate);
    port.comes_to(false, &of(&old, &new.certificate)).await;
    assert!(port.refuses(&of(&old, &new.certificate)).await);
    // What cannot be used changes nothing.
    std::fs::write(given.path().join("tls.crt"), &old.certificate).unwrap();
    let refused = async {
        let counted = "tollgate_authority_reloads_total{result=\"Refused\"} 0";
        while metrics.text(&Status::default(), Consumers::Named).unwrap().contains(counted) {
            sleep(SOON).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("it is not looked at");
    port.comes_to(true, &of(&new, &new.certificate)).await;

    connection.write_all(b"still").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    keeping.abort();
    audit.finish();
    let log = std::fs::read_to_string(log).unwrap();
    let recorded = |event: &str| log.lines().filter(|line| line.contains(&format!("\"event\":\"{event}\""))).count();
    assert_eq!(recorded("authorityReplaced"), 3, "{log}");
    // Its time may have come in between, too.
    assert!(recorded("certificateRenewed") >= 3, "{log}");
}

#[tokio::test]
async fn who_does_not_shake_hands_is_closed() {
    let mut port = port(Limits { handshake: SOON, ..LIMITS }).await;
    closes(&mut TcpStream::connect(port.address).await.unwrap()).await;
    let mut half = TcpStream::connect(port.address).await.unwrap();
    half.write_all(b"\x16\x03\x01\x02\0\x01").await.unwrap();
    closes(&mut half).await;
    assert!(port.is_empty().await);
}

#[tokio::test]
async fn who_says_nothing_after_the_handshake_is_closed() {
    let mut port = port(Limits { handshake: SOON * 10, ..LIMITS }).await;
    let client = port.proxy();
    for (said, closed) in [(&b""[..], true), (&PREFACE[..20], true), (PREFACE, false)] {
        // The handshake itself may be slower than so short a time on a busy machine.
        let (mut stream, mut connection) = loop {
            let Ok(mut stream) = port.shake_hands(&client).await else { continue };
            let mut byte = [0];
            let connection = tokio::select! {
                _ended = stream.read(&mut byte) => continue,
                connection = port.incoming.next() => connection,
            };
            break (stream, connection.unwrap().unwrap());
        };
        stream.write_all(said).await.unwrap();
        let mut heard = vec![0; PREFACE.len()];
        let read = timeout(PATIENCE, connection.read_exact(&mut heard)).await.expect("it waits for ever");
        assert_eq!(read.is_err(), closed, "{said:?}");
        if !closed {
            assert!(timeout(SOON * 15, connection.read(&mut [0])).await.is_err(), "a quiet proxy is kept");
        }
    }
}

#[tokio::test]
async fn one_connection_too_many_is_closed() {
    let mut port = port(LIMITS).await;
    let client = port.proxy();
    let _first = port.shake_hands(&client).await.unwrap();
    let held = (port.next().await, port.shake_hands(&client).await.unwrap());
    let second = port.next().await;
    assert!(port.refuses(&client).await);
    drop(second);
    let _third = port.shake_hands(&client).await.unwrap();
    port.next().await;
    drop(held);
}

#[tokio::test]
async fn strangers_do_not_take_the_proxies_places() {
    let mut port = port(Limits { connections: 10, handshakes: 1, handshake: PATIENCE }).await;
    let client = port.proxy();
    // The proxy is known at once, so it no longer counts among the handshakes.
    let _stream = port.shake_hands(&client).await.unwrap();
    let _known = port.next().await;
    let stranger = TcpStream::connect(port.address).await.unwrap();
    closes(&mut TcpStream::connect(port.address).await.unwrap()).await;
    drop(stranger);
    let again = async {
        while port.shake_hands(&client).await.is_err() {
            sleep(SOON).await;
        }
    };
    timeout(PATIENCE, again).await.expect("its place is never free");
    port.next().await;
}
