//! TokenPolicies that were given and cannot be taken, and what each of them names.
//!
//! A policy with a mistake closes what it names and never opens it. So its targets are read apart from the rest, and
//! leniently. If they cannot be read, the policy may have named anything in its reach.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::status::Origin;

use super::Lines;
use super::{
    ClusterVersion, FileVersion, KINDS, Meta, PolicyTarget, Provenance, Source, TOLLGATE_GROUP, TargetKind,
    TokenPolicy, closest, redact,
};

#[derive(Debug, Clone)]
pub struct RefusedPolicy {
    pub meta: Meta,
    pub names: Names,
}

/// What a policy that is refused may have been meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// Its targets could be read. They are always of its own namespace.
    Targets(Vec<PolicyTarget>),
    /// They could not be read.
    AllOfItsNamespace,
    /// Not even its namespace could be read.
    Everything,
}

/// A document that is a TokenPolicy, or was probably meant to be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect(Names);

const KIND: &str = "TokenPolicy";
/// What a policy is called whose name cannot be read.
const UNNAMED: &str = "(unnamed)";

// === impl RefusedPolicy ===

impl RefusedPolicy {
    /// Whether it has a valid name, by which it can be found.
    pub fn is_named(&self) -> bool {
        super::is_dns_subdomain(self.meta.name())
    }

    /// `namespace/name`, as clients are told.
    pub fn label(&self) -> String {
        let name = if self.is_named() { redact::plain(self.meta.name()) } else { UNNAMED.to_owned() };
        format!("{}/{name}", redact::plain(self.meta.namespace()))
    }

    /// The policy that stands for a file that cannot be read at all, because such a file may hold any policy.
    pub fn unreadable_file(file: &str) -> Self {
        Self { meta: meta(file, 1), names: Names::Everything }
    }
}

impl RefusedPolicy {
    /// The policy that stands for those of a namespace of a cluster, or of all of it, that may not be read.
    pub fn unknown(namespace: Option<&str>) -> Self {
        let names = if namespace.is_some() { Names::AllOfItsNamespace } else { Names::Everything };
        let origin = Origin::new(KIND, namespace.unwrap_or_default(), UNNAMED);
        let provenance = Provenance::Cluster(ClusterVersion::default());
        let meta = Meta { origin, labels: BTreeMap::new(), created: None, is_ending: false, provenance };
        Self { meta, names }
    }
}

// === impl Suspect ===

impl Suspect {
    /// None: the document is no policy, or one that would refuse nobody.
    pub fn of(document: &Map<String, Value>) -> Option<Self> {
        let spec = document.get("spec").and_then(Value::as_object);
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        let has = |name: &str| spec.is_some_and(|spec| spec.contains_key(name));
        let is_policy = match text("kind") {
            Some(kind) if kind.eq_ignore_ascii_case(KIND) => true,
            Some(kind) if KINDS.contains(&kind) => false,
            Some(kind) => {
                let group = text("apiVersion").and_then(|version| version.split_once('/')).map(|(group, _)| group);
                group == Some(TOLLGATE_GROUP) && (closest(kind, &KINDS) == Some(KIND) || has("targetRefs"))
            }
            None => has("targetRefs") || has("limits"),
        };
        let shadow = spec.and_then(|spec| spec.get("mode")).and_then(Value::as_str) == Some("Shadow");
        if !is_policy || shadow {
            return None;
        }
        let namespace = document.get("metadata").and_then(|metadata| metadata.get("namespace"));
        let has_namespace = namespace.is_none_or(|namespace| namespace.as_str().is_some_and(super::is_dns_label));
        let names = match spec.and_then(|spec| targets(spec.get("targetRefs")?)) {
            _ if !has_namespace => Names::Everything,
            Some(targets) => Names::Targets(targets),
            None => Names::AllOfItsNamespace,
        };
        Some(Self(names))
    }

    /// The same for a document as it is kept.
    pub fn of_source(source: &Source) -> Option<Self> {
        let document: Value = serde_json::from_str(&source.expose()).ok()?;
        Self::of(document.as_object()?)
    }

    /// The document was refused.
    pub fn refused(self, meta: Meta) -> RefusedPolicy {
        RefusedPolicy { meta, names: self.0 }
    }
}

/// The targets that references name. None: one of them cannot be read, and could be anything.
fn targets(references: &Value) -> Option<Vec<PolicyTarget>> {
    references.as_array()?.iter().map(target).collect()
}

fn target(reference: &Value) -> Option<PolicyTarget> {
    let text = |name: &str| reference.get(name).and_then(Value::as_str);
    let kinds = [
        ("Gateway", TargetKind::Gateway),
        ("HTTPRoute", TargetKind::HttpRoute),
        ("ModelPool", TargetKind::ModelPool),
        ("Service", TargetKind::Service),
    ];
    let kind = text("kind")?;
    let (_, kind) = kinds.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(kind))?;
    let name = text("name").filter(|name| super::is_dns_subdomain(name))?;
    Some(PolicyTarget { kind, name: name.to_owned() })
}

/// What can be read of who it is.
pub fn origin(document: &Map<String, Value>) -> Origin {
    let kind = document.get("kind").and_then(Value::as_str).unwrap_or(KIND);
    let metadata = |name: &str| document.get("metadata").and_then(|all| all.get(name)).and_then(Value::as_str);
    Origin::new(
        super::kinds::named(kind),
        metadata("namespace").unwrap_or("default"),
        metadata("name").unwrap_or_default(),
    )
}

pub(crate) fn meta(file: &str, line: u64) -> Meta {
    Meta {
        origin: Origin::new(KIND, "default", ""),
        labels: BTreeMap::new(),
        created: None,
        is_ending: false,
        provenance: Provenance::File(FileVersion {
            path: file.into(),
            lines: Lines::starting_at(line),
            source: Source::none(),
            since: 0,
        }),
    }
}

// === impl Names ===

impl Names {
    /// The names of a policy that could be read.
    pub fn of(policy: &TokenPolicy) -> Self {
        Self::Targets(policy.targets.clone())
    }

    /// Whether they include requests on this way. Each part is namespace and name.
    pub fn include(&self, namespace: &str, gateway: (&str, &str), route: (&str, &str), pool: (&str, &str)) -> bool {
        match self {
            Self::Everything => true,
            Self::AllOfItsNamespace => [gateway.0, route.0, pool.0].contains(&namespace),
            Self::Targets(targets) => targets.iter().any(|target| {
                let name = (namespace, target.name.as_str());
                match target.kind {
                    TargetKind::Gateway => name == gateway,
                    TargetKind::HttpRoute => name == route,
                    TargetKind::ModelPool => name == pool,
                    TargetKind::Service => false,
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(document: Value) -> Option<Names> {
        Suspect::of(document.as_object().unwrap()).map(|suspect| suspect.0)
    }

    fn route(name: &str) -> PolicyTarget {
        PolicyTarget { kind: TargetKind::HttpRoute, name: name.to_owned() }
    }

    #[test]
    fn what_may_be_a_policy() {
        let ours = "tollgate.dev/v1alpha1";
        let target = json!([{"kind": "HttpRoute", "name": "chat", "more": 1}]);
        let read = Some(Names::Targets(vec![route("chat")]));
        for document in [
            json!({"apiVersion": ours, "kind": "TokenPolicy", "spec": {"targetRefs": target, "limits": 5}}),
            json!({"apiVersion": 5, "kind": "TokenPolicy", "spec": {"targetRefs": target}}),
            json!({"apiVersion": "tollgate.io/v1", "kind": "tokenpolicy", "spec": {"targetRefs": target}}),
            json!({"apiVersion": ours, "kind": "TokenPolcy", "spec": {"targetRefs": target}}),
            json!({"apiVersion": ours, "kind": "Budget", "spec": {"targetRefs": target}}),
            json!({"spec": {"targetRefs": target}}),
            json!({"kind": "TokenPolicy", "spec": {"targetRefs": target, "mode": "shadow"}}),
        ] {
            assert_eq!(names(document.clone()), read, "{document}");
        }
        for document in [
            json!({"kind": "Consumer", "spec": {"targetRefs": target}}),
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy", "spec": {"targetRefs": target}}),
            json!({"kind": "TokenPolicy", "spec": {"targetRefs": target, "mode": "Shadow"}}),
            json!({}),
        ] {
            assert_eq!(names(document.clone()), None, "{document}");
        }
    }

    #[test]
    fn what_it_names_when_that_cannot_be_read() {
        for spec in [
            json!({}),
            json!(5),
            json!({"targetRefs": {"kind": "HTTPRoute", "name": "chat"}}),
            json!({"targetRefs": [{"kind": "HTTPRoute", "name": "chat"}, {"kind": "HTTPRuote", "name": "other"}]}),
            json!({"targetRefs": [{"kind": "HTTPRoute", "name": 5}]}),
        ] {
            let document = json!({"kind": "TokenPolicy", "spec": spec});
            assert_eq!(names(document.clone()), Some(Names::AllOfItsNamespace), "{document}");
        }
        let nowhere = json!({"kind": "TokenPolicy", "metadata": {"namespace": "A b"}, "spec": {"targetRefs": []}});
        assert_eq!(names(nowhere), Some(Names::Everything));
    }
}
