//! InferencePools, at each of the Gateways whose routes name them.

use std::collections::BTreeSet;

use crate::objects::{CONTROLLER_NAME, GATEWAY_GROUP, Gateway, InferencePool, Key, Kind as _, Object, plain};
use crate::status::{Brief, ConditionType, ObjectRef, ParentStatus, Reason, Status};

use super::verdicts::{Verdicts, condition};

pub fn pool(object: &Object<InferencePool>, gateways: BTreeSet<Key>, verdicts: &Verdicts<'_>) -> (Brief, Status) {
    let accepted = condition(ConditionType::Accepted, &verdicts.about(ConditionType::Accepted), Reason::Accepted);
    let resolved = verdicts.about(ConditionType::ResolvedRefs);
    let resolved = condition(ConditionType::ResolvedRefs, &resolved, Reason::ResolvedRefs);
    let parents = gateways.into_iter().map(|gateway| ParentStatus {
        parent_ref: ObjectRef {
            group: Some(GATEWAY_GROUP.to_owned()),
            kind: Some(Gateway::NAME.to_owned()),
            namespace: Some(gateway.namespace.to_string()),
            name: gateway.name.to_string(),
            ..ObjectRef::default()
        },
        controller_name: CONTROLLER_NAME,
        conditions: [accepted.clone(), resolved.clone()].into_iter().collect(),
    });
    let status = Status { parents: Some(parents.collect()), ..Status::default() };
    let picker = object.spec.picker.as_ref().map(|picker| plain(&picker.name));
    (Brief::InferencePool { picker }, status)
}
