//! TLSRoutes, at each of their parents.

use crate::objects::{Object, TlsRoute};
use crate::status::{Brief, ConditionType, Reason, Status};
use crate::translate::tls_routes::AttachedTlsRoute;

use super::routes::{PARENTS, at_parent};
use super::verdicts::{Verdicts, condition};

pub fn route(object: &Object<TlsRoute>, attached: &AttachedTlsRoute, verdicts: &Verdicts<'_>) -> (Brief, Status) {
    let resolved = verdicts.about(ConditionType::ResolvedRefs);
    let resolved = condition(ConditionType::ResolvedRefs, &resolved, Reason::ResolvedRefs);
    let parents = object.spec.parent_refs.iter().flatten().enumerate();
    let parents = parents.filter(|(index, _)| attached.parents.contains(index)).map(|(index, parent)| {
        let mut errors = verdicts.about(ConditionType::Accepted);
        errors.retain(|finding| finding.entry_of(PARENTS).is_none_or(|entry| entry == index));
        let accepted = condition(ConditionType::Accepted, &errors, Reason::Accepted);
        at_parent(parent.into(), [accepted, resolved.clone()].into_iter())
    });
    let status = Status { parents: Some(parents.collect()), ..Status::default() };
    (Brief::Route { hostnames: object.spec.hostnames.clone() }, status)
}
