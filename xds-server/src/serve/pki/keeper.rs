//! Makes new certificates in time: the server's own, and those of every proxy that has a folder here. If the CA is somebody
//! else's, it is looked at as well, and its successor takes its place without a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::time::sleep;

use super::PkiError;
use super::authority::{Authority, Issued, Leaf, Validity};
use super::folder::{Folder, ProxyFiles};
use super::given::Place;
use super::origin::{Origin, OriginError};
use super::trust;
use crate::audit::Event;
use crate::causes::SaidOnce;
use crate::identity::Identity;
use crate::report::{Certificate, Metrics};

/// How often the keeper looks at the wall clock, and at somebody else's CA. After a machine has slept, the keeper is late by
/// this much at most.
const LOOK: Duration = Duration::from_secs(10);
/// It looks at least so often in the life of a certificate.
const LOOKS: u32 = 24;

/// Issues certificates and renews them.
#[derive(Debug)]
pub struct Keeper {
    origin: Origin,
    authority: watch::Sender<Arc<Authority>>,
    lifetime: Duration,
    validity: Validity,
    server: watch::Sender<Arc<CertifiedKey>>,
}

/// The CA of the moment. Whoever signs or verifies asks for it each time.
#[derive(Debug, Clone)]
pub struct CurrentAuthority(watch::Receiver<Arc<Authority>>);

/// The server's present certificate. TLS asks for it at each handshake.
#[derive(Debug, Clone)]
pub struct ServerCertificate(watch::Receiver<Arc<CertifiedKey>>);

// === impl Keeper ===

impl Keeper {
    /// # Errors
    /// When the folder of the CA cannot be used.
    pub fn open(dir: &Path, lifetime: Duration) -> Result<Self, PkiError> {
        let authority = Authority::open(dir)?;
        let issued = authority.issue(Leaf::Server, lifetime)?;
        let server = watch::Sender::new(certified_key(&issued)?);
        let authority = watch::Sender::new(Arc::new(authority));
        Ok(Self { origin: Origin::Own, authority, lifetime, validity: issued.validity, server })
    }

    /// The same, for a CA that somebody else may replace.
    pub fn following(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    pub fn authority(&self) -> CurrentAuthority {
        CurrentAuthority(self.authority.subscribe())
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
        let authority = self.authority.borrow().clone();
        self.put(&authority, &Folder::of(authority.dir(), identity))
    }

    /// Renews for as long as the task lives.
    pub async fn keep(mut self, metrics: Metrics) {
        let mut said = SaidOnce::default();
        loop {
            let replaced = match self.replaced().await {
                Ok(replaced) => {
                    said.forget();
                    replaced
                }
                Err(error) => {
                    metrics.authority_refused();
                    self.origin.tell(&mut said, &error);
                    None
                }
            };
            // Files and signatures take a moment, and other tasks must not wait for them.
            tokio::task::block_in_place(|| self.look(replaced, &metrics));
            sleep(LOOK.min(self.lifetime / LOOKS)).await;
        }
    }

    /// Another CA, if there is one now.
    async fn replaced(&self) -> Result<Option<Authority>, OriginError> {
        let now = self.authority.borrow().clone();
        let Some(given) = self.origin.given(now.dir()).await?.filter(|given| given != now.given()) else {
            return Ok(None);
        };
        let authority = Authority::of(now.dir(), given)?;
        Place::lock(now.dir())?.write(authority.given())?;
        Ok(Some(authority))
    }

    fn look(&mut self, replaced: Option<Authority>, metrics: &Metrics) {
        let all = replaced.is_some();
        if let Some(authority) = replaced {
            tracing::info!(until = %authority.validity().until, "there is another CA, of {}", self.origin);
            metrics.authority_taken();
            metrics.audit().record(Event::AuthorityReplaced { until: authority.validity().until });
            self.authority.send_replace(Arc::new(authority));
        }
        let authority = self.authority.borrow().clone();
        let now = Timestamp::now();
        if all || self.validity.renewal() <= now {
            match self.renew_server(&authority) {
                Ok(until) => metrics.audit().record(Event::CertificateRenewed { identity: "server", until }),
                Err(error) => {
                    tracing::error!(%error, until = %self.validity.until, "the server's certificate cannot be renewed");
                }
            }
        }
        let Validity { from, until } = authority.validity();
        metrics.certificate(Certificate::Ca, from, until);
        metrics.certificate(Certificate::Server, self.validity.from, self.validity.until);
        let folders = Folder::all(authority.dir());
        let ends = folders.into_iter().filter_map(|folder| {
            let due = all || folder.validity().is_none_or(|validity| validity.renewal() <= now);
            let put = due.then(|| self.put(&authority, &folder));
            let validity = folder.validity();
            match (put, validity) {
                (Some(Ok(_)), Some(Validity { until, .. })) => {
                    let identity = folder.identity.to_string();
                    metrics.audit().record(Event::CertificateRenewed { identity: &identity, until });
                }
                (Some(Err(error)), _) => {
                    tracing::error!(%error, identity = %folder.identity, "a proxy's certificate cannot be renewed");
                }
                (Some(Ok(_)) | None, _) => {}
            }
            validity
        });
        if let Some(first) = ends.min_by_key(|validity| validity.until) {
            metrics.certificate(Certificate::Envoy, first.from, first.until);
        }
    }

    /// Returns how long it counts.
    fn renew_server(&mut self, authority: &Authority) -> Result<Timestamp, PkiError> {
        let issued = authority.issue(Leaf::Server, self.lifetime)?;
        self.server.send_replace(certified_key(&issued)?);
        self.validity = issued.validity;
        tracing::debug!(until = %self.validity.until, "the server has a new certificate");
        Ok(self.validity.until)
    }

    fn put(&self, authority: &Authority, folder: &Folder) -> Result<ProxyFiles, PkiError> {
        let issued = authority.issue(Leaf::Proxy(&folder.identity), self.lifetime)?;
        tracing::debug!(identity = %folder.identity, until = %issued.validity.until, "a proxy has a new certificate");
        folder.put(&issued, authority.trusted())
    }
}

// === impl CurrentAuthority ===

impl CurrentAuthority {
    pub fn get(&self) -> Arc<Authority> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits for the next one, for ever if there is none any more.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

// === impl ServerCertificate ===

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.borrow()))
    }
}

fn certified_key(issued: &Issued) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let chain = trust::certificates(&issued.certificate)?;
    let broken = |error: rustls::pki_types::pem::Error| rustls::Error::General(error.to_string());
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).map_err(broken)?;
    let certified = CertifiedKey::new(chain, any_supported_type(&key)?);
    certified.keys_match()?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn nothing_is_renewed_before_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::open(dir.path(), Duration::from_secs(3600)).unwrap();
        keeper.proxy(&"spiffe://tollgate/gateway/default/llm".parse().unwrap()).unwrap();
        let of_proxy = || fs::read_to_string(dir.path().join("proxy_default_llm.pem")).unwrap();
        let (server, proxy) = (Arc::clone(&keeper.server.borrow()), of_proxy());
        keeper.look(None, &Metrics::default());
        assert_eq!((server.cert.clone(), proxy), (keeper.server.borrow().cert.clone(), of_proxy()));
    }

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
            tokio::time::timeout(Duration::from_secs(120), renewed).await.expect("it is renewed");
            assert_ne!(first.cert, server.borrow().cert);
        }
        kept.abort();
    }
}
