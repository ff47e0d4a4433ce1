//! The control plane's own certificate of the mesh, in a folder where Istio's agent keeps it. The agent replaces the
//! files, so they are looked at again. New connections use what is there then, and those that stand go on.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tollgate_core::mesh::Mesh;

use super::super::pki::Validity;
use super::super::tls;
use crate::causes::SaidOnce;
use crate::report::{Certificate, Metrics};

/// How often the files are looked at.
pub const LOOK: Duration = Duration::from_secs(5);

/// Keeps the port's TLS as the folder says.
pub struct Keeper {
    folder: PathBuf,
    /// The hash of the files that were looked at last.
    seen: Option<[u8; 32]>,
    /// What was said of them. Empty: they are good.
    said: SaidOnce,
    acceptor: watch::Sender<Option<TlsAcceptor>>,
}

/// What the files say, in PEM.
struct Files {
    chain: Vec<u8>,
    key: Vec<u8>,
    roots: Vec<u8>,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{path}: {error}")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{name}: {error}")]
    NoPem { name: &'static str, error: pem::Error },
    #[error("{0} has no certificate that can be used")]
    Empty(&'static str),
    #[error("the certificates and the key do not work together: {0}")]
    Tls(#[from] tls::TlsError),
}

// === impl Keeper ===

impl Keeper {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, seen: None, said: SaidOnce::default(), acceptor: watch::Sender::new(None) }
    }

    /// None: there has been no good certificate yet.
    pub fn acceptor(&self) -> watch::Receiver<Option<TlsAcceptor>> {
        self.acceptor.subscribe()
    }

    /// Looks at the files for as long as the task lives.
    pub async fn keep(mut self, every: Duration, metrics: Metrics) {
        loop {
            self.look(&metrics).await;
            sleep(every).await;
        }
    }

    /// What is broken changes nothing: the last good certificate stays.
    async fn look(&mut self, metrics: &Metrics) {
        match self.read().await {
            Ok(Some((acceptor, validity))) => {
                tracing::info!(folder = %self.folder.display(), "the port for sidecars has a certificate of the mesh");
                if let Some(Validity { from, until }) = validity {
                    metrics.certificate(Certificate::Sidecars, from, until);
                }
                self.said.forget();
                self.acceptor.send_replace(Some(acceptor));
            }
            Ok(None) => {}
            Err(error) => self.tell(&error.to_string()),
        }
    }

    /// None: the files are those that were looked at last.
    async fn read(&mut self) -> Result<Option<(TlsAcceptor, Option<Validity>)>, Unusable> {
        let files = Files::read(&self.folder).await.inspect_err(|_| self.seen = None)?;
        let hash = files.hash();
        if self.seen.replace(hash) == Some(hash) {
            return Ok(None);
        }
        let acceptor = files.acceptor()?;
        let validity = std::str::from_utf8(&files.chain).ok().and_then(Validity::of);
        Ok(Some((acceptor, validity)))
    }

    /// Says it once.
    fn tell(&mut self, text: &str) {
        if self.said.is_new(text) {
            let goes_on = match &*self.acceptor.borrow() {
                Some(_) => "the last good certificate stays",
                None => "sidecars are refused until there is one",
            };
            tracing::warn!("--own-mesh-certificates: the certificate of the mesh cannot be used: {text}; {goes_on}");
        }
    }
}

// === impl Files ===

impl Files {
    async fn read(folder: &std::path::Path) -> Result<Self, Unusable> {
        let read = async |name: &str| {
            let path = folder.join(name);
            tokio::fs::read(&path).await.map_err(|error| Unusable::Unreadable { path, error })
        };
        let [chain, key, roots] = Mesh::FILES;
        Ok(Self { chain: read(chain).await?, key: read(key).await?, roots: read(roots).await? })
    }

    fn hash(&self) -> [u8; 32] {
        let hashes = [&self.chain, &self.key, &self.roots].map(Sha256::digest);
        hashes.iter().fold(Sha256::new(), |all, hash| all.chain_update(hash)).finalize().into()
    }

    fn acceptor(&self) -> Result<TlsAcceptor, Unusable> {
        let [chain_name, key_name, roots_name] = Mesh::FILES;
        let chain = certificates(&self.chain, chain_name)?;
        let key = <PrivateKeyDer<'static> as pem::PemObject>::from_pem_slice(&self.key)
            .map_err(|error| Unusable::NoPem { name: key_name, error })?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&self.roots, roots_name)?);
        if roots.is_empty() {
            return Err(Unusable::Empty(roots_name));
        }
        Ok(TlsAcceptor::from(Arc::new(tls::for_members(roots, chain, key)?)))
    }
}

fn certificates(text: &[u8], name: &'static str) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let all: Result<Vec<CertificateDer<'static>>, pem::Error> = pem::PemObject::pem_slice_iter(text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(Unusable::Empty(name)),
        Ok(all) => Ok(all),
        Err(error) => Err(Unusable::NoPem { name, error }),
    }
}
