//! Asks the control plane for a certificate, with the Pod's token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::identity::{Identity, InvalidIdentity};
use crate::serve::pki::{Issued, SERVER_NAME, Validity, certificates, roots};
use crate::serve::signing;

/// One attempt takes no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A certificate has about a thousand bytes, and a refusal a line.
const MAX_ANSWER: usize = 64 << 10;

/// Where certificates come from.
#[derive(Debug, Clone)]
pub struct Origin {
    pub host: String,
    pub port: u16,
    /// The file with the Pod's token. It is read each time, because it is renewed.
    pub token: PathBuf,
    /// Files with the CAs of the control plane, PEM. The first one that is there counts.
    pub authorities: Vec<PathBuf>,
}

/// A certificate, and what goes with it.
pub struct Given {
    pub issued: Issued,
    pub identity: Identity,
    /// PEM.
    pub authority: String,
}

#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("there is no certificate of a CA in --authority")]
    NoAuthority,
    #[error("no key can be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error("{host}:{port} cannot be reached: {error}")]
    Connect { host: String, port: u16, error: std::io::Error },
    #[error("TLS cannot be spoken: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the request failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request failed: {0}")]
    Request(#[from] axum::http::Error),
    #[error("the answer is too long or broken: {0}")]
    Answer(axum::Error),
    #[error("the control plane says {status}: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("the answer is no certificate")]
    NoCertificate,
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    TooLate,
}

// === impl Origin ===

impl Origin {
    /// Makes a key and has it certified.
    ///
    /// # Errors
    /// When a file is missing, or the control plane does not answer or refuses.
    pub async fn get(&self) -> Result<Given, GivenError> {
        timeout(PATIENCE, self.ask()).await.map_err(|_elapsed| GivenError::TooLate)?
    }

    async fn ask(&self) -> Result<Given, GivenError> {
        let token = read(&self.token)?;
        let authority = self.authority()?;
        let key = KeyPair::generate()?;
        // Whom it is for says the token.
        let request = CertificateParams::default().serialize_request(&key)?.pem()?;
        let certificate = self.send(&authority, token.trim(), request).await?;
        let validity = Validity::of(&certificate).ok_or(GivenError::NoCertificate)?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| GivenError::NoCertificate)?;
        let identity = Identity::of_certificate(&der)?;
        Ok(Given { issued: Issued { certificate, key: key.serialize_pem(), validity }, identity, authority })
    }

    /// Whom to trust, PEM.
    ///
    /// # Errors
    /// When no file is there.
    pub fn authority(&self) -> Result<String, GivenError> {
        let mut missing = GivenError::NoAuthority;
        for path in &self.authorities {
            match read(path) {
                Ok(text) => return Ok(text),
                Err(error) => missing = error,
            }
        }
        Err(missing)
    }

    async fn send(&self, authority: &str, token: &str, request: String) -> Result<String, GivenError> {
        let connect = |error| GivenError::Connect { host: self.host.clone(), port: self.port, error };
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(connect)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(|error| rustls::Error::General(error.to_string()))?;
        let stream = self.tls(authority)?.connect(name, stream).await.map_err(connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::post(signing::PATH)
            .header(header::HOST, SERVER_NAME)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::from(request))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = axum::body::to_bytes(Body::new(answer.into_body()), MAX_ANSWER).await.map_err(GivenError::Answer)?;
        connection.abort();
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        if status == StatusCode::OK { Ok(text) } else { Err(GivenError::Refused { status, text }) }
    }

    fn tls(&self, authority: &str) -> Result<TlsConnector, GivenError> {
        let certificates = certificates(authority).map_err(|_| GivenError::NoAuthority)?;
        if certificates.is_empty() {
            return Err(GivenError::NoAuthority);
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots(&certificates)?)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn read(path: &Path) -> Result<String, GivenError> {
    std::fs::read_to_string(path).map_err(|error| GivenError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::post;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::handshakes::Handshakes;
    use crate::serve::pki::Keeper;
    use crate::serve::tls;
    use crate::web;

    /// The kubelet puts another token into the file before the one that is there ends.
    #[tokio::test]
    async fn a_token_that_was_renewed_is_shown_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::open(dir.path(), Duration::from_secs(3600)).unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&shown);
        let refuse = async move |headers: HeaderMap| {
            noted.lock().unwrap().push(headers[header::AUTHORIZATION].to_str().unwrap().to_owned());
            (StatusCode::FORBIDDEN, "no")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(tls::for_strangers(keeper.server_certificate()).unwrap()));
        let tls = web::Tls { acceptor, failures: Handshakes::default() };
        let router = Router::new().route(signing::PATH, post(refuse));
        tokio::spawn(web::serve_tls(listener, "certificates", router, web::Limits::PEOPLE, tls));

        let (token, authority) = (dir.path().join("token"), dir.path().join("trusted.pem"));
        std::fs::write(&authority, keeper.authority().get().trusted()).unwrap();
        let origin = Origin { host: "127.0.0.1".to_owned(), port, token: token.clone(), authorities: vec![authority] };
        for text in ["first\n", "second"] {
            std::fs::write(&token, text).unwrap();
            let refused = loop {
                match origin.get().await.err().unwrap() {
                    // A busy machine may be too slow for one attempt.
                    GivenError::TooLate => continue,
                    refused => break refused,
                }
            };
            assert_eq!(refused.to_string(), "the control plane says 403 Forbidden: no");
        }
        let mut shown = shown.lock().unwrap().clone();
        shown.dedup();
        assert_eq!(shown, ["Bearer first", "Bearer second"]);
        std::fs::remove_file(&token).unwrap();
        assert!(matches!(origin.get().await.err(), Some(GivenError::File { .. })));
    }
}
