//! What the units of a translation have made so far, for the units after them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir;
use crate::objects::{Key, Object, Objects, RequestAuthentication, TargetKind, gateway_of};
use crate::placement::Setting;
use crate::sets::Counted;

use super::backend_tls::BackendTls;
use super::backing::Backing;
use super::claim_sets::ClaimSets;
use super::listeners::OpenListeners;
use super::policies::Policy;
use super::services::service_of;

#[derive(Debug, Default)]
pub struct Made {
    pub setting: Setting,
    /// The EndpointSlices of each Service.
    pub slices: BTreeMap<Key, BTreeSet<Key>>,
    /// The ListenerSets for each Gateway.
    pub listener_sets: BTreeMap<Key, BTreeSet<Key>>,
    /// The RequestAuthentications for each Gateway.
    pub request_authentications: BTreeMap<Key, BTreeSet<Key>>,
    /// Whose JWTs these have verified.
    pub issuers: Counted<String>,
    /// The BackendTLSPolicies that are for each Service.
    pub backend_tls: BTreeMap<Key, BTreeMap<Key, Arc<BackendTls>>>,
    /// Each port of each Service, and each InferencePool, by cluster name.
    pub services: BTreeMap<String, Arc<ir::Service>>,
    pub backends: BTreeMap<Key, Arc<ir::Backend>>,
    /// What each pool asks each Service for.
    pub asked: BTreeMap<Key, BTreeMap<Key, Vec<ir::AskedModel>>>,
    /// By `namespace/name`.
    pub pools: BTreeMap<String, Arc<ir::Pool>>,
    /// The Gateways that are ours.
    pub listeners: BTreeMap<Key, Arc<OpenListeners>>,
    /// Ids of the limits that hold for each target.
    pub limits: BTreeMap<(TargetKind, Key), BTreeSet<String>>,
    /// What the Consumers of each namespace ask of JWTs.
    pub claim_sets: BTreeMap<String, ClaimSets>,
    /// The namespaces that are known, each by some objects.
    pub namespaces: Counted<String>,
}

// === impl Made ===

impl Made {
    /// Nothing yet.
    pub fn new(setting: Setting) -> Self {
        Self { setting, ..Self::default() }
    }

    /// Notes what is known of objects before any unit has run.
    pub fn know(&mut self, objects: &Objects) {
        for slice in objects.endpoint_slices.iter() {
            if let Some(service) = service_of(slice) {
                self.slices.entry(service).or_default().insert(slice.meta.key());
            }
        }
        for set in objects.listener_sets.iter() {
            self.listener_sets.entry(gateway_of(set)).or_default().insert(set.meta.key());
        }
        for object in objects.request_authentications.iter() {
            for gateway in gateways_of(object) {
                self.request_authentications.entry(gateway).or_default().insert(object.meta.key());
            }
            issuers_of(object).for_each(|issuer| {
                self.issuers.add(issuer.clone());
            });
        }
        let namespaces = objects.namespaces.iter().map(|namespace| namespace.meta.name());
        for name in namespaces.chain(objects.consumers.iter().map(|consumer| consumer.meta.namespace())) {
            self.namespaces.add(name.to_owned());
        }
    }

    /// Notes which Services a BackendTLSPolicy is for.
    pub fn add_backend_tls(&mut self, key: &Key, policy: &Arc<BackendTls>) {
        for target in &policy.targets {
            self.backend_tls.entry(target.service.clone()).or_default().insert(key.clone(), Arc::clone(policy));
        }
    }

    /// Forgets it.
    pub fn remove_backend_tls(&mut self, key: &Key, policy: &BackendTls) {
        for target in &policy.targets {
            if let Some(policies) = self.backend_tls.get_mut(&target.service) {
                policies.remove(key);
                if policies.is_empty() {
                    self.backend_tls.remove(&target.service);
                }
            }
        }
    }

    /// Notes what a key asks of JWTs, if it is known by one. Returns whether that is a set of claims more.
    pub fn add_claims(&mut self, key: &ir::Key) -> bool {
        matches!(key.proof, ir::Proof::Jwt(_))
            && self.claim_sets.entry(key.origin.namespace.to_string()).or_default().add(key)
    }

    /// Forgets it. Returns whether that is a set of claims less.
    pub fn remove_claims(&mut self, key: &ir::Key) -> bool {
        let Some(sets) = self.claim_sets.get_mut(&*key.origin.namespace) else { return false };
        let is_less = sets.remove(key);
        if sets.is_empty() {
            self.claim_sets.remove(&*key.origin.namespace);
        }
        is_less
    }

    /// Notes what a pool asks Services for. Returns the Services that are asked for something else now.
    pub fn follow_backing(&mut self, pool: &Key, [before, after]: [Option<&Backing>; 2]) -> Vec<Key> {
        let none = BTreeMap::new();
        let [before, after] = [before, after].map(|backing| backing.map_or(&none, |backing| &backing.asked));
        let both: BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
        let others: Vec<Key> = both.into_iter().filter(|key| before.get(key) != after.get(key)).cloned().collect();
        for service in &others {
            let asked = self.asked.entry(service.clone()).or_default();
            match after.get(service) {
                Some(models) => asked.insert(pool.clone(), models.clone()),
                None => asked.remove(pool),
            };
            if asked.is_empty() {
                self.asked.remove(service);
            }
        }
        others
    }

    /// Notes what the limits of a policy hold for.
    pub fn add_policy(&mut self, policy: &Policy) {
        for target in &policy.targets {
            let ids = policy.limits.iter().map(|limit| limit.id.clone());
            self.limits.entry(target.clone()).or_default().extend(ids);
        }
    }
}

/// The Gateways that it is for.
pub fn gateways_of(object: &Object<RequestAuthentication>) -> impl Iterator<Item = Key> {
    object.spec.gateways.iter().map(|name| Key::new(object.meta.namespace(), name.as_str()))
}

/// Whose JWTs it has verified at Gateways.
pub fn issuers_of(object: &Object<RequestAuthentication>) -> impl Iterator<Item = &String> {
    let rules = if object.spec.gateways.is_empty() { &[][..] } else { &object.spec.rules };
    rules.iter().map(|rule| &rule.issuer)
}
