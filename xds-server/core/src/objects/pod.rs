//! Pods: where each is, and whether it takes requests. Only those are read that an InferencePool selects.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{PodSpec, PodStatus};
use serde::Deserialize;

use super::Meta;

/// Its labels are in its metadata.
#[derive(Debug, Clone)]
pub struct Pod {
    /// None: it has none yet.
    pub ip: Option<IpAddr>,
    pub is_ready: bool,
    /// The name that it has in its namespace.
    pub service_account: Box<str>,
}

#[derive(Deserialize)]
pub struct PodWire {
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

/// A Pod that is being deleted takes no new requests, whatever its conditions say until it has ended.
pub fn pod(wire: PodWire, meta: &Meta) -> Pod {
    let conditions = wire.status.conditions.iter().flatten();
    let is_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let ip = wire.status.pod_ip.and_then(|ip| ip.parse().ok());
    // The API server fills it in (ServiceAccount admission).
    let service_account = wire.spec.service_account_name.filter(|name| !name.is_empty());
    let service_account = service_account.unwrap_or_else(|| "default".to_owned()).into();
    Pod { ip, is_ready: is_ready && !meta.is_ending, service_account }
}
