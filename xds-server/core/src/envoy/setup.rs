//! What the filter of any scope is told of its surroundings: where its code is, and how it reaches the control plane.

/// The Envoy cluster of the control plane in the bootstrap of the proxies that we program.
pub const CONTROL_CLUSTER: &str = "tollgate_control";

/// What the surroundings add to the filter's configuration.
#[derive(Debug, Clone)]
pub struct FilterSetup {
    pub code: FilterCode,
    pub control_cluster: ControlCluster,
}

/// How Envoy gets the filter's code.
#[derive(Debug, Clone)]
pub enum FilterCode {
    /// A file on Envoy's machine.
    File(String),
    /// Fetched from the control plane by HTTP, through its cluster.
    Remote { sha256: String, path: String },
}

/// The cluster through which a proxy reaches the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlCluster {
    /// The static one of our bootstrap, which the proxies of Gateways have.
    Bootstrap,
    /// The one that istiod makes of our Service in every sidecar, under the mTLS of the mesh.
    Istio { host: String, port: u16 },
}

// === impl FilterSetup ===

impl FilterSetup {
    /// In the proxies of Gateways.
    pub fn of_gateways(code: FilterCode) -> Self {
        Self { code, control_cluster: ControlCluster::Bootstrap }
    }
}

// === impl ControlCluster ===

impl ControlCluster {
    pub fn name(&self) -> String {
        match self {
            Self::Bootstrap => CONTROL_CLUSTER.to_owned(),
            // As istiod names the clusters of the requests that a sidecar sends.
            Self::Istio { host, port } => format!("outbound|{port}||{host}"),
        }
    }

    /// The authority of requests to the control plane.
    pub fn host(&self) -> &str {
        match self {
            Self::Bootstrap => CONTROL_CLUSTER,
            Self::Istio { host, .. } => host,
        }
    }
}
