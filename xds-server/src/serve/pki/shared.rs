//! One CA for several control planes: a Secret of type kubernetes.io/tls in their namespace. Whoever comes first makes it.
//! A Secret that somebody else made, cert-manager for example, is taken as it is.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::sleep;

use super::PkiError;
use super::authority::{Authority, CERTIFICATE_FILE, KEY_FILE};
use crate::state::private;

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
enum SharedError {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("it has no {0}")]
    Missing(&'static str),
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Puts the CA of the Secret into the folder, or the folder's into a new Secret. It is tried until it succeeds.
pub async fn share(client: &Client, namespace: &str, name: &str, dir: &Path) {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut told = String::new();
    while let Err(error) = once(&api, name, dir).await {
        let text = error.to_string();
        if told != text {
            tracing::warn!("the CA in Secret {namespace}/{name} cannot be had: {text}; it is tried again");
            told = text;
        }
        sleep(RETRY).await;
    }
}

async fn once(api: &Api<Secret>, name: &str, dir: &Path) -> Result<(), SharedError> {
    if let Some(secret) = api.get_opt(name).await? {
        return take(&secret, dir);
    }
    let made = Authority::open(dir)?;
    let mut secret = Secret { type_: Some("kubernetes.io/tls".to_owned()), ..Secret::default() };
    secret.metadata.name = Some(name.to_owned());
    let (certificate, key) = made.pem()?;
    let data = [(CERTIFICATE, certificate), (KEY, key)];
    secret.data = Some(data.into_iter().map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes()))).collect());
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(()),
        // Somebody else was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => match api.get_opt(name).await? {
            Some(secret) => take(&secret, dir),
            None => Err(SharedError::Missing(CERTIFICATE)),
        },
        Err(error) => Err(error.into()),
    }
}

fn take(secret: &Secret, dir: &Path) -> Result<(), SharedError> {
    let get = |name: &'static str| {
        let value = secret.data.as_ref().and_then(|data| data.get(name));
        value.map(|value| value.0.as_slice()).ok_or(SharedError::Missing(name))
    };
    let io = |error| PkiError::Io { path: dir.to_owned(), error };
    private::create_dir(dir).map_err(io)?;
    private::write(&dir.join(KEY_FILE), get(KEY)?).map_err(io)?;
    private::write(&dir.join(CERTIFICATE_FILE), get(CERTIFICATE)?).map_err(io)?;
    Ok(())
}
