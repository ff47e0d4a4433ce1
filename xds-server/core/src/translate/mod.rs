//! Objects to IR: what the configuration means.
//!
//! ```text
//! consumers -> keys                      policies -> limits and what they are for
//! services -> backends -> pools
//! gateways -> listeners   routes -> rules -> attach (parents, hostnames) -> hosts (order of tries)
//! services -> workloads (in sidecars)
//! ```
//! Each module turns one object into its part of the IR, and reads what it needs of others through a [`View`]. Nothing
//! fails as a whole. What is invalid is left out, answered with an error, or refused in its own place, and a finding
//! says so.
//!
//! [`translate`] goes through all objects. `world` does the same for what a change touches, and is compared with it.

mod attach;
pub(crate) mod backends;
pub(crate) mod consumers;
mod filters;
pub(crate) mod gateways;
pub(crate) mod hostname;
pub(crate) mod hosts;
pub(crate) mod listeners;
mod matches;
pub(crate) mod policies;
pub(crate) mod pools;
mod refs;
pub(crate) mod routes;
mod rules;
pub(crate) mod services;
pub(crate) mod statuses;
pub(crate) mod view;
pub(crate) mod workloads;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ir::Ir;
use crate::objects::{Key, Kind, Object, Objects};
use crate::placement::Placement;
use crate::status::{Finding, ObjectStatus};

use self::routes::AttachedRoute;
use self::statuses::Units;
use self::view::{Made, Reads, View};

/// What a set of objects means, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Translation {
    pub ir: Ir,
    /// Sorted by file and line. An error refuses only the object or part that it is about.
    pub findings: Vec<Finding>,
    /// What statuses are made from.
    units: Units,
}

/// Turns objects into IR. It never fails, because what is invalid is left out and reported.
pub fn translate(objects: &Objects, placement: Placement) -> Translation {
    let mut findings = Vec::new();
    let mut ir = Ir::default();
    let mut made = Made::new(placement);
    made.know(objects);

    let mut claims: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (object, made) in each(objects, &made, |view, object| consumers::claims(view, object, &mut findings)) {
        for claim in made {
            claims.entry(claim.key.sha256.clone()).or_default().push((object, claim));
        }
    }
    for (hash, claims) in claims {
        let claims: Vec<_> = claims.iter().map(|(object, claim)| (*object, claim)).collect();
        ir.keys.extend(consumers::settle(&claims, &mut findings).map(|key| (hash, key)));
    }
    for (_, policy) in each(objects, &made, |view, object| policies::policy(view, object, &mut findings)) {
        made.add_policy(&policy);
        ir.limits.extend(policy.limits.into_iter().map(|limit| (limit.id.clone(), limit)));
    }
    for (_, ports) in each(objects, &made, |view, object| services::service(view, object, &mut findings)) {
        made.services.extend(ports.into_iter().map(|port| (port.cluster.clone(), port)));
    }
    for (object, backend) in each(objects, &made, backends::backend) {
        match backend {
            Ok(backend) => {
                made.backends.insert(object.meta.key(), Arc::new(backend));
            }
            Err(finding) => findings.push(finding),
        }
    }
    for (_, pool) in each(objects, &made, |view, object| pools::pool(view, object, &mut findings)) {
        made.pools.insert(pool.name.clone(), Arc::new(pool));
    }
    let valid = each(objects, &made, |view, object| listeners::listeners(view, object, &mut findings)).into_iter();
    let valid = valid.filter_map(|(object, valid)| Some((object.meta.key(), Arc::new(valid?)))).collect();
    let (open, lost) = listeners::open(placement, &objects.gateways, valid);
    made.listeners = open;
    findings.extend(lost.into_values().flatten());
    let routes = each(objects, &made, |view, object| routes::route(view, object, &mut findings)).into_iter();
    let routes: BTreeMap<Key, Arc<AttachedRoute>> =
        routes.filter_map(|(object, route)| Some((object.meta.key(), Arc::new(route?)))).collect();
    ir.gateways = gateways::gateways(&made, &routes);
    if let Some(direction) = placement.opens_workloads() {
        for (object, workload) in each(objects, &made, |view, object| workloads::workload(view, direction, object)) {
            ir.workloads.extend(workload.map(|workload| (object.meta.key(), Arc::new(workload))));
        }
    }
    policies::closed(placement, &objects.refused_policies, &ir, &mut findings);
    // Several parents of a route may lead to the same finding. It is told once.
    findings.sort_by(Finding::by_spot);
    findings.dedup();
    Translation { ir, findings, units: Units { listeners: made.listeners, routes } }
}

// === impl Translation ===

impl Translation {
    /// The statuses of the objects that it was made from. `given` is what is wrong with them besides, as they were read.
    pub fn statuses(&self, objects: &Objects, given: &[Finding]) -> Vec<ObjectStatus> {
        let whole = statuses::Whole::new(objects, &self.units, &self.findings);
        statuses::all(&whole, given)
    }
}

/// What is made of each object of a kind.
fn each<'a, T: Kind + 'a, O>(
    objects: &'a Objects,
    made: &Made,
    mut unit: impl FnMut(View<'_>, &Object<T>) -> O,
) -> Vec<(&'a Object<T>, O)> {
    let all = T::store(objects).iter();
    all.map(|object| (object, unit(View::new(objects, made, &Reads::default()), object))).collect()
}
