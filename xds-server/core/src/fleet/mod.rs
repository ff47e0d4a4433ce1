//! The proxies of a Gateway in a cluster: the objects that run them, as they are to be.
//!
//! ```text
//! Gateway, settings, CA, egress -> ServiceAccount, ConfigMap (the CA), Deployment, Service, PodDisruptionBudget
//!                                  [, HorizontalPodAutoscaler] [, NetworkPolicy]
//! ```
//! It is pure: a Gateway goes in, and documents for server-side apply come out. All of them have one name, belong to the
//! Gateway (`ownerReferences`), and carry its name as a label (GEP-1762). So they end with it, and whoever looks at a
//! Pod finds its Gateway.

pub mod chart;
mod pod;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::linkerd;
use crate::mesh::{AGENT_ALONE, INJECTED, TLS_MODE};
use crate::objects::{GATEWAY_GROUP, Gateway, Key, Object, ProxyParameters, ProxyReplicas, ProxyService};
use crate::placement::Placement;
use crate::terms::Collector;
use crate::terms::names::{is_dns_label, is_label_value};

use self::pod::{AUTHORITY_VOLUME, Runs};
pub use self::pod::{CA_FILE, TOKEN_AUDIENCE};
pub use self::policy::{Destination, Egress};

/// Whose Gateway an object is for (GEP-1762).
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
/// What all of these objects have, and nobody else's.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "tollgate");

/// The port of the control plane's Service for discovery and the ledger.
pub const XDS_PORT: u16 = 18000;
/// The one for certificates.
pub const CERTIFICATES_PORT: u16 = 18001;

/// A Service has no longer name (RFC 1035 label).
const LONGEST: usize = 63;
/// Characters of a hash that make a shortened name one of a kind.
const HASH: usize = 8;

/// What the proxies of all Gateways have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub image: String,
    /// The host of the control plane, as Pods reach it.
    pub control_plane: String,
    /// Of discovery and the ledger.
    pub xds_port: u16,
    /// Where a Pod gets its certificate.
    pub certificates_port: u16,
    pub replicas: ProxyReplicas,
    pub service: ProxyService,
    pub mesh: PodMesh,
    pub policies: Policies,
}

/// Whether a NetworkPolicy goes with proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policies {
    None,
    PerGateway {
        /// The control plane's, which they must reach.
        namespace: String,
        /// Of their spans.
        collector: Option<Collector>,
    },
}

/// The mesh that the Pods of proxies are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodMesh {
    None,
    /// `certificates` is the folder in the Pods where Istio's agent keeps their certificate.
    Istio {
        certificates: String,
    },
    /// Linkerd's proxy makes the TLS beside the Envoy, and writes down this.
    Linkerd(linkerd::Logs),
}

/// One object as it is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub kind: FleetKind,
    pub document: Value,
}

/// The kinds of objects that proxies are made of, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FleetKind {
    ServiceAccount,
    ConfigMap,
    Service,
    Deployment,
    PodDisruptionBudget,
    HorizontalPodAutoscaler,
    NetworkPolicy,
}

/// The name of everything that belongs to the proxies of a Gateway, their service account included. It is a label of
/// RFC 1035, as a Service must have it, and no two Gateways of a namespace and class share one.
pub fn name(gateway: &str, class: &str) -> String {
    let whole = format!("{gateway}-{class}");
    let begins_well = whole.starts_with(|first: char| first.is_ascii_lowercase());
    if begins_well && is_dns_label(&whole) { whole } else { shortened("gw-", &whole, LONGEST) }
}

/// The same of a Gateway as it is.
pub fn name_of(gateway: &Object<Gateway>) -> String {
    name(gateway.meta.name(), &gateway.spec.gateway_class_name)
}

/// A label's value that stands for the Gateway.
pub fn label_value(gateway: &str) -> String {
    if is_label_value(gateway) { gateway.to_owned() } else { shortened("", gateway, LONGEST) }
}

/// Whether these are labels of something that belongs to the proxies of this Gateway.
pub fn is_of(labels: &BTreeMap<String, String>, gateway: &str) -> bool {
    let has = |name: &str, value: &str| labels.get(name).is_some_and(|found| found == value);
    has(MANAGED_BY.0, MANAGED_BY.1) && has(GATEWAY_NAME, &label_value(gateway))
}

fn shortened(prefix: &str, whole: &str, most: usize) -> String {
    let hash = hex::encode(Sha256::digest(whole.as_bytes()));
    let plain = whole.replace(|sign: char| !sign.is_ascii_alphanumeric() && sign != '-', "-");
    let room = most.saturating_sub(prefix.len() + HASH + 1);
    let begin = plain.get(..room.min(plain.len())).unwrap_or_default().trim_matches('-');
    format!("{prefix}{begin}-{}", hash.get(..HASH).unwrap_or_default())
}

/// What a Gateway asks of its proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The ports of its open listeners.
    pub ports: BTreeSet<u16>,
    /// Whether each of them takes members of the mesh alone.
    pub is_for_members: bool,
    pub parameters: ProxyParameters,
}

/// All objects of the proxies of a Gateway. `authority` is the certificate
/// of the CA that the control plane's certificate is of, as PEM. None: the Gateway is of a file, and has no owner's
/// identity.
pub fn wanted(
    gateway: &Object<Gateway>,
    asked: &Asked,
    egress: &Egress,
    settings: &Settings,
    authority: &str,
) -> Option<Vec<Wanted>> {
    let Asked { ports, is_for_members, parameters } = asked;
    let uid = &gateway.meta.provenance.cluster()?.uid;
    let fleet = Fleet { gateway, name: name_of(gateway), uid };
    let listed = gateway.spec.listeners.iter().filter_map(|listener| u16::try_from(listener.port).ok());
    // A listener that is not open keeps its port, so that it does not go and come while its certificate is changed.
    let listed = listed.filter(|port| !Placement::ProxyPerGateway.reserves(*port));
    let ports: BTreeSet<u16> = ports.iter().copied().chain(listed).collect();
    let mut all = vec![
        fleet.document(FleetKind::ServiceAccount, json!({"automountServiceAccountToken": false})),
        fleet.document(FleetKind::ConfigMap, json!({"data": {CA_FILE: authority}})),
    ];
    // Before the Pods that it is about, so that none is without it for a moment.
    if let Policies::PerGateway { namespace, .. } = &settings.policies {
        let spec = policy::spec(&fleet.selector(), &ports, egress, settings, namespace);
        all.push(fleet.document(FleetKind::NetworkPolicy, json!({"spec": spec})));
    }
    // A Service needs a port.
    if !ports.is_empty() {
        let spec = fleet.service(&ports, parameters.service.unwrap_or(settings.service));
        all.push(fleet.document(FleetKind::Service, json!({"spec": spec})));
    }
    all.extend([
        fleet.document(FleetKind::Deployment, json!({"spec": fleet.deployment(settings, parameters, *is_for_members)})),
        fleet.document(
            FleetKind::PodDisruptionBudget,
            json!({"spec": {"maxUnavailable": 1, "selector": {"matchLabels": fleet.selector()}}}),
        ),
    ]);
    if let ProxyReplicas::Between { least, most, cpu_percent } = parameters.replicas.unwrap_or(settings.replicas) {
        let spec = fleet.autoscaler(least, most, cpu_percent);
        all.push(fleet.document(FleetKind::HorizontalPodAutoscaler, json!({"spec": spec})));
    }
    Some(all)
}

struct Fleet<'a> {
    gateway: &'a Object<Gateway>,
    name: String,
    uid: &'a str,
}

// === impl Fleet ===

impl Fleet<'_> {
    fn document(&self, kind: FleetKind, content: Value) -> Wanted {
        let mut document = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.name(),
            "metadata": {
                "name": self.name,
                "namespace": self.gateway.meta.namespace(),
                "labels": self.labels(),
                "ownerReferences": [{
                    "apiVersion": format!("{GATEWAY_GROUP}/v1"),
                    "kind": "Gateway",
                    "name": self.gateway.meta.name(),
                    "uid": self.uid,
                    "controller": true,
                }],
            },
        });
        let annotations = self.annotations();
        if let (Some(metadata), false) = (document.get_mut("metadata"), annotations.is_empty()) {
            put(metadata, "annotations", json!(annotations));
        }
        if let (Value::Object(document), Value::Object(content)) = (&mut document, content) {
            document.extend(content);
        }
        Wanted { kind, document }
    }

    /// By these a Pod belongs to the Gateway. A Deployment cannot change them later.
    fn selector(&self) -> Map<String, Value> {
        let labels = [
            (GATEWAY_NAME, label_value(self.gateway.meta.name())),
            ("app.kubernetes.io/name", "tollgate-proxy".to_owned()),
        ];
        labels.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
    }

    /// What the Gateway asks for does not replace what we find our objects by.
    fn labels(&self) -> Map<String, Value> {
        let asked = self.gateway.spec.infrastructure.as_ref().and_then(|asked| asked.labels.as_ref());
        let mut labels: Map<String, Value> =
            asked.into_iter().flatten().map(|(name, value)| (name.clone(), json!(value))).collect();
        labels.extend(self.selector());
        let class = &self.gateway.spec.gateway_class_name;
        for (name, value) in
            [("app.kubernetes.io/instance", self.name.as_str()), (CLASS_NAME, &label_value(class)), MANAGED_BY]
        {
            labels.insert(name.to_owned(), json!(value));
        }
        labels
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let asked = self.gateway.spec.infrastructure.as_ref().and_then(|asked| asked.annotations.clone());
        asked.unwrap_or_default()
    }

    fn deployment(&self, settings: &Settings, parameters: &ProxyParameters, is_for_members: bool) -> Value {
        let runs = Runs {
            account: &self.name,
            selector: self.selector(),
            authority: json!({"name": AUTHORITY_VOLUME, "configMap": {"name": self.name}}),
            authority_files: &[CA_FILE],
        };
        let (mut labels, mut annotations) = (self.labels(), self.annotations());
        match &settings.mesh {
            PodMesh::None => {}
            PodMesh::Istio { .. } => {
                let (label, value) = INJECTED;
                labels.insert(label.to_owned(), json!(value));
                let (annotation, value) = AGENT_ALONE;
                annotations.insert(annotation.to_owned(), value.to_owned());
            }
            PodMesh::Linkerd(logs) => {
                let (annotation, value) = linkerd::INJECTED;
                annotations.insert(annotation.to_owned(), value.to_owned());
                // They have a TLS of their own, and must not wait for Linkerd. An owner may know of further ports.
                let own = format!("{},{}", settings.xds_port, settings.certificates_port);
                annotations.entry(linkerd::SKIPPED.to_owned()).or_insert(own);
                for (annotation, value) in logs.annotations() {
                    annotations.entry(annotation.to_owned()).or_insert_with(|| value.to_owned());
                }
            }
        }
        if is_for_members {
            // By this the sidecars of callers speak the TLS of the mesh to all ports of the Pod. An owner may know better.
            let (label, value) = TLS_MODE;
            labels.entry(label).or_insert_with(|| json!(value));
        }
        let mut template = json!({"metadata": {"labels": labels}, "spec": runs.pod(settings, parameters)});
        if let (Some(metadata), false) = (template.get_mut("metadata"), annotations.is_empty()) {
            put(metadata, "annotations", json!(annotations));
        }
        let mut spec = json!({
            "selector": {"matchLabels": self.selector()},
            // A new Pod is ready before an old one goes.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        });
        // Where an autoscaler decides, it must not be overruled at each change.
        if let ProxyReplicas::Fixed(replicas) = parameters.replicas.unwrap_or(settings.replicas) {
            put(&mut spec, "replicas", json!(replicas));
        }
        spec
    }

    fn service(&self, ports: &BTreeSet<u16>, kind: ProxyService) -> Value {
        let port =
            |port: &u16| json!({"name": format!("port-{port}"), "port": port, "protocol": "TCP", "targetPort": port});
        let mut spec = json!({
            "type": format!("{kind:?}"),
            "selector": self.selector(),
            "ports": ports.iter().map(port).collect::<Vec<_>>(),
        });
        if kind == ProxyService::LoadBalancer
            && let Some(address) = self.asked_address()
        {
            put(&mut spec, "loadBalancerIP", json!(address));
        }
        spec
    }

    /// The one address that a Service can be asked for.
    fn asked_address(&self) -> Option<&str> {
        let asked = self.gateway.spec.addresses.iter().flatten();
        let mut ips = asked.filter(|address| address.r#type.as_deref().unwrap_or("IPAddress") == "IPAddress");
        ips.find_map(|address| address.value.as_deref()).filter(|value| value.parse::<std::net::IpAddr>().is_ok())
    }

    fn autoscaler(&self, least: u32, most: u32, cpu_percent: u32) -> Value {
        json!({
            "scaleTargetRef": {
                "apiVersion": FleetKind::Deployment.api_version(),
                "kind": FleetKind::Deployment.name(),
                "name": self.name,
            },
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": cpu_percent}},
            }],
        })
    }
}

fn put(object: &mut Value, field: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(field.to_owned(), value);
    }
}

// === impl Wanted ===

impl Wanted {
    pub fn key(&self) -> Key {
        let text = |field: &str| self.document.pointer(field).and_then(Value::as_str).unwrap_or_default();
        Key::new(text("/metadata/namespace"), text("/metadata/name"))
    }
}

// === impl FleetKind ===

impl FleetKind {
    pub const ALL: [Self; 7] = [
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Service,
        Self::Deployment,
        Self::PodDisruptionBudget,
        Self::HorizontalPodAutoscaler,
        Self::NetworkPolicy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::Deployment => "Deployment",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::NetworkPolicy => "NetworkPolicy",
        }
    }

    /// Its group, which is empty for the core's, and its version.
    pub fn group_and_version(self) -> (&'static str, &'static str) {
        match self {
            Self::ServiceAccount | Self::ConfigMap | Self::Service => ("", "v1"),
            Self::Deployment => ("apps", "v1"),
            Self::PodDisruptionBudget => ("policy", "v1"),
            Self::HorizontalPodAutoscaler => ("autoscaling", "v2"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1"),
        }
    }

    pub fn api_version(self) -> String {
        match self.group_and_version() {
            ("", version) => version.to_owned(),
            (group, version) => format!("{group}/{version}"),
        }
    }
}
