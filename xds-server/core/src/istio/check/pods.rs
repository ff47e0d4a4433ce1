//! Pods of Gateways and of those that they lead to: whether they are in the mesh, and in which mode.

use super::policies::Mode;
use super::{Found, FoundGateway, FoundPod, FoundService, Remark};
use crate::mesh::AGENT_ALONE;

/// What a namespace or a Pod in ambient mode says in its label `istio.io/dataplane-mode`.
const AMBIENT: &str = "ambient";

/// Whether ztunnel takes the connections of a Pod, by the label of its namespace and its own. Istio's CNI leaves Pods alone
/// that have an agent of their own.
pub fn is_ambient(namespace: Option<&str>, pod: Option<&str>, has_agent: bool) -> bool {
    !has_agent && pod.or(namespace) == Some(AMBIENT)
}

pub fn of_proxies(gateway: &FoundGateway) -> Vec<Remark> {
    let about = format!("Gateway {}", gateway.key);
    if gateway.pods.is_empty() {
        let hint = "kubectl get deployment, events: are its proxies made?";
        return vec![Remark::warning(&about, "it has no Pod", hint)];
    }
    let remark = |pod: &FoundPod| {
        let name = &pod.name;
        if pod.is_ambient && !pod.asks {
            return Some(of_ambient(&about, gateway, name));
        }
        if !pod.asks {
            let hint = "install Tollgate with serviceMesh.istio=true";
            return Some(Remark::error(&about, &format!("Pod {name} does not ask for Istio's agent"), hint));
        }
        let (annotation, alone) = AGENT_ALONE;
        if pod.templates.as_deref() != Some(alone) {
            let message = format!("Pod {name} does not ask for the agent alone, so it has a second proxy");
            return Some(Remark::error(&about, &message, &format!("{annotation}: {alone}")));
        }
        if !pod.has_agent {
            let message = format!("Pod {name} asks for Istio's agent and has none");
            let hint =
                "was it made before Istio? Does the injector look at this namespace? kubectl delete pod makes it anew";
            return Some(Remark::error(&about, &message, hint));
        }
        None
    };
    gateway.pods.iter().filter_map(remark).collect()
}

/// ztunnel encrypts what the Envoy sends and takes. The Envoy itself has no certificate, and sees none.
fn of_ambient(about: &str, gateway: &FoundGateway, pod: &str) -> Remark {
    let hint = "serviceMesh.istio=true gives it a certificate of its own; see docs/istio.md, Ambient";
    if gateway.has_members {
        let message =
            format!("Pod {pod} is in ambient mode and has no certificate, which its listener for members needs");
        return Remark::error(about, &message, hint);
    }
    let message =
        format!("Pod {pod} is in ambient mode: its connections are encrypted, and callers have no identity there");
    Remark::warning(about, &message, hint)
}

pub fn of_service(found: &Found, service: &FoundService) -> Option<Remark> {
    let FoundService { name, namespace, endpoints, members } = service;
    if *endpoints == 0 || endpoints == members {
        return None;
    }
    if found.ambient.contains(namespace) {
        return of_ambient_service(found, service);
    }
    let message = match members {
        0 => "none of its endpoints is in the mesh: they are spoken to in plain text".to_owned(),
        _ => format!("{members} of {endpoints} endpoints are in the mesh, and the others are spoken to in plain text"),
    };
    let hint = format!("kubectl label namespace {namespace} istio-injection=enabled, and make the Pods anew");
    Some(Remark::warning(name, &message, &hint))
}

/// Pods in ambient mode take the mesh's TLS by ztunnel alone. A Gateway with a certificate of its own does not pass one.
fn of_ambient_service(found: &Found, service: &FoundService) -> Option<Remark> {
    let FoundService { name, namespace, .. } = service;
    let speaks_plainly = |gateway: &&FoundGateway| gateway.services.contains(service) && !gateway.is_ambient();
    let gateway = &found.gateways.iter().find(speaks_plainly)?.key;
    let hint = format!(
        "kubectl label namespace {namespace} istio.io/dataplane-mode- istio-injection=enabled, and make the Pods anew"
    );
    let begin = format!("its namespace is in ambient mode, and Gateway {gateway} speaks plain text to its Pods");
    Some(match found.mode(namespace) {
        Mode::Strict => {
            Remark::error(name, &format!("{begin}, which ztunnel refuses because PeerAuthentication is STRICT"), &hint)
        }
        Mode::Permissive | Mode::Disable => Remark::warning(name, &begin, &hint),
    })
}

// === impl FoundGateway ===

impl FoundGateway {
    fn is_ambient(&self) -> bool {
        !self.pods.is_empty() && self.pods.iter().all(|pod: &FoundPod| pod.is_ambient)
    }
}
