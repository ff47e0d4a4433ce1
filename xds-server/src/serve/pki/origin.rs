//! Where the CA comes from, and what became of it since.
//!
//! ```text
//! Own      made once, in the state directory
//! Folder   tls.crt, tls.key, ca.crt: a Secret that is mounted, or what an agent writes
//! Secret   the same in a Secret of the control plane's namespace, which several replicas share. Whoever comes first makes
//!          it, unless somebody else is to make it, as cert-manager
//! ```
//! What somebody else keeps is looked at again and again. A CA that cannot be used is reported, and the one before stays.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::sleep;

use super::PkiError;
use super::authority::{Authority, InvalidAuthority};
use super::given::{CERTIFICATE, Given, Incomplete, KEY, Place, TRUSTED};
use crate::causes::SaidOnce;

const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Default)]
pub enum Origin {
    #[default]
    Own,
    Folder(PathBuf),
    Secret(Shared),
}

/// A Secret with the CA.
#[derive(Clone)]
pub struct Shared {
    api: Api<Secret>,
    namespace: String,
    name: String,
    maker: Maker,
}

/// Who makes the Secret if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    Us,
    Another,
}

#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    #[error("{0}")]
    Api(#[from] Box<kube::Error>),
    #[error("it is not there yet")]
    NotThere,
    #[error(transparent)]
    Incomplete(#[from] Incomplete),
    #[error(transparent)]
    Invalid(#[from] InvalidAuthority),
    #[error(transparent)]
    Pki(#[from] PkiError),
}

// === impl Origin ===

impl Origin {
    pub fn secret(client: Client, namespace: &str, name: &str, maker: Maker) -> Self {
        let api = Api::namespaced(client, namespace);
        Self::Secret(Shared { api, namespace: namespace.to_owned(), name: name.to_owned(), maker })
    }

    /// Puts the CA into the folder `pki` of the state directory, from where everybody has it. A Secret is waited for,
    /// because a cluster may take its time.
    ///
    /// # Errors
    /// When a folder has no CA that can be used.
    pub async fn first(&self, dir: &Path) -> Result<(), OriginError> {
        let mut said = SaidOnce::default();
        loop {
            let error = match self.take(dir).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match self {
                Self::Own | Self::Folder(_) => return Err(error),
                Self::Secret(_) => self.tell(&mut said, &error),
            }
            sleep(RETRY).await;
        }
    }

    async fn take(&self, dir: &Path) -> Result<(), OriginError> {
        if let Some(given) = self.given(dir).await? {
            Authority::of(dir, given.clone())?;
            Place::lock(dir)?.write(&given)?;
        }
        Ok(())
    }

    /// What somebody else's CA is now.
    ///
    /// # Errors
    /// When there is none.
    pub async fn given(&self, dir: &Path) -> Result<Option<Given>, OriginError> {
        match self {
            Self::Own => Ok(None),
            Self::Folder(folder) => Ok(Some(Given::of_folder(folder)?)),
            Self::Secret(shared) => shared.given(dir).await.map(Some),
        }
    }

    /// Says what keeps it, once while it is the same.
    pub fn tell(&self, said: &mut SaidOnce, error: &OriginError) {
        let text = error.to_string();
        if said.is_new(&text) {
            tracing::warn!("the CA of {self} cannot be used: {text}; it is tried again");
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("the state directory"),
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Secret(Shared { namespace, name, .. }) => write!(f, "Secret {namespace}/{name}"),
        }
    }
}

// === impl Shared ===

impl Shared {
    async fn given(&self, dir: &Path) -> Result<Given, OriginError> {
        if let Some(secret) = self.get().await? {
            return Ok(Given::of_secret(&secret.data.unwrap_or_default())?);
        }
        if self.maker == Maker::Another {
            return Err(OriginError::NotThere);
        }
        let made = secret(&self.name, Authority::open(dir)?.given());
        match self.api.create(&PostParams::default(), &made).await {
            Ok(_) => Ok(Given::of_secret(&made.data.unwrap_or_default())?),
            // Another replica was first.
            Err(kube::Error::Api(status)) if status.code == 409 => match self.get().await? {
                Some(secret) => Ok(Given::of_secret(&secret.data.unwrap_or_default())?),
                None => Err(OriginError::NotThere),
            },
            Err(error) => Err(Box::new(error).into()),
        }
    }

    async fn get(&self) -> Result<Option<Secret>, OriginError> {
        Ok(self.api.get_opt(&self.name).await.map_err(Box::new)?)
    }
}

/// Our own CA, for all replicas.
fn secret(name: &str, given: &Given) -> Secret {
    let data = [(CERTIFICATE, &given.certificate), (KEY, &given.key), (TRUSTED, &given.certificate)];
    let data = data.into_iter().map(|(name, text)| (name.to_owned(), ByteString(text.clone().into_bytes())));
    let mut secret = Secret { type_: Some("kubernetes.io/tls".to_owned()), ..Secret::default() };
    secret.metadata.name = Some(name.to_owned());
    secret.data = Some(data.collect());
    secret
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("namespace", &self.namespace).field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_that_we_make_is_taken_by_the_others() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let authority = Authority::open(ours.path()).unwrap();
        let made = secret("tollgate-authority", authority.given());
        assert_eq!(
            (made.metadata.name.as_deref(), made.type_.as_deref()),
            (Some("tollgate-authority"), Some("kubernetes.io/tls"))
        );
        let folder = theirs.path().join("given");
        std::fs::create_dir(&folder).unwrap();
        for (name, bytes) in made.data.unwrap() {
            std::fs::write(folder.join(name), bytes.0).unwrap();
        }
        let (dir, origin) = (theirs.path().join("pki"), Origin::Folder(folder.clone()));
        origin.first(&dir).await.unwrap();
        assert_eq!(Authority::open(&dir).unwrap().trusted(), authority.trusted());
        assert_eq!(origin.to_string(), folder.display().to_string());
        std::fs::remove_file(folder.join(KEY)).unwrap();
        assert!(origin.first(&dir).await.unwrap_err().to_string().contains("there is no tls.key"));
    }
}
