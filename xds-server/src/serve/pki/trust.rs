//! Whom we trust, as rustls asks it.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerifier as _};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::SERVER_NAME;
use super::keeper::CurrentAuthority;

/// Verifies a client's certificate by what is trusted at the moment of its handshake.
#[derive(Debug)]
pub struct Clients(pub CurrentAuthority);

/// The certificates in a text, PEM.
///
/// # Errors
/// When one of them is broken.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let broken = |error: rustls::pki_types::pem::Error| Error::General(error.to_string());
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|certificate| certificate.map_err(broken)).collect()
}

/// # Errors
/// When one of the certificates cannot be trusted by anybody.
pub fn roots(certificates: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    Ok(Arc::new(roots))
}

/// Asks every client for a certificate by one of these roots.
///
/// # Errors
/// When there is no root.
pub fn clients(roots: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
    verifier.map_err(|error| Error::General(error.to_string()))
}

/// Whether a proxy that trusts these roots would take this certificate of the server and what goes with it.
///
/// # Errors
/// Why it would not.
pub fn would_take(roots: Arc<RootCertStore>, server: &str) -> Result<(), Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
    let chain = certificates(server)?;
    let (leaf, above) = chain.split_first().ok_or_else(|| Error::General("no certificate".to_owned()))?;
    let name = ServerName::try_from(SERVER_NAME).map_err(|error| Error::General(error.to_string()))?;
    verifier.verify_server_cert(leaf, above, &name, &[], UnixTime::now()).map(drop)
}

// === impl Clients ===

impl ClientCertVerifier for Clients {
    /// None: what is returned here would have to live as long as this does, and whom we trust changes. A client with
    /// one certificate sends it anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.get().clients().verify_client_cert(leaf, above, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.get().clients().verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.get().clients().verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.get().clients().supported_verify_schemes()
    }
}
