//! Services to workloads: what the filter in their sidecars must know.

use std::collections::BTreeSet;

use crate::ir::{Catalog, Class, Workload};
use crate::objects::{Key, Names, Object, RefusedPolicy, Service, TargetKind};
use crate::placement::Direction;
use crate::scope::Scope;

use super::view::View;

/// None: no policy is for the Service, so there is no filter in the sidecars of its workload.
pub fn workload(view: View<'_>, direction: Direction, service: &Object<Service>) -> Option<Workload> {
    let key = service.meta.key();
    let limits: BTreeSet<&String> = view.limits(TargetKind::Service, &key).collect();
    let refused = view.refused_policies();
    if limits.is_empty() && !refused.iter().any(|policy| names(policy, &key)) {
        return None;
    }
    let class = Class {
        pool: None,
        limits: limits.into_iter().cloned().collect(),
        closed_by: refused.iter().find(|policy| closes(policy, &key)).map(RefusedPolicy::label),
    };
    let mut catalog = Catalog::new(Scope::Workload { service: key, direction });
    catalog.classes.insert(class);
    Some(Workload { origin: service.meta.origin.clone(), catalog })
}

/// Whether a refused policy closes a workload. Of one whose targets cannot be read, nobody knows whether it was for a
/// Service. It closes those that have a filter by another policy, and leaves the rest of the mesh alone.
pub fn closes(policy: &RefusedPolicy, service: &Key) -> bool {
    match &policy.names {
        Names::Everything => true,
        Names::AllOfItsNamespace => *service.namespace == *policy.meta.namespace(),
        Names::Targets(_) => names(policy, service),
    }
}

/// Whether it names this Service.
fn names(policy: &RefusedPolicy, service: &Key) -> bool {
    let Names::Targets(targets) = &policy.names else { return false };
    let is_it = |name: &str| (policy.meta.namespace(), name) == (&*service.namespace, &*service.name);
    targets.iter().any(|target| target.kind == TargetKind::Service && is_it(&target.name))
}
