//! To be written.

use crate::{ir, snapshot::Snapshot};

/// What the surroundings add to the resources of a Gateway.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Address that Gateway listeners are bound to.
    pub bind: String,
    pub code: FilterCode,
}

/// How Envoy gets the filter's code.
#[derive(Debug, Clone)]
pub enum FilterCode {
    /// A file on Envoy's machine.
    File(String),
    /// Fetched from the control plane by HTTP, through the cluster of that name.
    Remote { sha256: String, path: String },
}

/// The Envoy cluster of the control plane: static, in the bootstrap.
pub const CONTROL_CLUSTER: &str = "tollgate_control";

/// Envoy resources and filter configuration of one Gateway, with the keys that it serves.
pub fn snapshot(_gateway: &ir::Gateway, _ir: &ir::Ir, _surroundings: &Surroundings) -> Snapshot {
    Snapshot::default()
}
