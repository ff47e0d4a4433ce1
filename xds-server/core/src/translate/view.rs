//! What the units of a translation read: objects, and what other units made of them.
//!
//! Whoever reads through a view is noted as a reader of each fact that it asked for, whether there is such a thing or
//! not. When a fact changes, its readers are asked again, and nobody else.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::hash::{Hash as _, Hasher as _};

use crate::ir;
use crate::mesh::Mesh;
use crate::objects::{
    BackendSlice, Key, Kind, ListenerSet, Meta, Object, Objects, ReferenceGrant, RefusedPolicy, RequestAuthentication,
    TargetKind,
};
use crate::placement::{Feature, Placement};
use crate::status::{Finding, Origin};

use super::backend_tls::BackendTls;
use super::claim_sets::ClaimSets;
use super::listeners::OpenListeners;
use super::made::Made;
use super::services::{Port, service_of_cluster};

/// Something that may change. It is kept as a hash: should two facts ever have the same, some unit is asked again for
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fact(u64);

/// The facts that one unit has asked for.
#[derive(Debug, Default)]
pub struct Reads(RefCell<BTreeSet<Fact>>);

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

    /// Which RequestAuthentications are for a Gateway, and what they say.
    pub fn request_authentications(gateway: &Key) -> Self {
        Self::new(["request authentications", &gateway.namespace, &gateway.name, ""])
    }

    /// Whose JWTs are verified at Gateways.
    pub fn issuers() -> Self {
        Self::new(["issuers", "", "", ""])
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

    /// The models that a Service is asked for.
    pub fn asked(service: &Key) -> Self {
        Self::new(["asked", &service.namespace, &service.name, ""])
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

    /// The RequestAuthentications for a Gateway, the oldest first.
    pub fn request_authentications(&self, gateway: &Key) -> Vec<&'a Object<RequestAuthentication>> {
        self.reads.note(Fact::request_authentications(gateway));
        let found = self.made.request_authentications.get(gateway).into_iter().flatten();
        let found = found.filter_map(|key| self.objects.request_authentications.get(&key.namespace, &key.name));
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|object| (object.meta.created.unwrap_or(i64::MAX), object.meta.key()));
        found
    }

    /// Whether JWTs of some issuer, or of any, are verified at some Gateway.
    pub fn are_verified(&self, issuer: Option<&str>) -> bool {
        self.reads.note(Fact::issuers());
        let mut issuers = self.made.issuers.iter();
        self.placement().opens_gateways() && issuers.any(|other| issuer.is_none_or(|issuer| other == issuer))
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

    /// The Service that a backend is, if it can be used and is one.
    pub fn service_behind(&self, key: &Key) -> Option<Key> {
        self.reads.note(Fact::endpoint(key));
        match &self.made.backends.get(key)?.endpoint {
            ir::Endpoint::Service { cluster } => service_of_cluster(cluster),
            _ => None,
        }
    }

    /// What a Service is asked for, by pools in order of their names.
    pub fn asked(&self, service: &Key) -> impl Iterator<Item = &'a ir::AskedModel> + use<'a> {
        self.reads.note(Fact::asked(service));
        self.made.asked.get(service).into_iter().flat_map(BTreeMap::values).flatten()
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
