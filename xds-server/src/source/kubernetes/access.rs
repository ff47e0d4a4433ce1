//! Which cluster, and who we are there: a kubeconfig, or the service account of the pod.

use std::path::PathBuf;
use std::time::Duration;

use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{Config, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::denied::Denied;
use super::refusals::OneLine;

/// An API server that takes no connection in this time does not answer.
const CONNECT: Duration = Duration::from_secs(5);

/// What the user says of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Access {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    /// None: all of them.
    pub namespaces: Vec<String>,
    /// What the API server denied to connections of this access and of its clones.
    pub denied: Denied,
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

/// A connection to a cluster.
#[derive(Clone)]
pub struct Reach {
    pub client: Client,
    /// That of the pod, or of the context of the kubeconfig.
    pub namespace: String,
}

// === impl Access ===

impl Access {
    pub(super) async fn client(&self) -> Result<Client, AccessError> {
        Ok(self.reach(None).await?.client)
    }

    /// A connection of its own. No request takes longer than `limit`.
    ///
    /// # Errors
    /// When it is not known which cluster, or who we are there.
    pub async fn reach(&self, limit: Option<Duration>) -> Result<Reach, AccessError> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(limit.map_or(CONNECT, |limit| limit.min(CONNECT)));
        config.read_timeout = limit.or(config.read_timeout);
        let namespace = config.default_namespace.clone();
        let client = ClientBuilder::try_from(config)?.with_layer(&OneLine).with_layer(&self.denied).build();
        Ok(Reach { client, namespace })
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

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[a connection, namespace {}]", self.namespace)
    }
}
