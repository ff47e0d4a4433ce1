//! What is served now. It is one immutable value, and a change swaps all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;
use tollgate_core::envoy::{self, FilterCode, Surroundings};
use tollgate_core::ir::{self, Ir};
use tollgate_core::ledger::{Configured, Thing};
use tollgate_core::objects::{Objects, Store};
use tollgate_core::snapshot::Snapshot;
use tollgate_core::status::{Finding, Origin, Spot};
use tollgate_core::translate::translate;

use super::identity::Identity;
use crate::admin;

#[derive(Debug, Default)]
pub struct Published {
    /// How often something was published. 0: nothing yet.
    pub generation: u64,
    /// By `namespace/name`.
    pub gateways: BTreeMap<String, ServedGateway>,
    /// All Gateways together, for the one Envoy of `tollgate run`.
    all: Variants,
    /// All findings about the input, from parsing and from translation.
    pub findings: Vec<Finding>,
    /// Names of the models that clients can ask for.
    pub models: Vec<String>,
    /// The file and line of each object of which an Envoy may refuse a part.
    spots: BTreeMap<Origin, Spot>,
}

#[derive(Debug)]
pub struct ServedGateway {
    snapshots: Variants,
    pub listeners: Vec<admin::Listener>,
}

/// One of two snapshots that mean the same and differ only in the URL of the filter's code. An Envoy refuses a filter
/// whose code it has not fetched yet. If the same filter is sent again, Envoy says ACK and does nothing, because it
/// believes that it knows it. So a stream changes to the other snapshot when the filter was refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Variant {
    #[default]
    One,
    Other,
}

#[derive(Debug, Default)]
struct Variants {
    one: Arc<Snapshot>,
    /// None: Envoys do not fetch the code from here.
    other: Option<Arc<Snapshot>>,
}

/// Turns objects into what is served. Nothing else does.
#[derive(Debug)]
pub struct Publisher {
    surroundings: Surroundings,
    /// The surroundings of [`Variant::Other`].
    other: Option<Surroundings>,
    published: watch::Sender<Arc<Published>>,
    for_ledger: watch::Sender<Arc<Configured>>,
}

// === impl Published ===

impl Published {
    /// What a proxy may have.
    pub fn of(&self, identity: &Identity, variant: Variant) -> Arc<Snapshot> {
        match identity.gateway() {
            None => Arc::clone(self.all.get(variant)),
            Some(name) => {
                self.gateways.get(&name).map_or_else(Arc::default, |gateway| Arc::clone(gateway.snapshot(variant)))
            }
        }
    }

    /// Whether the Gateway that this identity is for is there.
    pub fn knows(&self, identity: &Identity) -> bool {
        identity.gateway().is_none_or(|name| self.gateways.contains_key(&name))
    }

    /// Whether trying again with the other variant can help.
    pub fn fetches_code(&self) -> bool {
        self.all.other.is_some()
    }

    /// The file and line of an object.
    pub fn spot(&self, origin: &Origin) -> Option<&Spot> {
        self.spots.get(&Origin { section: None, ..origin.clone() })
    }

    pub fn gateways_of(&self, identity: &Identity) -> impl Iterator<Item = (&String, &ServedGateway)> {
        let only = identity.gateway();
        self.gateways.iter().filter(move |(name, _)| only.as_ref().is_none_or(|only| only == *name))
    }
}

// === impl ServedGateway ===

impl ServedGateway {
    pub fn snapshot(&self, variant: Variant) -> &Arc<Snapshot> {
        self.snapshots.get(variant)
    }
}

// === impl Variants ===

impl Variants {
    fn get(&self, variant: Variant) -> &Arc<Snapshot> {
        match (variant, &self.other) {
            (Variant::Other, Some(other)) => other,
            (Variant::One, _) | (Variant::Other, None) => &self.one,
        }
    }
}

// === impl Variant ===

impl Variant {
    pub fn next(self) -> Self {
        match self {
            Self::One => Self::Other,
            Self::Other => Self::One,
        }
    }
}

// === impl Publisher ===

impl Publisher {
    pub fn new(surroundings: Surroundings) -> Self {
        let other = match &surroundings.code {
            FilterCode::File(_) => None,
            FilterCode::Remote { sha256, path } => {
                let code = FilterCode::Remote { sha256: sha256.clone(), path: format!("{path}?again") };
                Some(Surroundings { code, ..surroundings.clone() })
            }
        };
        Self { surroundings, other, published: watch::Sender::default(), for_ledger: watch::Sender::default() }
    }

    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    pub fn for_ledger(&self) -> watch::Receiver<Arc<Configured>> {
        self.for_ledger.subscribe()
    }

    /// Publishes what the objects mean. Returns how many resources that changes.
    pub fn publish(&self, objects: &Objects, mut findings: Vec<Finding>) -> usize {
        let translation = translate(objects);
        findings.extend(translation.findings);
        let ir = translation.ir;
        let mut all = Snapshot::default();
        let mut all_other = self.other.as_ref().map(|_| Snapshot::default());
        let mut gateways = BTreeMap::new();
        for gateway in &ir.gateways {
            let one = envoy::snapshot(gateway, &ir, &self.surroundings);
            all.merge(&one);
            let other = self.other.as_ref().map(|surroundings| envoy::snapshot(gateway, &ir, surroundings));
            if let (Some(all), Some(other)) = (&mut all_other, &other) {
                all.merge(other);
            }
            let name = format!("{}/{}", gateway.origin.namespace, gateway.origin.name);
            let listeners = listeners(gateway, &self.surroundings.bind);
            let snapshots = Variants { one: Arc::new(one), other: other.map(Arc::new) };
            gateways.insert(name, ServedGateway { snapshots, listeners });
        }
        // The ledger knows a limit before any filter asks for tokens of it.
        let next = configured(&ir);
        self.for_ledger.send_if_modified(|configured| {
            let changed = **configured != next;
            *configured = Arc::new(next);
            changed
        });
        let before = Arc::clone(&self.published.borrow());
        let changed = all.changes_since(&before.all.one);
        let next = Published {
            generation: before.generation + 1,
            gateways,
            all: Variants { one: Arc::new(all), other: all_other.map(Arc::new) },
            findings,
            models: models(&ir),
            spots: spots(objects),
        };
        self.published.send_replace(Arc::new(next));
        changed
    }
}

/// What the ledger must know. The Envoy of all Gateways may name what any of them serves.
fn configured(ir: &Ir) -> Configured {
    let mut served = BTreeMap::new();
    let mut all = BTreeSet::new();
    for gateway in &ir.gateways {
        let ir::Gateway { origin: Origin { namespace, name, .. }, .. } = gateway;
        let identity = Identity::Gateway { namespace: namespace.clone(), name: name.clone() };
        let things = Thing::served_by(gateway, ir);
        all.extend(things.iter().cloned());
        served.insert(identity.to_string(), things);
    }
    served.insert(Identity::AllGateways.to_string(), all);
    Configured { limits: ir.limits.clone(), served }
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

fn spots(objects: &Objects) -> BTreeMap<Origin, Spot> {
    fn of<T>(store: &Store<T>) -> impl Iterator<Item = (Origin, Spot)> {
        store.iter().map(|object| (object.meta.origin.clone(), object.meta.spot("")))
    }
    of(&objects.gateways)
        .chain(of(&objects.http_routes))
        .chain(of(&objects.services))
        .chain(of(&objects.secrets))
        .chain(of(&objects.model_pools))
        .chain(of(&objects.model_backends))
        .collect()
}

fn models(ir: &Ir) -> Vec<String> {
    let pools = ir.gateways.iter().flat_map(|gateway| gateway.pools.values());
    let name = |model: &ir::Model| if model.prefix { format!("{}*", model.name) } else { model.name.clone() };
    let names: BTreeSet<String> = pools.flat_map(|pool| pool.models.iter().map(name)).collect();
    names.into_iter().collect()
}
