//! All objects and what they mean, kept up to date. A change costs what it touches.
//!
//! ```text
//! changes -> objects -> stages (memo.rs), in the order of `translate` -> places (place.rs) -> IR, and what changed in it
//! ```
//! The units are those of [`translate`](crate::translate), and this module only knows which of them to ask again: those
//! whose own object changed, and those that read a fact that changed. What they say then may change further facts, for
//! the stages after theirs. A whole translation comes to the same result, which a property test holds against this.

mod claim_sets;
mod egress;
mod ends;
mod gateways;
mod index;
mod memo;
mod place;
mod routes;
mod statuses;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::fleet::Asked;
use crate::ir::{self, Delta, Ir};
use crate::mesh::Mesh;
use crate::objects::{Changes, Consumer, Gateway, Key, ListenerSet, Object, Objects, TargetKind};
use crate::placement::Setting;
use crate::sets::take_out;
use crate::status::{Finding, StatusKind};
use crate::translate::backend_tls::{self, BackendTls};
use crate::translate::backing::{self, Backing};
use crate::translate::consumers::{self, Claim};
use crate::translate::given::{RouteId, RouteKind};
use crate::translate::listener::ListenerTls;
use crate::translate::listeners::{self, OpenListeners};
use crate::translate::made::Made;
use crate::translate::policies::{self, Policy};
use crate::translate::services;
use crate::translate::tls_routes::{self, AttachedTlsRoute};
use crate::translate::users::Users;
use crate::translate::view::Fact;
use crate::translate::{backends, frontends, inference_pools, pools, ports, workloads};

pub use self::ends::Ends;

use self::gateways::Gateways;
use self::memo::{Dirty, Memo, Turn};
use self::routes::{RouteTurn, Routes};

#[derive(Debug, Default)]
pub struct World {
    objects: Objects,
    made: Made,
    ir: Ir,
    consumers: Memo<Vec<Claim>>,
    policies: Memo<Policy>,
    backend_tls: Memo<BackendTls>,
    services: Memo<Vec<Arc<ir::Service>>>,
    inference_pools: Memo<ir::Service>,
    backends: Memo<ir::Backend>,
    pools: Memo<ir::Pool>,
    /// By pool.
    backing: Memo<Backing>,
    listeners: Memo<OpenListeners>,
    routes: Routes,
    tls_routes: Memo<AttachedTlsRoute>,
    workloads: Memo<ir::Workload>,
    /// By pool.
    frontends: Memo<Vec<ir::Frontend>>,
    gateways: Gateways,
    /// The routes that name each InferencePool.
    routes_of_pools: BTreeMap<Key, BTreeSet<Arc<RouteId>>>,
    users: Users,
    /// The Consumers that claim each key, by its name.
    claimants: BTreeMap<String, BTreeSet<Arc<Key>>>,
    /// The keys of the IR that end, by when they do.
    ends: BTreeSet<(i64, String)>,
    /// What is wrong with keys, by their names.
    of_keys: BTreeMap<String, Vec<Finding>>,
    /// Claims that are left out, by namespace.
    of_claims: BTreeMap<String, Vec<Finding>>,
    /// What Gateways cannot have because others have it.
    of_ports: BTreeMap<Key, Vec<Finding>>,
    /// What refused policies close.
    of_refused: Vec<Finding>,
}

/// What later stages must know of earlier ones beyond facts.
#[derive(Debug, Default)]
struct Touched {
    /// By `namespace/name`.
    pools: BTreeSet<String>,
    /// By the cluster name that they have where attempts are not rewritten.
    backends: BTreeSet<String>,
    /// By cluster name.
    services: BTreeSet<String>,
    /// Gateways that are new, gone or have other listeners or tunnels.
    gateways: BTreeSet<Key>,
}

// === impl World ===

impl World {
    /// Without any object.
    pub fn new(setting: impl Into<Setting>) -> Self {
        Self { made: Made::new(setting.into()), ..Self::default() }
    }

    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    pub fn ir(&self) -> &Ir {
        &self.ir
    }

    /// The mesh that it was made for.
    pub fn mesh(&self) -> Option<&Mesh> {
        self.made.setting.mesh.as_deref()
    }

    /// The HTTPRoutes that are attached to a Gateway. A GRPCRoute leads to no pool, so nobody asks for it.
    pub fn attached(&self, gateway: &Key) -> impl Iterator<Item = &Key> {
        self.gateways.attached(gateway).filter(|id| id.kind == RouteKind::Http).map(|id| &id.key)
    }

    pub fn is_attached(&self, gateway: &Key, route: &Key) -> bool {
        self.gateways.is_attached(gateway, &RouteId { kind: RouteKind::Http, key: route.clone() })
    }

    /// Whether a Consumer has any key or identity.
    pub fn has_key(&self, consumer: &Key) -> bool {
        let is_its =
            |claim: &Claim| self.ir.keys.get(claim.key.proof.name()).is_some_and(|key| key.origin == claim.key.origin);
        self.consumers.output(consumer).is_some_and(|claims| claims.iter().any(is_its))
    }

    /// The Gateways that are ours, each with what it asks of its proxies.
    pub fn own_gateways(&self) -> impl Iterator<Item = (&Arc<Object<Gateway>>, Asked)> {
        self.made.listeners.iter().filter_map(|(key, open)| {
            let object = self.objects.gateways.get_shared(&key.namespace, &key.name)?;
            let ports: BTreeSet<u16> = open.served().map(|listener| listener.port).collect();
            let is_for_members = !ports.is_empty() && open.served().all(|listener| listener.tls == ListenerTls::Mesh);
            Some((object, Asked { ports, is_for_members, parameters: open.parameters.clone() }))
        })
    }

    /// What is wrong with the objects, sorted by file and line.
    pub fn findings(&self) -> Vec<Finding> {
        let of_units = self.consumers.findings().chain(self.policies.findings()).chain(self.services.findings());
        let of_units = of_units.chain(self.inference_pools.findings());
        let of_units = of_units.chain(self.backends.findings()).chain(self.pools.findings());
        let of_units = of_units.chain(self.frontends.findings());
        let of_units = of_units.chain(self.listeners.findings()).chain(self.routes.findings());
        let of_units = of_units.chain(self.tls_routes.findings()).chain(self.backend_tls.findings());
        let of_keys = self.of_keys.values().chain(self.of_claims.values());
        let of_all = of_keys.chain(self.of_ports.values()).flatten().chain(&self.of_refused);
        let mut findings: Vec<Finding> = of_units.chain(of_all).cloned().collect();
        findings.sort_by(Finding::by_spot);
        findings.dedup();
        findings
    }

    /// Takes changes, and says what they change in the IR.
    pub fn step(&mut self, changes: Changes) -> Delta {
        let mut delta = Delta::default();
        let mut touched = Touched::default();
        if let Some(refused) = &changes.refused {
            delta.statuses = self.affected_by_refused(refused);
        }
        let mut dirty = self.apply(changes);
        self.step_keys(&mut dirty, &mut delta);
        self.step_policies(&mut dirty, &mut delta);
        self.step_backend_tls(&mut dirty);
        self.step_services(&mut dirty, &mut touched);
        self.step_inference_pools(&mut dirty, &mut touched);
        self.step_backends(&mut dirty, &mut touched);
        self.step_pools(&mut dirty, &mut touched, &mut delta);
        self.step_backing(&mut dirty, &mut delta);
        self.step_listeners(&mut dirty, &mut touched, &mut delta);
        self.note_claims_at_gateways(&mut touched);
        let turns = self.routes.step(&self.objects, &self.made, &dirty, &mut delta.statuses);
        self.step_users(&turns, &mut delta);
        let tls_turns = self.tls_routes.step(&self.objects, &self.made, &dirty, tls_routes::tls_route);
        touched.gateways.extend(self.gateways.attach_tls(&tls_turns));
        let of_routes = (&self.routes, turns.as_slice());
        delta.gateways = self.gateways.step(&self.made, of_routes, &self.tls_routes, &touched, &mut self.ir.gateways);
        Gateways::note_limits(&delta.limits, &self.ir.gateways, &mut delta.gateways);
        self.step_workloads(&dirty, &mut delta);
        self.step_frontends(&dirty, &mut delta);
        self.affected_policies(&mut delta);
        self.affected_backend_tls(&mut delta);
        self.name_pools(&turns, &mut delta.statuses);
        self.affected(&dirty, (&turns, &tls_turns), &mut delta.statuses);
        self.of_refused.clear();
        policies::closed(&self.made.setting, &self.objects.refused_policies, &self.ir, &mut self.of_refused);
        // What they close may have changed with anything.
        let refused = self.objects.refused_policies.iter();
        delta.statuses.extend(refused.map(|policy| (StatusKind::TokenPolicy, policy.meta.key())));
        delta
    }

    /// Takes the objects themselves.
    fn apply(&mut self, changes: Changes) -> Dirty {
        let mut dirty = Dirty::default();
        self.index(&changes, &mut dirty);
        if let Some(refused) = &changes.refused {
            dirty.facts.extend(refused.others(&self.objects.refused).map(Fact::refused));
            dirty.facts.insert(Fact::refused_policies());
        }
        self.objects.apply(changes, &mut |kind, key, comes_or_goes| dirty.note(kind, key, comes_or_goes));
        dirty
    }

    fn step_keys(&mut self, dirty: &mut Dirty, delta: &mut Delta) {
        let turns = self.consumers.step(&self.objects, &self.made, dirty, |view, object, findings| {
            Some(consumers::claims(view, object, findings))
        });
        let names = |claims: &Option<Arc<Vec<Claim>>>| -> BTreeSet<String> {
            claims.iter().flat_map(|claims| claims.iter()).map(|claim| claim.key.proof.name().to_owned()).collect()
        };
        let mut due = BTreeSet::new();
        for Turn { key, before, after } in turns {
            let (before, after) = (names(&before), names(&after));
            for name in before.difference(&after) {
                take_out(&mut self.claimants, name, &key);
            }
            for name in after.difference(&before) {
                self.claimants.entry(name.clone()).or_default().insert(Arc::clone(&key));
            }
            due.extend(before);
            due.extend(after);
        }
        // A finding on a key says where the Consumers stand.
        for key in dirty.of::<Consumer>() {
            due.extend(names(&self.consumers.output(key)).into_iter().filter(|name| self.of_keys.contains_key(name)));
        }
        let mut namespaces = BTreeSet::new();
        for name in due {
            let claimants: Vec<_> = self.claimants.get(&name).into_iter().flatten().map(Arc::clone).collect();
            let outputs: Vec<_> = claimants.iter().filter_map(|key| Some((key, self.consumers.output(key)?))).collect();
            let claims: Vec<_> = outputs
                .iter()
                .filter_map(|(key, claims)| Some((self.objects.consumers.get(&key.namespace, &key.name)?, claims)))
                .flat_map(|(object, claims)| claims.iter().map(move |claim| (object, claim)))
                .filter(|(_, claim)| claim.key.proof.name() == name)
                .collect();
            let mut findings = Vec::new();
            let key = consumers::settle(&claims, &mut findings);
            if self.of_keys.get(&name).map(Vec::as_slice).unwrap_or_default() != findings {
                let before = self.of_keys.get(&name).into_iter().flatten();
                let of_both = before.chain(&findings).filter_map(|finding| finding.origin.as_ref());
                delta.statuses.extend(of_both.map(|origin| (StatusKind::Consumer, origin.key())));
            }
            if findings.is_empty() {
                self.of_keys.remove(&name);
            } else {
                self.of_keys.insert(name.clone(), findings);
            }
            if self.ir.keys.get(&name) != key.as_ref() {
                self.note_end(&name, key.as_deref());
                let after = key.clone();
                let before = match key {
                    Some(key) => self.ir.keys.insert(name.clone(), key),
                    None => self.ir.keys.remove(&name),
                };
                self.note_claims([before.as_deref(), after.as_deref()], dirty);
                let both = [&before, &after].into_iter().flatten().filter(|key| matches!(key.proof, ir::Proof::Jwt(_)));
                namespaces.extend(both.map(|key| key.origin.namespace.to_string()));
                delta.consumers.extend([before, after].into_iter().flatten().map(|key| key.origin.key()));
                delta.keys.insert(name);
            }
        }
        self.step_claim_sets(namespaces, dirty, delta);
    }

    fn step_policies(&mut self, dirty: &mut Dirty, delta: &mut Delta) {
        let turns = self.policies.step(&self.objects, &self.made, dirty, |view, object, findings| {
            Some(policies::policy(view, object, findings))
        });
        let mut targets: BTreeMap<(TargetKind, Key), BTreeSet<String>> = BTreeMap::new();
        for Turn { before, after, .. } in &turns {
            let both = [before, after].into_iter().flatten();
            for target in both.flat_map(|policy| &policy.targets) {
                let now = || self.made.limits.get(target).cloned().unwrap_or_default();
                targets.entry(target.clone()).or_insert_with(now);
            }
            if let Some(policy) = before {
                for target in &policy.targets {
                    for limit in &policy.limits {
                        take_out(&mut self.made.limits, target, &limit.id);
                    }
                }
            }
        }
        for Turn { before, after, .. } in turns {
            let limits = |policy: Option<Arc<Policy>>| -> BTreeMap<String, Arc<ir::Limit>> {
                let limits = policy.into_iter().flat_map(|policy| policy.limits.clone());
                limits.map(|limit| (limit.id.clone(), limit)).collect()
            };
            after.iter().for_each(|policy| self.made.add_policy(policy));
            let (before, after) = (limits(before), limits(after));
            for id in before.keys().filter(|id| !after.contains_key(*id)) {
                self.ir.limits.remove(id);
                delta.limits.insert(id.clone());
            }
            for (id, limit) in after {
                if before.get(&id) != Some(&limit) {
                    delta.limits.insert(id.clone());
                }
                self.ir.limits.insert(id, limit);
            }
        }
        for (target, before) in targets {
            if self.made.limits.get(&target).map_or(!before.is_empty(), |now| *now != before) {
                dirty.facts.insert(Fact::limits(target.0, &target.1));
            }
        }
    }

    fn step_backend_tls(&mut self, dirty: &mut Dirty) {
        let turns = self.backend_tls.step(&self.objects, &self.made, dirty, |view, object, findings| {
            Some(backend_tls::backend_tls(view, object, findings))
        });
        for Turn { key, before, after } in turns {
            let both = before.iter().chain(&after);
            let services = both.flat_map(|policy| &policy.targets).map(|target| Fact::backend_tls(&target.service));
            dirty.facts.extend(services);
            before.iter().for_each(|policy| self.made.remove_backend_tls(&key, policy));
            after.iter().for_each(|policy| self.made.add_backend_tls(&key, policy));
        }
    }

    fn step_services(&mut self, dirty: &mut Dirty, touched: &mut Touched) {
        let turns = self.services.step(&self.objects, &self.made, dirty, |view, object, findings| {
            Some(services::service(view, object, findings))
        });
        for Turn { before, after, .. } in turns {
            let ports = |ports: Option<Arc<Vec<Arc<ir::Service>>>>| -> BTreeMap<String, Arc<ir::Service>> {
                let ports = ports.into_iter().flat_map(|ports| ports.to_vec());
                ports.map(|port| (port.cluster.clone(), port)).collect()
            };
            let (before, after) = (ports(before), ports(after));
            for cluster in before.keys().chain(after.keys()) {
                self.set_service(cluster, (before.get(cluster), after.get(cluster)), dirty, touched);
            }
        }
    }

    fn step_inference_pools(&mut self, dirty: &mut Dirty, touched: &mut Touched) {
        let turns = self.inference_pools.step(&self.objects, &self.made, dirty, inference_pools::pool);
        for Turn { before, after, .. } in turns {
            if let Some(pool) = before.as_ref().or(after.as_ref()) {
                self.set_service(&pool.cluster, (before.as_ref(), after.as_ref()), dirty, touched);
            }
        }
    }

    fn set_service(
        &mut self,
        cluster: &str,
        (before, after): (Option<&Arc<ir::Service>>, Option<&Arc<ir::Service>>),
        dirty: &mut Dirty,
        touched: &mut Touched,
    ) {
        if before == after {
            return;
        }
        let shown = |service: Option<&Arc<ir::Service>>| service.map(|service| services::Port::of(service));
        touched.services.insert(cluster.to_owned());
        if shown(before) != shown(after) {
            dirty.facts.insert(Fact::service(cluster));
        }
        match after {
            Some(service) => self.made.services.insert(cluster.to_owned(), Arc::clone(service)),
            None => self.made.services.remove(cluster),
        };
    }

    fn step_backends(&mut self, dirty: &mut Dirty, touched: &mut Touched) {
        let turns = self.backends.step(&self.objects, &self.made, dirty, |view, object, findings| {
            backends::backend(view, object, findings).map_err(|finding| findings.push(finding)).ok()
        });
        for Turn { key, before, after } in turns {
            touched.backends.extend(before.iter().chain(&after).map(|backend| backend.cluster.clone()));
            let schema = |backend: &Option<Arc<ir::Backend>>| backend.as_ref().map(|backend| backend.schema);
            if schema(&before) != schema(&after) {
                dirty.facts.insert(Fact::backend(&key));
            }
            let endpoint =
                |backend: &Option<Arc<ir::Backend>>| backend.as_ref().map(|backend| backend.endpoint.clone());
            if endpoint(&before) != endpoint(&after) {
                dirty.facts.insert(Fact::endpoint(&key));
            }
            let key = Key::clone(&key);
            match after {
                Some(backend) => self.made.backends.insert(key, backend),
                None => self.made.backends.remove(&key),
            };
        }
    }

    fn step_pools(&mut self, dirty: &mut Dirty, touched: &mut Touched, delta: &mut Delta) {
        let turns = self
            .pools
            .step(&self.objects, &self.made, dirty, |view, object, findings| Some(pools::pool(view, object, findings)));
        for Turn { key, before, after } in turns {
            let name = key.to_string();
            if before.is_some() != after.is_some() {
                dirty.facts.insert(Fact::pool(&name));
            }
            let admitted = self.users.follow_pool(&key, [before.as_deref(), after.as_deref()]);
            self.affected_consumers(&admitted, &mut delta.statuses);
            match after {
                Some(pool) => self.made.pools.insert(name.clone(), pool),
                None => self.made.pools.remove(&name),
            };
            touched.pools.insert(name);
        }
    }

    fn step_backing(&mut self, dirty: &mut Dirty, delta: &mut Delta) {
        let turns =
            self.backing.step(&self.objects, &self.made, dirty, |view, object, _| Some(backing::backing(view, object)));
        for Turn { key, before, after } in turns {
            let step = [before.as_deref(), after.as_deref()];
            dirty.facts.extend(self.made.follow_backing(&key, step).iter().map(Fact::asked));
            let backends = self.users.follow_backing(&key, step);
            delta.statuses.extend(backends.into_iter().map(|backend| (StatusKind::ModelBackend, backend)));
            delta.statuses.insert((StatusKind::ModelPool, Key::clone(&key)));
        }
    }

    fn step_users(&mut self, turns: &[RouteTurn], delta: &mut Delta) {
        for Turn { key, before, after } in turns {
            let pools = self.users.follow_route(key, [before.as_deref(), after.as_deref()]);
            delta.statuses.extend(pools.into_iter().map(|pool| (StatusKind::ModelPool, pool)));
        }
    }

    fn step_listeners(&mut self, dirty: &mut Dirty, touched: &mut Touched, delta: &mut Delta) {
        let turns = self.listeners.step(&self.objects, &self.made, dirty, listeners::listeners);
        // A finding says where a Gateway stands, so even one that means the same is looked at.
        if turns.is_empty() && !dirty.has::<Gateway>() && !dirty.has::<ListenerSet>() {
            return;
        }
        let valid = self.listeners.outputs().map(|(key, open)| (Key::clone(key), Arc::clone(open))).collect();
        let (open, lost) = ports::open(&self.made.setting.placement, &self.objects, valid);
        let lost_by = |key: &&Key| self.of_ports.get(*key) != lost.get(*key);
        let lost_by = self.of_ports.keys().chain(lost.keys()).filter(lost_by);
        for key in lost_by {
            delta.statuses.insert((StatusKind::Gateway, key.clone()));
            delta.statuses.extend(self.sets_of(key));
        }
        self.of_ports = lost;
        let before = std::mem::replace(&mut self.made.listeners, open);
        for key in before.keys().chain(self.made.listeners.keys()) {
            if before.get(key) != self.made.listeners.get(key) {
                dirty.facts.insert(Fact::listeners(key));
                touched.gateways.insert(key.clone());
            }
        }
    }

    fn step_workloads(&mut self, dirty: &Dirty, delta: &mut Delta) {
        let Some(direction) = self.made.setting.opens_workloads() else { return };
        let turns = self
            .workloads
            .step(&self.objects, &self.made, dirty, |view, object, _| workloads::workload(view, direction, object));
        for Turn { key, after, .. } in turns {
            let key = Key::clone(&key);
            match after {
                Some(workload) => self.ir.workloads.insert(key.clone(), workload),
                None => self.ir.workloads.remove(&key),
            };
            delta.workloads.insert(key);
        }
        let has = |workload: &ir::Workload| workload.catalog.limits().any(|limit| delta.limits.contains(limit));
        let others = self.ir.workloads.iter().filter(|(_, workload)| has(workload));
        delta.workloads.extend(others.map(|(key, _)| key.clone()));
    }

    fn step_frontends(&mut self, dirty: &Dirty, delta: &mut Delta) {
        let turns = self.frontends.step(&self.objects, &self.made, dirty, |view, object, findings| {
            Some(frontends::frontends(view, object, findings))
        });
        // A Service may have gone from one pool to another.
        let before: Vec<Key> = services(turns.iter().map(|turn| &turn.before));
        let before: BTreeMap<Key, Option<Arc<ir::Frontend>>> =
            before.into_iter().map(|service| (service.clone(), self.ir.frontends.remove(&service))).collect();
        for frontend in turns.iter().flat_map(|turn| turn.after.iter().flat_map(|frontends| frontends.iter())) {
            self.ir.frontends.insert(frontend.service.clone(), Arc::new(frontend.clone()));
        }
        let names = before.keys().cloned().chain(services(turns.iter().map(|turn| &turn.after)));
        let is_other = |service: &Key| before.get(service).and_then(Option::as_ref) != self.ir.frontends.get(service);
        delta.frontends.extend(names.filter(is_other));
    }
}

/// The Services that pools have as parents.
fn services<'a>(of_pools: impl Iterator<Item = &'a Option<Arc<Vec<ir::Frontend>>>>) -> Vec<Key> {
    of_pools.flatten().flat_map(|frontends| frontends.iter()).map(|frontend| frontend.service.clone()).collect()
}
