//! The next publication, made from the one before and what changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tollgate_core::envoy::{self, Surroundings};
use tollgate_core::ir::{self, Delta, GatewayDelta, Ir, PartsDelta};
use tollgate_core::ledger::{Configured, Things};
use tollgate_core::objects::Key;
use tollgate_core::placement::Placement;
use tollgate_core::scope::Scope;
use tollgate_core::snapshot::{Changed, ResourceType, Resources, Snapshot};
use tollgate_core::subscription::stream::Since;
use tollgate_core::world::World;

use super::edition::Edition;
use super::published::{Published, ServedGateway, ServedWorkload};
use super::serves::{Consumers, Serves};
use crate::identity::Identity;
use crate::report::Listener;

pub(super) struct Publication<'a> {
    pub placement: &'a Placement,
    pub world: &'a World,
    pub delta: &'a Delta,
    pub surroundings: &'a Surroundings,
    pub before: &'a Published,
}

/// All keys, and the names of those that changed.
pub(super) struct Keys {
    pub all: Resources,
    touched: BTreeSet<Arc<str>>,
}

// === impl Publication ===

impl Publication<'_> {
    pub fn generation(&self) -> u64 {
        self.before.generation + 1
    }

    fn ir(&self) -> &Ir {
        self.world.ir()
    }

    pub fn keys(&self) -> Keys {
        let mut all = self.before.keys.clone();
        let mut touched = BTreeSet::new();
        for hash in &self.delta.keys {
            let name: Arc<str> = hash.as_str().into();
            let is_other = match self.ir().keys.get(hash) {
                Some(key) => all.put(&name, Arc::new(envoy::api_key(key))),
                None => all.remove(&name),
            };
            if is_other {
                touched.insert(name);
            }
        }
        Keys { all, touched }
    }

    /// Every Gateway, and what changed in any of them besides keys.
    pub fn gateways(&self, keys: &Keys) -> (BTreeMap<String, ServedGateway>, Changed) {
        let mut changed = Changed::default();
        let mut gateways = self.before.gateways.clone();
        let mut due: BTreeMap<&Key, &GatewayDelta> = self.delta.gateways.iter().collect();
        let nothing_but_keys = GatewayDelta::Parts(PartsDelta::default());
        if !keys.touched.is_empty() {
            self.ir().gateways.keys().for_each(|key| {
                due.entry(key).or_insert(&nothing_but_keys);
            });
        }
        for (key, delta) in due {
            let name = key.to_string();
            let old = gateways.remove(&name);
            match self.ir().gateways.get(key) {
                Some(gateway) => {
                    let next = self.gateway((key, gateway), delta, old, keys, &mut changed);
                    gateways.insert(name, next);
                }
                None => {
                    old.iter().for_each(|old| note_all(&old.edition.snapshot, &mut changed));
                }
            }
        }
        (gateways, changed)
    }

    fn gateway(
        &self,
        (key, gateway): (&Key, &ir::Gateway),
        delta: &GatewayDelta,
        old: Option<ServedGateway>,
        keys: &Keys,
        changed: &mut Changed,
    ) -> ServedGateway {
        let parts = match (delta, &old) {
            (GatewayDelta::Parts(parts), Some(_)) => Some(parts),
            _ => None,
        };
        let consumers = envoy::consumers(&gateway.catalog);
        let are_others = old.as_ref().is_none_or(|old| *old.edition.snapshot.served() != consumers);
        let (edition, own) = self.edition(old.as_ref().map(|old| &old.edition), |snapshot, changed| {
            match parts {
                Some(parts) => envoy::update(snapshot, (gateway, self.ir()), parts, self.surroundings, changed),
                None => snapshot.update(&envoy::without_keys(gateway, self.ir(), self.surroundings), changed),
            }
            snapshot.serve_keys(&keys.all, &keys.touched, consumers, changed);
        });
        own.iter().filter(|(kind, _)| *kind != ResourceType::ApiKey).for_each(|(kind, name)| {
            changed.add(kind, Arc::clone(name));
        });
        let (listeners, mut serves) = old.map_or_else(Default::default, |old| (old.listeners, old.serves));
        let namespaces = edition.snapshot.served();
        let consumers =
            if are_others { Consumers::Of(namespaces) } else { Consumers::Same(namespaces, &self.delta.consumers) };
        serves.update((self.world, key), &gateway.catalog, parts, &consumers);
        let listeners = if parts.is_some() { listeners } else { self::listeners(gateway, &self.surroundings.bind) };
        ServedGateway { edition, listeners, serves }
    }

    /// Every workload, and the keys that changed in any of them. They have nothing but keys.
    pub fn workloads(&self, keys: &Keys) -> (BTreeMap<Key, ServedWorkload>, Changed) {
        let mut changed = Changed::default();
        let mut workloads = self.before.workloads.clone();
        let mut due: BTreeSet<&Key> = self.delta.workloads.iter().collect();
        if !keys.touched.is_empty() {
            due.extend(self.ir().workloads.keys());
        }
        for key in due {
            let old = workloads.remove(key);
            if let Some(workload) = self.ir().workloads.get(key) {
                workloads.insert(key.clone(), self.workload(workload, old, keys, &mut changed));
            } else if let Some(old) = old {
                changed.merge(&Changed::between(&old.edition.snapshot, &Snapshot::default()));
            }
        }
        (workloads, changed)
    }

    fn workload(
        &self,
        workload: &Arc<ir::Workload>,
        old: Option<ServedWorkload>,
        keys: &Keys,
        changed: &mut Changed,
    ) -> ServedWorkload {
        let (edition, own) = self.edition(old.as_ref().map(|old| &old.edition), |snapshot, changed| {
            snapshot.serve_keys(&keys.all, &keys.touched, workload.consumers.clone(), changed);
        });
        changed.merge(&own);
        // Gateways hand over requests of Consumers whose keys it has not.
        let all = &ir::ConsumerNamespaces::All;
        let consumers = if old.is_none() { Consumers::Of(all) } else { Consumers::Same(all, &self.delta.consumers) };
        let mut serves = old.map_or_else(Serves::default, |old| old.serves);
        serves.update_workload(self.world, workload, &consumers);
        ServedWorkload { workload: Arc::clone(workload), edition, serves }
    }

    /// What the one Envoy of all Gateways has, if there may be one. A resource that several have is the same in all of
    /// them. Workloads are not among them.
    pub fn all(
        &self,
        gateways: &BTreeMap<String, ServedGateway>,
        changed: &Changed,
        keys: &Keys,
    ) -> (Arc<Edition>, Changed) {
        let only = |gateways: &BTreeMap<String, ServedGateway>| match gateways.first_key_value() {
            Some((_, gateway)) if gateways.len() == 1 => Some(Arc::clone(&gateway.edition)),
            _ => None,
        };
        let old = (self.before.generation > 0).then_some(&self.before.all);
        // What the only Gateway has is all that there is.
        let as_before = |old: &Arc<Edition>| only(&self.before.gateways).is_some_and(|only| Arc::ptr_eq(&only, old));
        if self.placement.shares_proxies()
            && old.is_none_or(as_before)
            && let Some(only) = only(gateways)
        {
            let changed = match only.since(self.before.generation) {
                Since::Names(changed) => changed,
                Since::Unknown => Changed::between(&Snapshot::default(), &only.snapshot),
            };
            return (only, changed);
        }
        self.edition(old, |snapshot, own| {
            if !self.placement.shares_proxies() {
                return;
            }
            for (kind, name) in changed.iter() {
                let found = gateways.values().rev().find_map(|gateway| gateway.edition.snapshot.shared(kind, name));
                match found {
                    Some(resource) => snapshot.put(kind, name, Arc::clone(resource), own),
                    None => snapshot.remove(kind, name, own),
                }
            }
            let mut served = ir::ConsumerNamespaces::default();
            gateways.values().for_each(|gateway| served.extend(gateway.edition.snapshot.served()));
            snapshot.serve_keys(&keys.all, &keys.touched, served, own);
        })
    }

    /// The edition after the old one, and what changed.
    fn edition(
        &self,
        old: Option<&Arc<Edition>>,
        change: impl FnOnce(&mut Snapshot, &mut Changed),
    ) -> (Arc<Edition>, Changed) {
        let mut snapshot = old.map_or_else(Snapshot::default, |old| Snapshot::clone(&old.snapshot));
        let mut changed = Changed::default();
        change(&mut snapshot, &mut changed);
        let (generation, snapshot) = (self.generation(), Arc::new(snapshot));
        let edition = match old {
            Some(old) => old.next(generation, snapshot, changed.clone()),
            None => Edition::first(generation, snapshot),
        };
        (Arc::new(edition), changed)
    }

    /// What the ledger must know. None: nothing of it has changed.
    pub fn configured(
        &self,
        known: &Configured,
        gateways: &BTreeMap<String, ServedGateway>,
        workloads: &BTreeMap<Key, ServedWorkload>,
    ) -> Option<Configured> {
        fn of_gateways(gateways: &BTreeMap<String, ServedGateway>) -> impl Iterator<Item = (&String, &Serves)> {
            gateways.iter().map(|(name, gateway)| (name, &gateway.serves))
        }
        fn of_workloads(workloads: &BTreeMap<Key, ServedWorkload>) -> impl Iterator<Item = (&Scope, &Serves)> {
            workloads.values().map(|workload| (workload.scope(), &workload.serves))
        }
        let before = self.before;
        let schemas = self.schemas(known);
        if self.delta.limits.is_empty()
            && schemas == known.schemas
            && of_gateways(gateways).eq(of_gateways(&before.gateways))
            && of_workloads(workloads).eq(of_workloads(&before.workloads))
        {
            return None;
        }
        let mut served: BTreeMap<String, Vec<Things>> = BTreeMap::new();
        let mut all = Vec::new();
        for key in self.ir().gateways.keys() {
            let Some(gateway) = gateways.get(&key.to_string()) else { continue };
            let things = gateway.serves.things();
            all.extend(things.iter().cloned());
            served.insert(Identity::of_gateway(&key.namespace, &key.name).to_string(), things);
        }
        // The Envoy of all Gateways may name what any of them serves.
        served.insert(Identity::AllGateways.to_string(), all);
        served.extend(
            of_workloads(workloads).map(|(scope, serves)| (Identity::Of(scope.clone()).to_string(), serves.things())),
        );
        let limits = self.ir().limits.values().map(|limit| limit.as_ref().clone()).collect();
        Some(Configured { limits, served, schemas })
    }

    /// What the backends of Gateways speak.
    fn schemas(&self, known: &Configured) -> Arc<BTreeMap<String, ir::Schema>> {
        let other_backends = |delta: &GatewayDelta| match delta {
            GatewayDelta::Whole | GatewayDelta::Gone => true,
            GatewayDelta::Parts(parts) => !parts.backends.is_empty(),
        };
        if !self.delta.gateways.values().any(other_backends) {
            return Arc::clone(&known.schemas);
        }
        let backends = self.ir().gateways.values().flat_map(|gateway| gateway.catalog.backends.values());
        Arc::new(backends.map(|backend| (backend.origin.display_name(), backend.schema)).collect())
    }

    /// Names of the models that clients can ask for.
    pub fn models(&self) -> Arc<[String]> {
        let other_pools = |delta: &GatewayDelta| match delta {
            GatewayDelta::Whole | GatewayDelta::Gone => true,
            GatewayDelta::Parts(parts) => !parts.pools.is_empty(),
        };
        if !self.delta.gateways.values().any(other_pools) {
            return Arc::clone(&self.before.models);
        }
        let pools = self.ir().gateways.values().flat_map(|gateway| gateway.catalog.pools.values());
        let name = |model: &ir::Model| if model.prefix { format!("{}*", model.name) } else { model.name.clone() };
        let names: BTreeSet<String> = pools.flat_map(|pool| pool.models.iter().map(name)).collect();
        names.into_iter().collect()
    }
}

/// Everything but keys.
fn note_all(snapshot: &Snapshot, changed: &mut Changed) {
    for kind in ResourceType::ALL.into_iter().filter(|kind| *kind != ResourceType::ApiKey) {
        changed.add_all(kind, snapshot.shared_of(kind).map(|(name, _)| Arc::clone(name)));
    }
}

fn listeners(gateway: &ir::Gateway, bind: &str) -> Arc<[Listener]> {
    let sites = gateway.listeners.iter().flat_map(|listener| listener.sites.iter().map(move |site| (listener, site)));
    sites
        .map(|(listener, site)| Listener {
            name: site.name.to_string(),
            address: authority(bind, listener.port),
            protocol: protocol(site).to_owned(),
        })
        .collect()
}

fn protocol(site: &ir::Site) -> &'static str {
    match (&site.tunnels, site.terminates_tls()) {
        (Some(_), _) => "TLS",
        (None, false) => "HTTP",
        (None, true) => "HTTPS",
    }
}

/// `127.0.0.1:8080`, `[::1]:8080`
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
