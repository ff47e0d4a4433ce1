//! Objects to IR: what the configuration means.
//!
//! ```text
//! consumers -> keys                      policies -> limits and what they are for
//! TLS of services -> services -> inference pools -> backends -> pools
//! gateways -> listeners   routes -> rules -> attach (parents, hostnames) -> rivals -> hosts (order of tries)
//! services -> workloads   pools -> frontends (in sidecars)
//! ```
//! Each module turns one object into its part of the IR, and reads what it needs of others through a [`View`]. Nothing
//! fails as a whole. What is invalid is left out, answered with an error, or refused in its own place, and a finding
//! says so.
//!
//! [`translate`] goes through all objects. `world` does the same for what a change touches, and is compared with it.

mod addresses;
mod allowed;
pub(crate) mod attach;
pub(crate) mod backend_tls;
pub(crate) mod backends;
pub(crate) mod backing;
mod certificates;
pub(crate) mod claim_sets;
mod client_certificate;
mod clients;
mod conflicts;
pub(crate) mod consumers;
mod cors;
mod filters;
pub(crate) mod frontends;
pub(crate) mod gateways;
pub(crate) mod given;
pub(crate) mod hostname;
pub(crate) mod hosts;
pub(crate) mod inference_pools;
pub(crate) mod jwt_issuers;
pub(crate) mod listener;
pub(crate) mod listeners;
pub(crate) mod made;
mod matches;
mod parameters;
mod parents;
pub(crate) mod policies;
pub(crate) mod pools;
pub(crate) mod ports;
mod refs;
pub(crate) mod rivals;
mod route_kinds;
pub(crate) mod routes;
mod rules;
mod service_refs;
pub(crate) mod services;
mod sessions;
pub(crate) mod statuses;
pub(crate) mod tls_routes;
pub(crate) mod tunnels;
pub(crate) mod users;
pub(crate) mod view;
pub(crate) mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::Ir;
use crate::objects::{GrpcRoute, HttpRoute, Key, Kind, Object, Objects};
use crate::placement::Setting;
use crate::status::{Finding, ObjectStatus};

use self::backing::Backing;
use self::given::{GivenRoute, RouteId, RouteKind};
use self::made::Made;
use self::rivals::Lost;
use self::routes::AttachedRoute;
use self::statuses::Units;
use self::tls_routes::AttachedTlsRoute;
use self::users::Users;
use self::view::{Reads, View};

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
pub fn translate(objects: &Objects, setting: impl Into<Setting>) -> Translation {
    let setting = setting.into();
    let mut findings = Vec::new();
    let mut ir = Ir::default();
    let mut made = Made::new(setting.clone());
    made.know(objects);

    let mut claims: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (object, made) in each(objects, &made, |view, object| consumers::claims(view, object, &mut findings)) {
        for claim in made {
            claims.entry(claim.key.proof.name().to_owned()).or_default().push((object, claim));
        }
    }
    for (hash, claims) in claims {
        let claims: Vec<_> = claims.iter().map(|(object, claim)| (*object, claim)).collect();
        ir.keys.extend(consumers::settle(&claims, &mut findings).map(|key| (hash, key)));
    }
    for key in ir.keys.values() {
        made.add_claims(key);
    }
    let left_out = made.claim_sets.values().flat_map(|sets| sets.left_out()).filter_map(|name| ir.keys.get(name));
    let left_out: BTreeSet<Key> = left_out.map(|key| key.origin.key()).collect();
    let left_out = left_out.iter().filter_map(|key| objects.consumers.get(&key.namespace, &key.name));
    findings.extend(left_out.map(claim_sets::left_out));
    for (_, policy) in each(objects, &made, |view, object| policies::policy(view, object, &mut findings)) {
        made.add_policy(&policy);
        ir.limits.extend(policy.limits.into_iter().map(|limit| (limit.id.clone(), limit)));
    }
    for (object, policy) in each(objects, &made, |view, object| backend_tls::backend_tls(view, object, &mut findings)) {
        made.add_backend_tls(&object.meta.key(), &Arc::new(policy));
    }
    for (_, ports) in each(objects, &made, |view, object| services::service(view, object, &mut findings)) {
        made.services.extend(ports.into_iter().map(|port| (port.cluster.clone(), port)));
    }
    for (_, pool) in each(objects, &made, |view, object| inference_pools::pool(view, object, &mut findings)) {
        made.services.extend(pool.map(|pool| (pool.cluster.clone(), Arc::new(pool))));
    }
    for (object, backend) in each(objects, &made, |view, object| backends::backend(view, object, &mut findings)) {
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
    let backing = each(objects, &made, backing::backing).into_iter();
    let backing: BTreeMap<Key, Backing> = backing.map(|(object, backing)| (object.meta.key(), backing)).collect();
    for (pool, backing) in &backing {
        made.follow_backing(pool, [None, Some(backing)]);
    }
    let valid = each(objects, &made, |view, object| listeners::listeners(view, object, &mut findings)).into_iter();
    let valid = valid.filter_map(|(object, valid)| Some((object.meta.key(), Arc::new(valid?)))).collect();
    let (open, lost) = ports::open(&setting.placement, objects, valid);
    made.listeners = open;
    findings.extend(lost.into_values().flatten());
    let mut routes = BTreeMap::new();
    add_routes::<HttpRoute>(objects, &made, RouteKind::Http, &mut routes, &mut findings);
    add_routes::<GrpcRoute>(objects, &made, RouteKind::Grpc, &mut routes, &mut findings);
    give_way(objects, &made, &mut routes, &mut findings);
    let tls_routes =
        each(objects, &made, |view, object| tls_routes::tls_route(view, object, &mut findings)).into_iter();
    let tls_routes: BTreeMap<Key, Arc<AttachedTlsRoute>> =
        tls_routes.filter_map(|(object, route)| Some((object.meta.key(), Arc::new(route?)))).collect();
    ir.gateways = gateways::gateways(&made, &routes, &tls_routes);
    if let Some(direction) = setting.opens_workloads() {
        for (object, workload) in each(objects, &made, |view, object| workloads::workload(view, direction, object)) {
            ir.workloads.extend(workload.map(|workload| (object.meta.key(), Arc::new(workload))));
        }
    }
    for (_, frontends) in each(objects, &made, |view, object| frontends::frontends(view, object, &mut findings)) {
        let by_service = frontends.into_iter().map(|frontend| (frontend.service.clone(), Arc::new(frontend)));
        ir.frontends.extend(by_service);
    }
    let users = users(&made, &backing, &routes);
    policies::closed(&setting, &objects.refused_policies, &ir, &mut findings);
    // Several parents of a route may lead to the same finding. It is told once.
    findings.sort_by(Finding::by_spot);
    findings.dedup();
    let units = Units { placement: setting.placement, listeners: made.listeners, routes, tls_routes, backing, users };
    Translation { ir, findings, units }
}

// === impl Translation ===

impl Translation {
    /// The statuses of the objects that it was made from. `given` is what is wrong with them besides, as they were read.
    pub fn statuses(&self, objects: &Objects, given: &[Finding]) -> Vec<ObjectStatus> {
        let whole = statuses::Whole::new(objects, (&self.ir, &self.units), &self.findings);
        statuses::all(&whole, given)
    }
}

fn users(made: &Made, backing: &BTreeMap<Key, Backing>, routes: &BTreeMap<RouteId, Arc<AttachedRoute>>) -> Users {
    let mut users = Users::default();
    for pool in made.pools.values() {
        users.follow_pool(&Arc::new(pool.origin.key()), [None, Some(pool)]);
    }
    for (pool, backing) in backing {
        users.follow_backing(&Arc::new(pool.clone()), [None, Some(backing)]);
    }
    for (id, route) in routes {
        users.follow_route(&Arc::new(id.clone()), [None, Some(route)]);
    }
    users
}

fn add_routes<T: Kind>(
    objects: &Objects,
    made: &Made,
    kind: RouteKind,
    routes: &mut BTreeMap<RouteId, Arc<AttachedRoute>>,
    findings: &mut Vec<Finding>,
) where
    for<'a> GivenRoute<'a>: From<&'a Object<T>>,
{
    for (object, route) in each(objects, made, |view, object: &Object<T>| routes::route(view, object.into(), findings))
    {
        routes.extend(route.map(|route| (RouteId { key: object.meta.key(), kind }, Arc::new(route))));
    }
}

/// Takes from routes what rivals have.
fn give_way(
    objects: &Objects,
    made: &Made,
    routes: &mut BTreeMap<RouteId, Arc<AttachedRoute>>,
    findings: &mut Vec<Finding>,
) {
    let mut by_gateway: BTreeMap<&Key, Vec<(&RouteId, &AttachedRoute)>> = BTreeMap::new();
    for (id, route) in routes.iter() {
        route.routes.gateways().for_each(|gateway| by_gateway.entry(gateway).or_default().push((id, route)));
    }
    let mut lost: BTreeMap<RouteId, Lost> = BTreeMap::new();
    for (gateway, routes) in by_gateway {
        for (id, here) in rivals::at(gateway, routes.into_iter()) {
            lost.entry(id.clone()).or_default().extend(here);
        }
    }
    for (id, lost) in lost {
        let Some((given, route)) = GivenRoute::of(objects, &id).zip(routes.get_mut(&id)) else { continue };
        findings.extend(rivals::findings(given, route, &lost, &made.listeners));
        *route = Arc::new(rivals::without(route, &lost));
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
