//! What the units of a translation read: objects, and what other units made of them.
//!
//! Whoever reads through a view is noted as a reader of each fact that it asked for, whether there is such a thing or
//! not. When a fact changes, its readers are asked again, and nobody else.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use crate::ir;
use crate::mesh::Mesh;
use crate::objects::{
    BackendSlice, Key, Kind, ListenerSet, Meta, Object, Objects, ReferenceGrant, RefusedPolicy, TargetKind, gateway_of,
};
use crate::placement::{Feature, Placement, Setting};
use crate::sets::Counted;
use crate::status::{Finding, Origin};

use super::backend_tls::BackendTls;
use super::claim_sets::ClaimSets;
use super::listeners::OpenListeners;
use super::policies::Policy;
use super::services::{Port, service_of};

/// Something that may change. It is kept as a hash: should two facts ever have the same, some unit is asked again for
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fact(u64);

/// The facts that one unit has asked for.
#[derive(Debug, Default)]
pub struct Reads(RefCell<BTreeSet<Fact>>);

/// What units have made so far, for the units after them.
#[derive(Debug, Default)]
pub struct Made {
    pub setting: Setting,
    /// The EndpointSlices of each Service.
    pub slices: BTreeMap<Key, BTreeSet<Key>>,
    /// The ListenerSets for each Gateway.
    pub listener_sets: BTreeMap<Key, BTreeSet<Key>>,
    /// The BackendTLSPolicies that are for each Service.
    pub backend_tls: BTreeMap<Key, BTreeMap<Key, Arc<BackendTls>>>,
    /// Each port of each Service, and each InferencePool, by cluster name.
    pub services: BTreeMap<String, Arc<ir::Service>>,
    pub backends: BTreeMap<Key, Arc<ir::Backend>>,
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

#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    objects: &'a Objects,
    made: &'a Made,
    reads: &'a Reads,
}

// === impl Fact ===

impl Fact {
    fn new(parts: [&str; 4]) -> Self {
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// One object: that it is there, and what it says.
    pub fn object(kind: &str, namespace: &str, name: &str) -> Self {
        Self::new(["object", kind, namespace, name])
    }

    /// All objects of a kind in a namespace.
    pub fn namespace(kind: &str, namespace: &str) -> Self {
        Self::new(["namespace", kind, namespace, ""])
    }

    /// Which objects of a kind there are in a namespace.
    pub fn names(kind: &str, namespace: &str) -> Self {
        Self::new(["names", kind, namespace, ""])
    }

    /// Which namespaces have an object of this kind and name.
    pub fn namespaces(kind: &str, name: &str) -> Self {
        Self::new(["namespaces", kind, name, ""])
    }

    /// Whether an object was given and not taken.
    pub fn refused(origin: &Origin) -> Self {
        Self::new(["refused", &origin.kind, &origin.namespace, &origin.name])
    }

    pub fn refused_policies() -> Self {
        Self::new(["refused policies", "", "", ""])
    }

    pub fn slices(service: &Key) -> Self {
        Self::new(["slices", &service.namespace, &service.name, ""])
    }

    /// Which ListenerSets are for a Gateway, and what they say.
    pub fn listener_sets(gateway: &Key) -> Self {
        Self::new(["listener sets", &gateway.namespace, &gateway.name, ""])
    }

    /// Which BackendTLSPolicies are for a Service, and what they say.
    pub fn backend_tls(service: &Key) -> Self {
        Self::new(["backend TLS", &service.namespace, &service.name, ""])
    }

    /// Whether a Service has this port, or an InferencePool can be used, and what routes must know of it.
    pub fn service(cluster: &str) -> Self {
        Self::new(["service", cluster, "", ""])
    }

    /// Whether a backend can be used, and what it speaks.
    pub fn backend(key: &Key) -> Self {
        Self::new(["backend", &key.namespace, &key.name, ""])
    }

    /// Whether a backend can be used, and where it is.
    pub fn endpoint(key: &Key) -> Self {
        Self::new(["endpoint", &key.namespace, &key.name, ""])
    }

    /// Whether there is a pool.
    pub fn pool(name: &str) -> Self {
        Self::new(["pool", name, "", ""])
    }

    pub fn listeners(gateway: &Key) -> Self {
        Self::new(["listeners", &gateway.namespace, &gateway.name, ""])
    }

    pub fn limits(kind: TargetKind, target: &Key) -> Self {
        Self::new(["limits", kind.name(), &target.namespace, &target.name])
    }

    /// Which claims of JWTs are looked at in a namespace.
    pub fn claim_sets(namespace: &str) -> Self {
        Self::new(["claim sets", namespace, "", ""])
    }

    pub fn known_namespaces() -> Self {
        Self::new(["known namespaces", "", "", ""])
    }
}

// === impl Reads ===

impl Reads {
    fn note(&self, fact: Fact) {
        self.0.borrow_mut().insert(fact);
    }

    pub fn into_facts(self) -> BTreeSet<Fact> {
        self.0.into_inner()
    }
}

// === impl View ===

impl<'a> View<'a> {
    pub fn new(objects: &'a Objects, made: &'a Made, reads: &'a Reads) -> Self {
        Self { objects, made, reads }
    }

    pub fn placement(&self) -> &'a Placement {
        &self.made.setting.placement
    }

    /// Whether sidecars get a filter at all.
    pub fn opens_workloads(&self) -> bool {
        self.made.setting.opens_workloads().is_some()
    }

    pub fn mesh(&self) -> Option<&'a Mesh> {
        self.made.setting.mesh.as_deref()
    }

    /// What is said of an object that asks for a feature in this field. None: the feature is there.
    pub fn lack(&self, feature: Feature, meta: &Meta, field: impl Display) -> Option<Finding> {
        self.made.setting.lacks(feature).map(|lack| lack.finding(meta, field))
    }

    pub fn object<T: Kind>(&self, namespace: &str, name: &str) -> Option<&'a Object<T>> {
        self.reads.note(Fact::object(T::NAME, namespace, name));
        T::store(self.objects).get(namespace, name)
    }

    pub fn grants<'n>(&self, namespace: &'n str) -> impl Iterator<Item = &'a Object<ReferenceGrant>> + use<'a, 'n> {
        self.reads.note(Fact::namespace(ReferenceGrant::NAME, namespace));
        self.objects.reference_grants.of_namespace(namespace)
    }

    /// The objects of this kind in a namespace.
    pub fn of_namespace<T: Kind>(&self, namespace: &str) -> impl Iterator<Item = &'a Object<T>> + use<'a, T> {
        self.reads.note(Fact::namespace(T::NAME, namespace));
        let objects: &'a Objects = self.objects;
        T::store(objects).of_namespace(namespace).collect::<Vec<_>>().into_iter()
    }

    /// The names of the objects of this kind in a namespace.
    pub fn names<T: Kind>(&self, namespace: &str) -> Vec<&'a str> {
        self.reads.note(Fact::names(T::NAME, namespace));
        let objects: &'a Objects = self.objects;
        T::store(objects).of_namespace(namespace).map(|object| object.meta.name()).collect()
    }

    /// The first namespace that has an object of this kind and name.
    pub fn elsewhere<T: Kind>(&self, name: &str) -> Option<&'a str> {
        self.reads.note(Fact::namespaces(T::NAME, name));
        let objects: &'a Objects = self.objects;
        T::store(objects).iter().find(|object| object.meta.name() == name).map(|object| object.meta.namespace())
    }

    pub fn is_refused(&self, origin: &Origin) -> bool {
        self.reads.note(Fact::refused(origin));
        self.objects.refused.contains_key(origin)
    }

    pub fn refused_policies(&self) -> &'a [RefusedPolicy] {
        self.reads.note(Fact::refused_policies());
        &self.objects.refused_policies
    }

    /// The EndpointSlices of a Service.
    pub fn slices(&self, service: &Key) -> Vec<&'a Object<BackendSlice>> {
        self.reads.note(Fact::slices(service));
        let slices = self.made.slices.get(service).into_iter().flatten();
        slices.filter_map(|key| self.objects.endpoint_slices.get(&key.namespace, &key.name)).collect()
    }

    /// The ListenerSets for a Gateway.
    pub fn listener_sets(&self, gateway: &Key) -> Vec<&'a Object<ListenerSet>> {
        self.reads.note(Fact::listener_sets(gateway));
        let sets = self.made.listener_sets.get(gateway).into_iter().flatten();
        sets.filter_map(|key| self.objects.listener_sets.get(&key.namespace, &key.name)).collect()
    }

    /// What BackendTLSPolicies say that are for a Service, in order of their names.
    pub fn backend_tls(&self, service: &Key) -> impl Iterator<Item = &'a BackendTls> + use<'a> {
        self.reads.note(Fact::backend_tls(service));
        self.made.backend_tls.get(service).into_iter().flat_map(BTreeMap::values).map(AsRef::as_ref)
    }

    /// None: there is no such port of a Service, and no such InferencePool.
    pub fn port(&self, cluster: &str) -> Option<Port> {
        self.reads.note(Fact::service(cluster));
        self.made.services.get(cluster).map(|service| Port::of(service))
    }

    /// Cluster name and schema of a backend that can be used.
    pub fn backend(&self, key: &Key) -> Option<(&'a str, ir::Schema)> {
        self.reads.note(Fact::backend(key));
        self.made.backends.get(key).map(|backend| (backend.cluster.as_str(), backend.schema))
    }

    /// Whether a backend can be used and, if it is a Service or an InferencePool, has an endpoint.
    pub fn is_ready(&self, key: &Key) -> bool {
        self.reads.note(Fact::endpoint(key));
        match self.made.backends.get(key).map(|backend| &backend.endpoint) {
            None => false,
            Some(ir::Endpoint::Address { .. } | ir::Endpoint::Dns { .. }) => true,
            Some(ir::Endpoint::Service { cluster } | ir::Endpoint::InferencePool { cluster, .. }) => {
                self.port(cluster).is_some_and(|port| port.has_endpoints)
            }
        }
    }

    pub fn has_pool(&self, name: &str) -> bool {
        self.reads.note(Fact::pool(name));
        self.made.pools.contains_key(name)
    }

    /// None: there is no such Gateway, or it is not ours.
    pub fn listeners(&self, gateway: &Key) -> Option<&'a OpenListeners> {
        self.reads.note(Fact::listeners(gateway));
        self.made.listeners.get(gateway).map(AsRef::as_ref)
    }

    /// Ids of the limits that hold for a target.
    pub fn limits(&self, kind: TargetKind, target: &Key) -> impl Iterator<Item = &'a String> + use<'a> {
        self.reads.note(Fact::limits(kind, target));
        self.made.limits.get(&(kind, target.clone())).into_iter().flatten()
    }

    /// The claims of JWTs that are looked at in a namespace.
    pub fn claim_sets(&self, namespace: &str) -> BTreeSet<ir::ClaimSet> {
        self.reads.note(Fact::claim_sets(namespace));
        self.made.claim_sets.get(namespace).map(ClaimSets::looked_at).unwrap_or_default()
    }

    pub fn known_namespaces(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.reads.note(Fact::known_namespaces());
        self.made.namespaces.iter().map(String::as_str)
    }
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

    /// Notes what the limits of a policy hold for.
    pub fn add_policy(&mut self, policy: &Policy) {
        for target in &policy.targets {
            let ids = policy.limits.iter().map(|limit| limit.id.clone());
            self.limits.entry(target.clone()).or_default().extend(ids);
        }
    }
}
