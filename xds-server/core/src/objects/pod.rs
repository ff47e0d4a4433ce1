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
}

/// The specification says nothing that matters here.
#[derive(Deserialize)]
pub struct PodWire {
    #[serde(rename = "spec")]
    _spec: Option<PodSpec>,
    #[serde(default)]
    status: PodStatus,
}

/// A Pod that is being deleted takes no new requests, whatever its conditions say until it has ended.
pub fn pod(wire: PodWire, meta: &Meta) -> Pod {
    let conditions = wire.status.conditions.iter().flatten();
    let is_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let ip = wire.status.pod_ip.and_then(|ip| ip.parse().ok());
    Pod { ip, is_ready: is_ready && !meta.is_ending }
}
