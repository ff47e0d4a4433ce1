//! The objects of Istio that are there: whether they let Gateways in, and whether callers see them.

use serde_json::Value;

use super::super::{ROOT, principal};
use super::{Found, FoundGateway, Remark};
use crate::terms::Key;

/// How a namespace takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Strict,
    Permissive,
    Disable,
}

pub fn of_mode(found: &Found, namespace: &str) -> Option<Remark> {
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
pub fn of_authorization(found: &Found, namespace: &str, gateway: &FoundGateway) -> Option<Remark> {
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

pub fn of_sidecar(sidecar: &Value, gateway: &FoundGateway) -> Option<Remark> {
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
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| text(object, "/kind") == kind)
    }

    /// What a workload says for itself alone is left aside.
    pub fn mode(&self, namespace: &str) -> Mode {
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
