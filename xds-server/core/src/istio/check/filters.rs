//! Services that a policy names: whether their sidecars have our filter.

use super::super::sidecars::inbound_name;
use super::{Found, FoundPod, Remark};
use crate::mesh::AGENT_ALONE;
use crate::terms::Key;

/// An EnvoyFilter that is called as ours are.
#[derive(Debug)]
pub struct FoundFilter {
    pub key: Key,
    /// Whether it has our label.
    pub is_ours: bool,
    /// The Pods that it selects.
    pub pods: Vec<FoundPod>,
}

/// Why the filter is not in a Pod that is selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outside {
    NoSidecar,
    NoEnvoy,
    Ambient,
}

/// How many Pods are named. All are counted.
const NAMED: usize = 3;

pub fn of_workloads(found: &Found) -> Vec<Remark> {
    found.workloads.iter().flat_map(|service| of_workload(found, service)).collect()
}

fn of_workload(found: &Found, service: &Key) -> Vec<Remark> {
    let key = inbound_name(service);
    let about = format!("Service {service}");
    let Some(filter) = found.filters.iter().find(|filter| filter.key == key) else {
        let message = format!("a TokenPolicy names it, and there is no EnvoyFilter {}: nobody is held to it", key.name);
        let hint = "install Tollgate with serviceMesh.sidecars=true; else the log of its leader says why";
        return vec![Remark::error(&about, &message, hint)];
    };
    if !filter.is_ours {
        let message =
            format!("a TokenPolicy names it, and the EnvoyFilter {} is not Tollgate's: nobody is held to it", key.name);
        let hint = format!("kubectl delete envoyfilter -n {} {}; Tollgate makes its own then", key.namespace, key.name);
        return vec![Remark::error(&about, &message, &hint)];
    }
    let about = format!("EnvoyFilter {key}");
    if filter.pods.is_empty() {
        let hint = format!("kubectl get pods -n {}: has Service {} any?", service.namespace, service.name);
        return vec![Remark::warning(&about, "it selects no Pod", &hint)];
    }
    [Outside::NoSidecar, Outside::NoEnvoy, Outside::Ambient]
        .into_iter()
        .filter_map(|why| of_outside(&about, filter, why))
        .collect()
}

fn of_outside(about: &str, filter: &FoundFilter, why: Outside) -> Option<Remark> {
    let names: Vec<&str> =
        filter.pods.iter().filter(|pod| outside(pod) == Some(why)).map(|pod| pod.name.as_str()).collect();
    let some = names.get(..NAMED).unwrap_or(&names).join(", ");
    let more = if names.len() > NAMED { ", ..." } else { "" };
    if names.is_empty() {
        return None;
    }
    let namespace = &filter.key.namespace;
    let (what, hint) = match why {
        Outside::NoSidecar => (
            "have no sidecar",
            format!("kubectl label namespace {namespace} istio-injection=enabled, and make the Pods anew"),
        ),
        Outside::NoEnvoy => {
            ("have Istio's agent without its Envoy", format!("take the annotation {} away", AGENT_ALONE.0))
        }
        Outside::Ambient => (
            "are in ambient mode, where istiod puts no filter",
            format!(
                "kubectl label namespace {namespace} istio.io/dataplane-mode- istio-injection=enabled, and make the Pods anew"
            ),
        ),
    };
    let message = format!(
        "{} of {} Pods {what}, so nobody is held to the policy there: {some}{more}",
        names.len(),
        filter.pods.len()
    );
    Some(Remark::error(about, &message, &hint))
}

fn outside(pod: &FoundPod) -> Option<Outside> {
    match () {
        () if pod.is_ambient => Some(Outside::Ambient),
        () if !pod.has_agent => Some(Outside::NoSidecar),
        () if pod.templates.as_deref() == Some(AGENT_ALONE.1) => Some(Outside::NoEnvoy),
        () => None,
    }
}
