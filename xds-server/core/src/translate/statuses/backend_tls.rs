//! BackendTLSPolicies, at each of the Gateways that reach their targets.

use std::collections::BTreeMap;

use crate::objects::{BackendTlsPolicy, CONTROLLER_NAME, GATEWAY_GROUP, Gateway, Key, Kind as _, Object, plain};
use crate::status::{AncestorStatus, Brief, ConditionType, ObjectRef, Reason, Status};

use super::verdicts::{Verdicts, condition};

const TARGETS: &str = "spec.targetRefs";
/// The Gateway API allows as many (PolicyStatus.ancestors).
const MAX_ANCESTORS: usize = 16;

/// `users` are the Gateways that reach a Service.
pub fn policy(
    object: &Object<BackendTlsPolicy>,
    users: impl Fn(&Key) -> Vec<Key>,
    verdicts: &Verdicts<'_>,
) -> (Brief, Status) {
    // Of each Gateway, the targets that it reaches.
    let mut ancestors: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
    for (index, target) in object.spec.target_refs.iter().enumerate() {
        for gateway in users(&Key::new(object.meta.namespace(), target.name.as_str())) {
            ancestors.entry(gateway).or_default().push(index);
        }
    }
    let ancestors = ancestors.into_iter().take(MAX_ANCESTORS).map(|(gateway, targets)| {
        let mut errors = verdicts.about(ConditionType::Accepted);
        errors.retain(|finding| finding.entry_of(TARGETS).is_none_or(|entry| targets.contains(&entry)));
        let accepted = condition(ConditionType::Accepted, &errors, Reason::Accepted);
        let resolved = verdicts.about(ConditionType::ResolvedRefs);
        let resolved = condition(ConditionType::ResolvedRefs, &resolved, Reason::ResolvedRefs);
        AncestorStatus {
            ancestor_ref: ObjectRef {
                group: Some(GATEWAY_GROUP.to_owned()),
                kind: Some(Gateway::NAME.to_owned()),
                namespace: Some(gateway.namespace.to_string()),
                name: gateway.name.to_string(),
                ..ObjectRef::default()
            },
            controller_name: CONTROLLER_NAME,
            conditions: [accepted, resolved].into_iter().collect(),
        }
    });
    let status = Status { ancestors: Some(ancestors.collect()), ..Status::default() };
    let targets =
        object.spec.target_refs.iter().map(|target| format!("{}/{}", plain(&target.kind), plain(&target.name)));
    (Brief::BackendTlsPolicy { targets: targets.collect() }, status)
}
