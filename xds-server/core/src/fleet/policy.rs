//! The NetworkPolicy of a Gateway's proxies: who may reach them, and whom they may reach. It admits what the Gateway's
//! configuration leads to and no more, so it changes with the routes.
//!
//! A rule is about what a packet says once a Service's address is the address of a Pod: Pods are named by the labels
//! by which their Service selects them, and ports are those of the Pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::placement::STATUS_PORT;

use super::{PodMesh, Settings};

/// The label of a namespace that is its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Of a cluster's DNS, and of OpenShift's, whose Pods have the second one.
const DNS_PORTS: [u16; 2] = [53, 5353];
/// Where istiod gives Istio's agent its certificate.
const ISTIOD_PORT: u16 = 15012;
/// Where the kubelet asks Istio's agent whether it is ready, and through it other containers, where injection leads their probes
/// there.
const ISTIO_AGENT: u16 = 15020;
/// Identity, destinations and policies of Linkerd's control plane.
const LINKERD_PORTS: [u16; 3] = [8080, 8086, 8090];
/// Where Linkerd's proxy takes connections of other proxies.
const LINKERD_INBOUND: u16 = 4143;
/// Where the kubelet asks it whether it is ready.
const LINKERD_ADMIN: u16 = 4191;
/// Link-local addresses, among them the one of a cloud's metadata, are no provider's.
const LINK_LOCAL: &str = "169.254.0.0/16";
/// What the control plane's Pods have as `app.kubernetes.io/name`.
const CONTROL_PLANE: &str = "tollgate";

/// Where the proxies of a Gateway connect to, and at which ports of it.
pub type Egress = BTreeMap<Destination, BTreeSet<u16>>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// The Pods of a namespace that have these labels.
    Pods {
        namespace: String,
        labels: BTreeMap<String, String>,
    },
    Address(IpAddr),
    /// A name that is resolved when it is asked.
    Outside,
}

/// `namespace` is the control plane's.
pub(super) fn spec(
    selector: &Map<String, Value>,
    ports: &BTreeSet<u16>,
    to: &Egress,
    settings: &Settings,
    namespace: &str,
) -> Value {
    // The node probes it, and load balancers may. Which addresses these have is not known.
    let mut ingress = vec![json!({"ports": tcp([STATUS_PORT])})];
    // Listeners are for everybody. A rule without ports would be for all of them.
    if !ports.is_empty() {
        ingress.push(json!({"ports": tcp(ports.iter().copied())}));
    }
    let control_plane = json!([{
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": CONTROL_PLANE}},
    }]);
    let mut egress = vec![
        json!({"to": control_plane, "ports": tcp([settings.xds_port, settings.certificates_port])}),
        json!({"ports": dns()}),
    ];
    match &settings.mesh {
        PodMesh::None => {}
        PodMesh::Istio { .. } => {
            ingress.push(json!({"ports": tcp([ISTIO_AGENT])}));
            egress.push(json!({"to": [in_any("istio")], "ports": tcp([ISTIOD_PORT])}));
        }
        PodMesh::Linkerd(_) => {
            ingress.push(json!({"ports": tcp([LINKERD_INBOUND, LINKERD_ADMIN])}));
            let to = in_any("linkerd.io/control-plane-component");
            egress.push(json!({"to": [to], "ports": tcp(LINKERD_PORTS)}));
            // Proxies of Linkerd speak to each other's port where a connection is passed on as it is.
            egress.push(json!({"to": [{"namespaceSelector": {}}], "ports": tcp([LINKERD_INBOUND])}));
        }
    }
    egress.extend(
        to.iter()
            .filter(|(_, ports)| !ports.is_empty())
            .map(|(destination, ports)| json!({"to": destination.peers(), "ports": tcp(ports.iter().copied())})),
    );
    json!({
        "podSelector": {"matchLabels": selector},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": egress,
    })
}

fn tcp(ports: impl IntoIterator<Item = u16>) -> Vec<Value> {
    ports.into_iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect()
}

fn dns() -> Vec<Value> {
    let both = |port: u16| ["UDP", "TCP"].map(|protocol| json!({"port": port, "protocol": protocol}));
    DNS_PORTS.into_iter().flat_map(both).collect()
}

/// Pods with a label, wherever they are.
fn in_any(label: &str) -> Value {
    json!({
        "namespaceSelector": {},
        "podSelector": {"matchExpressions": [{"key": label, "operator": "Exists"}]},
    })
}

// === impl Destination ===

impl Destination {
    fn peers(&self) -> Value {
        match self {
            Self::Pods { namespace, labels } => json!([{
                "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: namespace}},
                "podSelector": {"matchLabels": labels},
            }]),
            Self::Address(IpAddr::V4(ip)) => json!([{"ipBlock": {"cidr": format!("{ip}/32")}}]),
            Self::Address(IpAddr::V6(ip)) => json!([{"ipBlock": {"cidr": format!("{ip}/128")}}]),
            Self::Outside => json!([
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": [LINK_LOCAL]}},
                {"ipBlock": {"cidr": "::/0"}},
            ]),
        }
    }
}
