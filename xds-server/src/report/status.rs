//! What the control plane knows about itself, as `/api/status`, `/readyz` and the page show it.

use serde::Serialize;
use tollgate_core::status::{Finding, ObjectStatus};

/// Who knows the statuses of objects. They are made when somebody asks.
pub trait Objects: Send + Sync {
    fn statuses(&self) -> Vec<ObjectStatus>;
}

/// The control plane publishes it whenever it changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    pub gateways: Vec<GatewayStatus>,
    /// The findings about the newest input, including its refused parts.
    pub findings: Vec<Finding>,
    /// The number of snapshots that were published. 0: none yet.
    pub generation: u64,
    pub ready: bool,
    /// The reasons why it is not ready, for the operator.
    pub waiting_for: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GatewayStatus {
    /// `namespace/name`.
    pub name: String,
    /// An Envoy of this Gateway has accepted its configuration.
    pub programmed: bool,
    pub listeners: Vec<Listener>,
    pub proxies: Vec<Proxy>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listener {
    pub name: String,
    /// `127.0.0.1:8080`.
    pub address: String,
    /// `HTTP`, `HTTPS`, ...
    pub protocol: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proxy {
    /// Envoy's node id.
    pub node: String,
    pub connected: bool,
    /// Everything that was sent to it is accepted.
    pub acked: bool,
    /// The resources that it refuses now.
    pub nacks: Vec<Nack>,
}

/// A resource that an Envoy refuses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Nack {
    /// Type and name, for example `Listener default/llm/http`; or the type alone.
    pub resource: String,
    /// Envoy's own message.
    pub message: String,
}
