//! How the proxies' ports speak TLS: version 1.3. Where discovery is, both sides have a certificate: of our CA, or of the
//! mesh.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerConfig, WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore};

use super::pki::{Clients, CurrentAuthority, ServerCertificate};

/// Only HTTP/2, because everything on this port is gRPC, or a file that is fetched in the same way.
const ALPN: &[u8] = b"h2";

/// The certificates do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("{0}")]
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

/// For those with a certificate of the CA of the moment.
///
/// # Errors
/// When there can be no such server.
pub fn config(authority: CurrentAuthority, certificate: ServerCertificate) -> Result<ServerConfig, TlsError> {
    Ok(gated(asking(Arc::new(Clients(authority)))?.with_cert_resolver(Arc::new(certificate))))
}

/// For members of a mesh, by its authorities, with a certificate of the mesh.
///
/// # Errors
/// When the key is not that of the certificate.
pub fn for_members(
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
    Ok(gated(asking(verifier)?.with_single_cert(chain, key)?))
}

/// Clients must show a certificate that this takes.
fn asking(verifier: Arc<dyn ClientCertVerifier>) -> Result<ConfigBuilder<ServerConfig, WantsServerCert>, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(builder.with_client_cert_verifier(verifier))
}

/// Nobody comes in without a full handshake.
fn gated(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A server that resumes a session does not check the client's certificate again, and it may have ended since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}
