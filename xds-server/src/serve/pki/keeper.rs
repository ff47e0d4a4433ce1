//! Makes new certificates in time: the server's own, and those of every proxy that has a folder here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::time::sleep;

use super::PkiError;
use super::authority::{Authority, Issued, Leaf, Validity};
use super::folder::{Folder, ProxyFiles};
use crate::identity::Identity;
use crate::report::{Certificate, Metrics};

/// How often the keeper looks at the wall clock. After a machine has slept, the keeper is late by this much at most.
const LOOK: Duration = Duration::from_secs(30);
/// It looks at least so often in the life of a certificate.
const LOOKS: u32 = 24;

/// Issues certificates and renews them.
#[derive(Debug)]
pub struct Keeper {
    authority: Arc<Authority>,
    lifetime: Duration,
    validity: Validity,
    server: watch::Sender<Arc<CertifiedKey>>,
}

/// The server's present certificate. TLS asks for it at each handshake.
#[derive(Debug, Clone)]
pub struct ServerCertificate(watch::Receiver<Arc<CertifiedKey>>);

// === impl Keeper ===

impl Keeper {
    /// # Errors
    /// When the folder of the CA cannot be used.
    pub fn open(dir: &Path, lifetime: Duration) -> Result<Self, PkiError> {
        let authority = Arc::new(Authority::open(dir)?);
        let issued = authority.issue(Leaf::Server, lifetime)?;
        let server = watch::Sender::new(certified_key(&issued)?);
        Ok(Self { authority, lifetime, validity: issued.validity, server })
    }

    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// How long what it issues lives.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    pub fn server_certificate(&self) -> ServerCertificate {
        ServerCertificate(self.server.subscribe())
    }

    /// Makes a new certificate, as files, for proxies with this identity.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn proxy(&self, identity: &Identity) -> Result<ProxyFiles, PkiError> {
        self.put(&Folder::of(self.authority.dir(), identity))
    }

    /// Renews for as long as the task lives.
    pub async fn keep(mut self, metrics: Metrics) {
        metrics.certificate(Certificate::Ca, self.authority.expiry());
        loop {
            // Files and signatures take a moment, and other tasks must not wait for them.
            tokio::task::block_in_place(|| self.look(&metrics));
            sleep(LOOK.min(self.lifetime / LOOKS)).await;
        }
    }

    fn look(&mut self, metrics: &Metrics) {
        let now = Timestamp::now();
        if self.validity.renewal() <= now
            && let Err(error) = self.renew_server()
        {
            tracing::error!(%error, until = %self.validity.until, "the server's certificate cannot be renewed");
        }
        metrics.certificate(Certificate::Server, self.validity.until);
        let folders = Folder::all(self.authority.dir());
        let ends = folders.into_iter().filter_map(|folder| {
            let due = folder.validity().is_none_or(|validity| validity.renewal() <= now);
            if due && let Err(error) = self.put(&folder) {
                tracing::error!(%error, identity = %folder.identity, "a proxy's certificate cannot be renewed");
            }
            folder.validity().map(|validity| validity.until)
        });
        if let Some(first) = ends.min() {
            metrics.certificate(Certificate::Envoy, first);
        }
    }

    fn renew_server(&mut self) -> Result<(), PkiError> {
        let issued = self.authority.issue(Leaf::Server, self.lifetime)?;
        self.server.send_replace(certified_key(&issued)?);
        self.validity = issued.validity;
        tracing::debug!(until = %self.validity.until, "the server has a new certificate");
        Ok(())
    }

    fn put(&self, folder: &Folder) -> Result<ProxyFiles, PkiError> {
        let issued = self.authority.issue(Leaf::Proxy(&folder.identity), self.lifetime)?;
        tracing::debug!(identity = %folder.identity, until = %issued.validity.until, "a proxy has a new certificate");
        folder.put(&issued, self.authority.certificate())
    }
}

// === impl ServerCertificate ===

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.borrow()))
    }
}

fn certified_key(issued: &Issued) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let pem = |error: rustls::pki_types::pem::Error| rustls::Error::General(error.to_string());
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).map_err(pem)?;
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).map_err(pem)?;
    let certified = CertifiedKey::new(vec![certificate], any_supported_type(&key)?);
    certified.keys_match()?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn each_is_renewed_before_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::open(dir.path(), Duration::from_secs(3)).unwrap();
        let identity: Identity = "spiffe://tollgate/gateway/default/llm".parse().unwrap();
        keeper.proxy(&identity).unwrap();
        let pem = dir.path().join("proxy_default_llm.pem");
        let mut server = keeper.server_certificate().0;
        let kept = tokio::spawn(keeper.keep(Metrics::default()));
        for _ in 0..2 {
            let (before, first) = (fs::read_to_string(&pem).unwrap(), Arc::clone(&server.borrow_and_update()));
            let renewed = async {
                server.changed().await.unwrap();
                while fs::read_to_string(&pem).unwrap() == before {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), renewed).await.expect("it is renewed");
            assert_ne!(first.cert, server.borrow().cert);
        }
        kept.abort();
    }
}
