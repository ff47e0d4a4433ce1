//! Which cluster, and who we are there: a kubeconfig, or the service account of the pod.

use std::path::PathBuf;
use std::time::Duration;

use kube::Client;
use kube::config::{Config, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};

/// An API server that takes no connection in this time does not answer.
const CONNECT: Duration = Duration::from_secs(5);

/// What the user says of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Access {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    /// None: all of them.
    pub namespaces: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("the kubeconfig cannot be used (--kubeconfig names another file, --kube-context another context)")]
    Kubeconfig(#[from] KubeconfigError),
    #[error("no cluster is known (name a kubeconfig by --kubeconfig or KUBECONFIG, or run in a pod)")]
    NoCluster(#[from] InferConfigError),
    #[error("there can be no connection to the API server")]
    Client(#[from] kube::Error),
}

// === impl Access ===

impl Access {
    pub(super) async fn client(&self) -> Result<Client, AccessError> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT);
        Ok(Client::try_from(config)?)
    }

    async fn config(&self) -> Result<Config, AccessError> {
        if self.kubeconfig.is_none() && self.context.is_none() {
            return Ok(Config::infer().await?);
        }
        let kubeconfig = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path)?,
            None => Kubeconfig::read()?,
        };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        Ok(Config::from_custom_kubeconfig(kubeconfig, &options).await?)
    }
}
