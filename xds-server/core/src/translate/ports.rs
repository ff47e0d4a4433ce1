//! Which Gateway has a port that several ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::objects::{Gateway, Key, ListenerSet, Meta, Objects, Store};
use crate::placement::Placement;
use crate::status::{Finding, Reason, Severity};

use super::listener::{OpenListener, field};
use super::listeners::OpenListeners;

/// What is open of each Gateway, and what each cannot have because others have it.
pub type Open = (BTreeMap<Key, Arc<OpenListeners>>, BTreeMap<Key, Vec<Finding>>);

pub fn open(placement: &Placement, objects: &Objects, valid: BTreeMap<Key, Arc<OpenListeners>>) -> Open {
    if placement.shares_ports() {
        share(&objects.gateways, &objects.listener_sets, &valid)
    } else {
        (valid, BTreeMap::new())
    }
}

/// All Gateways are opened on the same addresses. A port belongs to the oldest Gateway, as a new one must not take it from
/// others. Files have no age: there it is the first by name.
fn share(gateways: &Store<Gateway>, sets: &Store<ListenerSet>, valid: &BTreeMap<Key, Arc<OpenListeners>>) -> Open {
    let mut owners: BTreeMap<u16, &Key> = BTreeMap::new();
    let mut findings: BTreeMap<Key, Vec<Finding>> = BTreeMap::new();
    let mut open = BTreeMap::new();
    let mut by_age: Vec<_> = valid.iter().collect();
    by_age.sort_by_key(|(key, _)| {
        let created = gateways.get(&key.namespace, &key.name).and_then(|gateway| gateway.meta.created);
        (created.unwrap_or(i64::MAX), *key)
    });
    for (key, listeners) in by_age {
        let is_lost = |listener: &&OpenListener| owners.get(&listener.port).is_some_and(|owner| *owner != key);
        let lost: Vec<&OpenListener> = listeners.open.iter().filter(is_lost).collect();
        for listener in &lost {
            let meta = match &listener.set {
                None => gateways.get(&key.namespace, &key.name).map(|gateway| &gateway.meta),
                Some(set) => sets.get(&set.namespace, &set.name).map(|set| &set.meta),
            };
            let told = owners.get(&listener.port).zip(meta).map(|(owner, meta)| told(listener, owner, meta));
            findings.entry(key.clone()).or_default().extend(told);
        }
        let listeners = if lost.is_empty() {
            Arc::clone(listeners)
        } else {
            let own = listeners.open.iter().filter(|listener| !is_lost(listener)).cloned().collect();
            Arc::new(OpenListeners { open: own, ..OpenListeners::clone(listeners) })
        };
        for listener in &listeners.open {
            owners.insert(listener.port, key);
        }
        open.insert(key.clone(), listeners);
    }
    (open, findings)
}

fn told(listener: &OpenListener, owner: &Key, meta: &Meta) -> Finding {
    let message = format!("port {} belongs to Gateway {}/{}", listener.port, owner.namespace, owner.name);
    let field = format!("{}.port", field(listener.index));
    meta.finding(Severity::Error, Reason::PortUnavailable, field, message, "take another port")
}
