//! What is served now. It is one immutable value, and a change swaps all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tollgate_core::envoy::{self, Surroundings};
use tollgate_core::ir::{self, Ir};
use tollgate_core::ledger::{Configured, Thing};
use tollgate_core::objects::{Changes, Store};
use tollgate_core::snapshot::{Changed, Resources, Snapshot};
use tollgate_core::status::{Finding, Origin, Spot};
use tollgate_core::world::World;

use super::edition::Edition;
use super::identity::Identity;
use crate::admin;

#[derive(Debug, Default)]
pub struct Published {
    /// How often something was published. 0: nothing yet.
    pub generation: u64,
    /// By `namespace/name`.
    pub gateways: BTreeMap<String, ServedGateway>,
    /// All Gateways together, for the one Envoy of `tollgate run`.
    all: Arc<Edition>,
    /// All keys. Each snapshot has these and says which of them it serves.
    keys: Resources,
    /// All findings about the input, from parsing and from translation.
    pub findings: Vec<Finding>,
    /// Names of the models that clients can ask for.
    pub models: Vec<String>,
    /// What all of it was made from, or from newer objects.
    world: Arc<Mutex<World>>,
}

#[derive(Debug)]
pub struct ServedGateway {
    pub edition: Arc<Edition>,
    pub listeners: Vec<admin::Listener>,
}

/// Turns objects into what is served. Nothing else does.
#[derive(Debug)]
pub struct Publisher {
    surroundings: Surroundings,
    world: Arc<Mutex<World>>,
    published: watch::Sender<Arc<Published>>,
    for_ledger: watch::Sender<Arc<Configured>>,
}

// === impl Published ===

impl Published {
    /// What a proxy may have.
    pub fn of(&self, identity: &Identity) -> Arc<Edition> {
        match identity.gateway() {
            None => Arc::clone(&self.all),
            Some(name) => self.gateways.get(&name).map_or_else(Arc::default, |gateway| Arc::clone(&gateway.edition)),
        }
    }

    /// The same, Gateway by Gateway.
    pub fn snapshots_of(&self, identity: &Identity) -> Vec<(String, Arc<Snapshot>)> {
        let gateways = self.gateways_of(identity);
        gateways.map(|(name, gateway)| (name.clone(), Arc::clone(&gateway.edition.snapshot))).collect()
    }

    /// Whether the Gateway that this identity is for is there.
    pub fn knows(&self, identity: &Identity) -> bool {
        identity.gateway().is_none_or(|name| self.gateways.contains_key(&name))
    }

    /// The file and line of an object of which an Envoy may refuse a part.
    pub fn spot(&self, origin: &Origin) -> Option<Spot> {
        fn of<T>(store: &Store<T>, origin: &Origin) -> Option<Spot> {
            store.get(&origin.namespace, &origin.name).map(|object| object.meta.spot(""))
        }
        let world = locked(&self.world);
        let objects = world.objects();
        match origin.kind.as_str() {
            "Gateway" => of(&objects.gateways, origin),
            "HTTPRoute" => of(&objects.http_routes, origin),
            "Service" => of(&objects.services, origin),
            "Secret" => of(&objects.secrets, origin),
            "ModelPool" => of(&objects.model_pools, origin),
            "ModelBackend" => of(&objects.model_backends, origin),
            _ => None,
        }
    }

    pub fn gateways_of(&self, identity: &Identity) -> impl Iterator<Item = (&String, &ServedGateway)> {
        let only = identity.gateway();
        self.gateways.iter().filter(move |(name, _)| only.as_ref().is_none_or(|only| only == *name))
    }
}

// === impl Publisher ===

impl Publisher {
    pub fn new(surroundings: Surroundings) -> Self {
        Self {
            surroundings,
            world: Arc::default(),
            published: watch::Sender::default(),
            for_ledger: watch::Sender::default(),
        }
    }

    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    pub fn for_ledger(&self) -> watch::Receiver<Arc<Configured>> {
        self.for_ledger.subscribe()
    }

    /// Publishes what the objects mean now. Returns how many resources that changes.
    pub fn publish(&self, changes: Changes, mut findings: Vec<Finding>) -> usize {
        let mut world = locked(&self.world);
        let _delta = world.step(changes);
        findings.extend(world.findings());
        let ir = world.ir();
        let before = Arc::clone(&self.published.borrow());
        let generation = before.generation + 1;
        let mut keys = before.keys.clone();
        let touched = keys.update(envoy::api_keys(ir).iter());
        let mut together = Snapshot::default();
        let mut gateways = BTreeMap::new();
        for gateway in ir.gateways.values() {
            let made = envoy::without_keys(gateway, ir, &self.surroundings);
            let name = format!("{}/{}", gateway.origin.namespace, gateway.origin.name);
            let old = before.gateways.get(&name).map(|old| &old.edition);
            let (edition, _) = next_edition(old, generation, |snapshot, changed| {
                snapshot.update(&made, changed);
                snapshot.serve_keys(&keys, &touched, envoy::consumers(gateway), changed);
            });
            together.merge(&edition.snapshot);
            let listeners = listeners(gateway, &self.surroundings.bind);
            gateways.insert(name, ServedGateway { edition, listeners });
        }
        let old = (before.generation > 0).then_some(&before.all);
        let (all, changed) = next_edition(old, generation, |snapshot, changed| {
            snapshot.update(&together, changed);
            snapshot.serve_keys(&keys, &touched, together.served().clone(), changed);
        });
        // The ledger knows a limit before any filter asks for tokens of it.
        let next = configured(ir);
        self.for_ledger.send_if_modified(|configured| {
            let changed = **configured != next;
            *configured = Arc::new(next);
            changed
        });
        let world = Arc::clone(&self.world);
        let next = Published { generation, gateways, all, keys, findings, models: models(ir), world };
        self.published.send_replace(Arc::new(next));
        changed
    }
}

/// A step that panicked has not been published. What was published before still counts.
fn locked(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The edition after the old one, and how many resources changed.
fn next_edition(
    old: Option<&Arc<Edition>>,
    generation: u64,
    change: impl FnOnce(&mut Snapshot, &mut Changed),
) -> (Arc<Edition>, usize) {
    let mut snapshot = old.map_or_else(Snapshot::default, |old| Snapshot::clone(&old.snapshot));
    let mut changed = Changed::default();
    change(&mut snapshot, &mut changed);
    let count = changed.len();
    let edition = match old {
        Some(old) => Arc::new(old.next(generation, Arc::new(snapshot), changed)),
        None => Arc::new(Edition::first(generation, Arc::new(snapshot))),
    };
    (edition, count)
}

/// What the ledger must know. The Envoy of all Gateways may name what any of them serves.
fn configured(ir: &Ir) -> Configured {
    let mut served = BTreeMap::new();
    let mut all = BTreeSet::new();
    for gateway in ir.gateways.values() {
        let ir::Gateway { origin: Origin { namespace, name, .. }, .. } = gateway;
        let identity = Identity::Gateway { namespace: namespace.clone(), name: name.clone() };
        let things = Thing::served_by(gateway, ir);
        all.extend(things.iter().cloned());
        served.insert(identity.to_string(), things);
    }
    served.insert(Identity::AllGateways.to_string(), all);
    Configured { limits: ir.limits.values().map(|limit| limit.as_ref().clone()).collect(), served }
}

fn listeners(gateway: &ir::Gateway, bind: &str) -> Vec<admin::Listener> {
    let sites = gateway.listeners.iter().flat_map(|listener| listener.sites.iter().map(move |site| (listener, site)));
    sites
        .map(|(listener, site)| admin::Listener {
            name: site.name.clone(),
            address: authority(bind, listener.port),
            protocol: if site.certificate.is_some() { "HTTPS" } else { "HTTP" }.to_owned(),
        })
        .collect()
}

/// `127.0.0.1:8080`, `[::1]:8080`
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn models(ir: &Ir) -> Vec<String> {
    let pools = ir.gateways.values().flat_map(|gateway| gateway.pools.values());
    let name = |model: &ir::Model| if model.prefix { format!("{}*", model.name) } else { model.name.clone() };
    let names: BTreeSet<String> = pools.flat_map(|pool| pool.models.iter().map(name)).collect();
    names.into_iter().collect()
}
