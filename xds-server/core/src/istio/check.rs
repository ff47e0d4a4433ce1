//! What is wrong with the mesh around Gateways: whether their proxies are in it, whether they reach those that they lead to,
//! and whether callers see them.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::{ROOT, principal};
use crate::mesh::AGENT_ALONE;
use crate::status::Severity;
use crate::terms::Key;

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

/// A Pod of proxies.
#[derive(Debug)]
pub struct FoundPod {
    pub name: String,
    /// Whether it asks for Istio's agent.
    pub asks: bool,
    /// The injection templates that it asks for.
    pub templates: Option<String>,
    /// Whether it has the agent.
    pub has_agent: bool,
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

/// How a namespace takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Strict,
    Permissive,
    Disable,
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
    remarks.extend(services.iter().filter_map(|service| of_service(service)));
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
    remarks
}

fn of_proxies(gateway: &FoundGateway) -> Vec<Remark> {
    let about = format!("Gateway {}", gateway.key);
    if gateway.pods.is_empty() {
        let hint = "kubectl get deployment, events: are its proxies made?";
        return vec![Remark::warning(&about, "it has no Pod", hint)];
    }
    let remark = |pod: &FoundPod| {
        let name = &pod.name;
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

fn of_service(service: &FoundService) -> Option<Remark> {
    let FoundService { name, namespace, endpoints, members } = service;
    if *endpoints == 0 || endpoints == members {
        return None;
    }
    let message = match members {
        0 => "none of its endpoints is in the mesh: they are spoken to in plain text".to_owned(),
        _ => format!("{members} of {endpoints} endpoints are in the mesh, and the others are spoken to in plain text"),
    };
    let hint = format!("kubectl label namespace {namespace} istio-injection=enabled, and make the Pods anew");
    Some(Remark::warning(name, &message, &hint))
}

fn of_mode(found: &Found, namespace: &str) -> Option<Remark> {
    let about = format!("namespace {namespace}");
    match found.mode(namespace) {
        Mode::Strict => None,
        Mode::Permissive => {
            let hint = format!("tollgate mesh policies --runners {namespace} --gateway ...");
            Some(Remark::warning(&about, "its Pods take plain text of anybody, too", &hint))
        }
        Mode::Disable => {
            let message =
                "its PeerAuthentication is DISABLE: Gateways speak the mesh's TLS to its Pods, and get no answer";
            Some(Remark::error(&about, message, "mode: STRICT"))
        }
    }
}

/// What cannot be told counts as permitted.
fn of_authorization(found: &Found, namespace: &str, gateway: &FoundGateway) -> Option<Remark> {
    let here = |policy: &&Value| [namespace, ROOT].contains(&text(policy, "/metadata/namespace"));
    let (allow, rest): (Vec<&Value>, Vec<&Value>) = found
        .of_kind("AuthorizationPolicy")
        .filter(here)
        .partition(|policy| ["", "ALLOW"].contains(&text(policy, "/spec/action")));
    let admits = |policy: &Value| list(policy, "/spec/rules").any(|rule| found.admits(rule, &gateway.account));
    let about = format!("namespace {namespace}");
    let denies = |policy: &&&Value| {
        text(policy, "/spec/action") == "DENY"
            && is_for_all(policy)
            && list(policy, "/spec/rules").any(|rule| rule.as_object().is_some_and(serde_json::Map::is_empty))
    };
    if let Some(policy) = rest.iter().find(denies) {
        let message = format!("AuthorizationPolicy {} denies everything", text(policy, "/metadata/name"));
        let hint = format!("let {} in", principal(&found.trust_domain, &gateway.account));
        return Some(Remark::error(&about, &message, &hint));
    }
    let closing = allow.iter().find(|policy| is_for_all(policy))?;
    if allow.iter().any(|policy| admits(policy)) {
        return None;
    }
    let message = format!(
        "no AuthorizationPolicy lets Gateway {} in, and {} leaves nobody else in",
        gateway.key,
        text(closing, "/metadata/name")
    );
    let hint = format!("tollgate mesh policies --gateway {} --runners {namespace}", gateway.key);
    Some(Remark::error(&about, &message, &hint))
}

fn of_sidecar(sidecar: &Value, gateway: &FoundGateway) -> Option<Remark> {
    let (namespace, name) = (text(sidecar, "/metadata/namespace"), text(sidecar, "/metadata/name"));
    let target = &*gateway.key.namespace;
    let shows = |host: &Value| {
        let seen = host.as_str().and_then(|host| host.split_once('/')).map_or("", |(namespace, _)| namespace);
        seen == "*" || seen == target || (seen == "." && namespace == target)
    };
    let mut egress = list(sidecar, "/spec/egress").peekable();
    egress.peek()?;
    if egress.any(|egress| list(egress, "/hosts").any(shows)) {
        return None;
    }
    let message = format!("the workloads that it is for do not see Gateway {}", gateway.key);
    let hint = format!("add {target}/* to its egress hosts");
    Some(Remark::warning(&format!("Sidecar {namespace}/{name}"), &message, &hint))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// Whether an object is for all workloads of its namespace.
fn is_for_all(object: &Value) -> bool {
    let selector = object.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    object.pointer("/spec/targetRefs").is_none() && selector.is_none_or(serde_json::Map::is_empty)
}

/// `*` matches everything, a star at one end anything there (Istio's AuthorizationPolicy).
fn matches(pattern: &str, value: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => value.ends_with(suffix),
        (None, Some(prefix)) => value.starts_with(prefix),
        (None, None) => pattern == value,
    }
}

// === impl Found ===

impl Found {
    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| text(object, "/kind") == kind)
    }

    /// What a workload says for itself alone is left aside.
    fn mode(&self, namespace: &str) -> Mode {
        let mode = |namespace: &str| {
            let mut here =
                self.of_kind("PeerAuthentication").filter(|object| text(object, "/metadata/namespace") == namespace);
            match text(here.find(|object| is_for_all(object))?, "/spec/mtls/mode") {
                "STRICT" => Some(Mode::Strict),
                "PERMISSIVE" => Some(Mode::Permissive),
                "DISABLE" => Some(Mode::Disable),
                _ => None,
            }
        };
        mode(namespace).or_else(|| mode(ROOT)).unwrap_or(Mode::Permissive)
    }

    /// Whether a rule may let in whoever has this account.
    fn admits(&self, rule: &Value, account: &Key) -> bool {
        let principal = principal(&self.trust_domain, account);
        let admits = |source: &Value| {
            let said = |field: &str| {
                let mut patterns = list(source, field).filter_map(Value::as_str).peekable();
                patterns.peek().is_some().then(|| patterns.collect::<Vec<_>>())
            };
            said("/principals").is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, &principal)))
                && said("/namespaces")
                    .is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, &account.namespace)))
                && said("/notPrincipals")
                    .is_none_or(|patterns| !patterns.iter().any(|pattern| matches(pattern, &principal)))
        };
        let mut from = list(rule, "/from").peekable();
        from.peek().is_none() || from.any(|from| from.get("source").is_none_or(admits))
    }
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
