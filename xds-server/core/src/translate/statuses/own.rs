//! Our own kinds.

use std::sync::Arc;

use crate::ir::Workload;
use crate::objects::{
    CONTROLLER_NAME, Consumer, ConsumerKey, Endpoint, GATEWAY_GROUP, Key, ModelBackend, ModelPool, Object,
    RefusedParts, TOLLGATE_GROUP, TargetKind, TokenPolicy,
};
use crate::status::{AncestorStatus, Brief, Condition, ConditionType, Finding, KeyEnd, ObjectRef, Reason, Status};

use super::verdicts::{Verdicts, condition, texts};

const KEYS: &str = "spec.keys";
const TARGETS: &str = "spec.targetRefs";
/// The group of Kubernetes' own kinds has no name.
const CORE_GROUP: &str = "";

pub fn pool(object: &Object<ModelPool>) -> Brief {
    Brief::ModelPool { models: object.spec.models.iter().map(|model| model.name.clone()).collect() }
}

pub fn backend(object: &Object<ModelBackend>) -> Brief {
    let endpoint = match &object.spec.endpoint {
        Endpoint::Address { ip, port } => std::net::SocketAddr::new(*ip, *port).to_string(),
        Endpoint::Hostname { hostname, port } => format!("{hostname}:{port}"),
        Endpoint::Service { namespace: Some(namespace), name, port } => format!("{namespace}/{name}:{port}"),
        Endpoint::Service { namespace: None, name, port } => format!("{name}:{port}"),
        Endpoint::InferencePool { namespace: Some(namespace), name } => format!("{namespace}/{name}"),
        Endpoint::InferencePool { namespace: None, name } => name.clone(),
    };
    Brief::ModelBackend { endpoint }
}

/// The time is added later (`status/keys.rs`).
pub fn consumer(object: &Object<Consumer>, verdicts: &Verdicts<'_>) -> Brief {
    let counts = |key: &&ConsumerKey| !verdicts.is_wrong(KEYS, key.index);
    let end = |key: &ConsumerKey| KeyEnd { name: key.source.name(), not_after: key.not_after };
    let ends: Vec<KeyEnd> = object.spec.keys.iter().filter(counts).map(end).collect();
    Brief::Consumer { keys: ends.len(), ends }
}

/// The status of a kind that has its conditions on the object. What is wrong in a part of it that is refused by itself
/// is not wrong with all of it.
pub fn status(refused: &RefusedParts, verdicts: &Verdicts<'_>) -> Status {
    let is_of_part = |finding: &&Finding| refused.findings().any(|of_part| of_part == *finding);
    let (of_parts, of_all): (Vec<&Finding>, Vec<&Finding>) =
        verdicts.about(ConditionType::Accepted).into_iter().partition(is_of_part);
    let accepted = condition(ConditionType::Accepted, &of_all, Reason::Accepted);
    let partial =
        of_parts.first().map(|first| Condition::bad(ConditionType::PartiallyInvalid, first.reason, texts(&of_parts)));
    let resolved = verdicts.about(ConditionType::ResolvedRefs);
    let resolved = condition(ConditionType::ResolvedRefs, &resolved, Reason::ResolvedRefs);
    Status { conditions: [accepted, resolved].into_iter().chain(partial).collect(), ..Status::default() }
}

/// A policy has its conditions at its targets. A target that nobody acts on here has none.
///
/// Which Pods of a Service carry the filter is added later (`status/carriers.rs`).
pub fn policy(
    object: &Object<TokenPolicy>,
    verdicts: &Verdicts<'_>,
    workload: impl Fn(&Key) -> Option<Arc<Workload>>,
) -> (Brief, Status) {
    let targets = &object.spec.targets;
    let ancestors = targets.iter().enumerate().filter(|(index, _)| !verdicts.is_not_acted_on(TARGETS, *index));
    let ancestors = ancestors.map(|(index, target)| {
        let mut errors = verdicts.about(ConditionType::Accepted);
        errors.retain(|finding| finding.entry_of(TARGETS).is_none_or(|entry| entry == index));
        let group = match target.kind {
            TargetKind::Gateway | TargetKind::HttpRoute => GATEWAY_GROUP,
            TargetKind::ModelPool => TOLLGATE_GROUP,
            TargetKind::Service => CORE_GROUP,
        };
        let accepted = condition(ConditionType::Accepted, &errors, Reason::Accepted);
        AncestorStatus {
            ancestor_ref: ObjectRef {
                group: Some(group.to_owned()),
                kind: Some(target.kind.name().to_owned()),
                name: target.name.clone(),
                ..ObjectRef::default()
            },
            controller_name: CONTROLLER_NAME,
            conditions: [accepted].into_iter().collect(),
        }
    });
    let status = Status { ancestors: Some(ancestors.collect()), ..Status::default() };
    let services = targets.iter().filter(|target| target.kind == TargetKind::Service);
    let pods = services.filter_map(|target| {
        let workload = workload(&Key::new(object.meta.namespace(), target.name.as_str()))?;
        Some((target.name.clone(), workload.pods.clone()))
    });
    let pods = pods.collect();
    let targets = targets.iter().map(|target| format!("{}/{}", target.kind.name(), target.name));
    (Brief::TokenPolicy { targets: targets.collect(), pods }, status)
}
