//! What is wrong with the mesh around Gateways: whether their proxies are in it, whether they reach those that they lead to,
//! whether callers see them, whether the filter is in the sidecars that are to have it, and whether versions go together.

mod filters;
mod pods;
mod policies;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::status::Severity;
use crate::terms::Key;

pub use self::filters::FoundFilter;
use self::filters::of_workloads;
pub use self::pods::is_ambient;
use self::pods::{of_proxies, of_service};
use self::policies::{of_authorization, of_mode, of_sidecar};
use self::versions::of_versions;
pub use self::versions::{FoundControlPlane, Version};

/// A cluster, as far as it matters.
#[derive(Debug, Default)]
pub struct Found {
    /// Whether the API server knows Istio's kinds.
    pub has_istio: bool,
    /// The MutatingWebhookConfigurations that put Istio's agent into Pods.
    pub injectors: Vec<String>,
    pub trust_domain: String,
    pub gateways: Vec<FoundGateway>,
    /// PeerAuthentications, AuthorizationPolicies and Sidecars.
    pub objects: Vec<Value>,
    /// The namespaces in ambient mode, where ztunnel makes the mesh's TLS.
    pub ambient: BTreeSet<String>,
    pub istiods: Vec<FoundControlPlane>,
    /// Those of Tollgate.
    pub control_planes: Vec<FoundControlPlane>,
    /// Of the command that looks.
    pub version: Option<Version>,
    /// The Services that a TokenPolicy names and whose ports are known.
    pub workloads: Vec<Key>,
    pub filters: Vec<FoundFilter>,
}

#[derive(Debug)]
pub struct FoundGateway {
    pub key: Key,
    /// The service account of its proxies.
    pub account: Key,
    /// Whether some listener takes members of the mesh alone.
    pub has_members: bool,
    pub pods: Vec<FoundPod>,
    /// What it leads to.
    pub services: Vec<FoundService>,
}

/// A Pod of proxies, or one whose sidecar is to have the filter.
#[derive(Debug, Default)]
pub struct FoundPod {
    pub name: String,
    /// Whether it asks for Istio's agent.
    pub asks: bool,
    /// The injection templates that it asks for.
    pub templates: Option<String>,
    /// Whether it has the agent.
    pub has_agent: bool,
    /// Whether ztunnel takes its connections.
    pub is_ambient: bool,
    /// The revision of Istio that its agent is of.
    pub revision: Option<String>,
    /// The version of its agent.
    pub agent: Option<Version>,
    /// The version of our proxy in it.
    pub proxy: Option<Version>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundService {
    /// For example `Service models/runner`.
    pub name: String,
    pub namespace: String,
    pub endpoints: usize,
    /// How many of these are in the mesh.
    pub members: usize,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    pub severity: Severity,
    pub about: String,
    pub message: String,
    pub hint: String,
}

/// Everything that is wrong, the worst first in each part.
pub fn check(found: &Found) -> Vec<Remark> {
    if !found.has_istio {
        let hint = "install Istio, for example istioctl install -f istio/values.yaml";
        return vec![Remark::error("cluster", "the API server does not know Istio's kinds", hint)];
    }
    let mut remarks = Vec::new();
    if found.injectors.is_empty() {
        let message = "no MutatingWebhookConfiguration injects Istio's agent into Pods";
        remarks.push(Remark::error("cluster", message, "is istiod running? kubectl get pods -n istio-system"));
    }
    remarks.extend(found.gateways.iter().flat_map(of_proxies));
    // Several Gateways may lead to one.
    let services: BTreeSet<&FoundService> = found.gateways.iter().flat_map(|gateway| &gateway.services).collect();
    remarks.extend(services.iter().filter_map(|service| of_service(found, service)));
    let namespaces: BTreeSet<&str> = services.iter().filter_map(|service| service.meshed()).collect();
    for namespace in namespaces {
        remarks.extend(of_mode(found, namespace));
        let leads_there = |gateway: &&FoundGateway| {
            gateway.services.iter().any(|service| service.meshed().is_some_and(|meshed| meshed == namespace))
        };
        let gateways = found.gateways.iter().filter(leads_there);
        remarks.extend(gateways.filter_map(|gateway| of_authorization(found, namespace, gateway)));
    }
    for gateway in found.gateways.iter().filter(|gateway| gateway.has_members) {
        remarks.extend(found.of_kind("Sidecar").filter_map(|sidecar| of_sidecar(sidecar, gateway)));
    }
    remarks.extend(of_workloads(found));
    remarks.extend(of_versions(found));
    remarks
}

// === impl FoundService ===

impl FoundService {
    /// Its namespace, if some of it is in the mesh.
    fn meshed(&self) -> Option<&str> {
        (self.members > 0).then_some(&self.namespace)
    }
}

// === impl Remark ===

impl Remark {
    fn error(about: &str, message: &str, hint: &str) -> Self {
        Self::new(Severity::Error, about, message, hint)
    }

    fn warning(about: &str, message: &str, hint: &str) -> Self {
        Self::new(Severity::Warning, about, message, hint)
    }

    fn new(severity: Severity, about: &str, message: &str, hint: &str) -> Self {
        Self { severity, about: about.to_owned(), message: message.to_owned(), hint: hint.to_owned() }
    }
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {} ({})", self.severity, self.about, self.message, self.hint)
    }
}
