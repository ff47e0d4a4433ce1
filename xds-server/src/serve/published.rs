//! What is served now: one immutable value, swapped whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;
use tollgate_core::envoy::{self, Surroundings};
use tollgate_core::ir::{self, Ir, Limit};
use tollgate_core::objects::Objects;
use tollgate_core::snapshot::Snapshot;
use tollgate_core::status::Finding;
use tollgate_core::translate::translate;

use super::identity::Identity;
use crate::admin;

#[derive(Debug, Default)]
pub struct Published {
    /// Counts what was published; 0: nothing yet.
    pub generation: u64,
    /// By `namespace/name`.
    pub gateways: BTreeMap<String, Gateway>,
    /// All Gateways together, for the one Envoy of `tollgate run`.
    all: Arc<Snapshot>,
    /// Of the input, parsing and translation together.
    pub findings: Vec<Finding>,
    /// Names of the models that clients can ask for.
    pub models: Vec<String>,
}

#[derive(Debug)]
pub struct Gateway {
    pub snapshot: Arc<Snapshot>,
    pub listeners: Vec<admin::Listener>,
}

/// Turns objects into what is served; the only writer.
#[derive(Debug)]
pub struct Publisher {
    surroundings: Surroundings,
    published: watch::Sender<Arc<Published>>,
    limits: watch::Sender<Arc<Vec<Limit>>>,
}

// === impl Published ===

impl Published {
    /// What a proxy may have.
    pub fn of(&self, identity: &Identity) -> Arc<Snapshot> {
        match identity {
            Identity::AllGateways => Arc::clone(&self.all),
            Identity::Gateway { namespace, name } => self
                .gateways
                .get(&format!("{namespace}/{name}"))
                .map_or_else(Arc::default, |gateway| Arc::clone(&gateway.snapshot)),
        }
    }

    pub fn gateways_of(&self, identity: &Identity) -> impl Iterator<Item = (&String, &Gateway)> {
        let only = match identity {
            Identity::AllGateways => None,
            Identity::Gateway { namespace, name } => Some(format!("{namespace}/{name}")),
        };
        self.gateways.iter().filter(move |(name, _)| only.as_ref().is_none_or(|only| only == *name))
    }
}

// === impl Publisher ===

impl Publisher {
    pub fn new(surroundings: Surroundings) -> Self {
        Self { surroundings, published: watch::Sender::default(), limits: watch::Sender::default() }
    }

    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    pub fn limits(&self) -> watch::Receiver<Arc<Vec<Limit>>> {
        self.limits.subscribe()
    }

    /// Publishes what the objects mean. Returns how many resources that changes.
    pub fn publish(&self, objects: &Objects, mut findings: Vec<Finding>) -> usize {
        let translation = translate(objects);
        findings.extend(translation.findings);
        let ir = translation.ir;
        let mut all = Snapshot::default();
        let mut gateways = BTreeMap::new();
        for gateway in &ir.gateways {
            let snapshot = envoy::snapshot(gateway, &ir, &self.surroundings);
            all.merge(&snapshot);
            let name = format!("{}/{}", gateway.origin.namespace, gateway.origin.name);
            let listeners = listeners(gateway, &self.surroundings.bind);
            gateways.insert(name, Gateway { snapshot: Arc::new(snapshot), listeners });
        }
        // The ledger knows a limit before any filter asks for tokens of it.
        self.limits.send_if_modified(|limits| {
            let changed = **limits != ir.limits;
            *limits = Arc::new(ir.limits.clone());
            changed
        });
        let before = Arc::clone(&self.published.borrow());
        let changed = all.changes_since(&before.all);
        let next = Published {
            generation: before.generation + 1,
            gateways,
            all: Arc::new(all),
            findings,
            models: models(&ir),
        };
        self.published.send_replace(Arc::new(next));
        changed
    }
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
    let pools = ir.gateways.iter().flat_map(|gateway| gateway.pools.values());
    let name = |model: &ir::Model| if model.prefix { format!("{}*", model.name) } else { model.name.clone() };
    let names: BTreeSet<String> = pools.flat_map(|pool| pool.models.iter().map(name)).collect();
    names.into_iter().collect()
}
