//! How the proxies' ports speak TLS: version 1.3. Where discovery is, both sides have a certificate of our CA.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};

use super::pki::{Authority, ServerCertificate};

/// Only HTTP/2, because everything on this port is gRPC, or a file that is fetched in the same way.
const ALPN: &[u8] = b"h2";

/// The certificates do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the CA in the state directory cannot be used: {0} (remove its folder pki to have a new one made)")]
    Ca(#[from] rustls::Error),
    #[error("the CA in the state directory cannot be used: {0} (remove its folder pki to have a new one made)")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The same certificate of ours, for those who have none yet.
///
/// # Errors
/// When there can be no such server.
pub fn for_strangers(certificate: ServerCertificate) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// # Errors
/// When the CA is not usable.
pub fn config(authority: &Authority, certificate: ServerCertificate) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.root()?)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A server that resumes a session does not check the client's certificate again, and it may have ended since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
