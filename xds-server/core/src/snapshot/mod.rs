//! What is published: resources by type and name, each versioned by the hash of its content.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::status::Origin;

/// In the name of a scope, between the route table and the hostname. No name of an object has it.
pub const HOST_MARK: char = '|';

/// The kinds of resources, in the order in which additions are sent (make before break). Removals go in reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    Secret,
    Cluster,
    Endpoint,
    /// Filter configurations by ECDS.
    ExtensionConfig,
    /// The routes of one hostname. Listeners name no scopes, they look among those that are there, so these go first.
    ScopedRoute,
    Listener,
    Route,
    /// `tollgate.v1.ApiKey`, asked for by the filter.
    ApiKey,
}

/// One resource, ready to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Lowercase hex of the first 8 bytes of the SHA-256 of `value`.
    pub version: String,
    /// The message, encoded (the value of the Any; its type URL is the resource type's).
    pub value: Vec<u8>,
    /// Objects that it was made from, the first being the one that a NACK is reported on.
    pub origins: Vec<Origin>,
}

/// Everything that the Envoys of one Gateway may have. It is always complete: nothing in it refers to something that is
/// missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    resources: BTreeMap<ResourceType, BTreeMap<String, Arc<Resource>>>,
}

// === impl ResourceType ===

impl ResourceType {
    pub const ALL: [Self; 8] = [
        Self::Secret,
        Self::Cluster,
        Self::Endpoint,
        Self::ExtensionConfig,
        Self::ScopedRoute,
        Self::Listener,
        Self::Route,
        Self::ApiKey,
    ];

    /// The type URL on the wire.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::ExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::ScopedRoute => "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::ApiKey => tollgate_proto::v1::API_KEY_TYPE,
        }
    }

    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::Cluster => "Cluster",
            Self::Endpoint => "ClusterLoadAssignment",
            Self::ExtensionConfig => "TypedExtensionConfig",
            Self::ScopedRoute => "ScopedRouteConfiguration",
            Self::Listener => "Listener",
            Self::Route => "RouteConfiguration",
            Self::ApiKey => "ApiKey",
        }
    }

    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }
}

/// Whether a listener looks among the scopes of this one's table. A table has the name of its listener, or stands below
/// it.
pub fn is_scope_of(listener: &str, scope: &str) -> bool {
    table_of(scope).strip_prefix(listener).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn table_of(scope: &str) -> &str {
    scope.split(HOST_MARK).next().unwrap_or(scope)
}

// === impl Resource ===

impl Resource {
    pub fn new(message: &impl prost::Message, origins: Vec<Origin>) -> Self {
        use sha2::Digest as _;
        let value = message.encode_to_vec();
        let digest: [u8; 32] = sha2::Sha256::digest(&value).into();
        Self { version: hex::encode(digest.first_chunk::<8>().unwrap_or(&[0; 8])), value, origins }
    }
}

// === impl Snapshot ===

impl Snapshot {
    pub fn insert(&mut self, kind: ResourceType, name: impl Into<String>, resource: Resource) {
        self.resources.entry(kind).or_default().insert(name.into(), Arc::new(resource));
    }

    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Resource> {
        self.shared(kind, name).map(AsRef::as_ref)
    }

    /// The same, to keep.
    pub fn shared(&self, kind: ResourceType, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&kind)?.get(name)
    }

    /// All of one type, by name, to keep.
    pub fn shared_of(&self, kind: ResourceType) -> impl Iterator<Item = (&str, &Arc<Resource>)> {
        self.resources.get(&kind).into_iter().flatten().map(|(name, resource)| (name.as_str(), resource))
    }

    /// Whether a client keeps this resource that is not in the snapshot. When a table of scopes becomes one table,
    /// connections from before still look among its scopes until they are drained.
    pub fn leaves(&self, kind: ResourceType, name: &str) -> bool {
        kind == ResourceType::ScopedRoute && self.get(ResourceType::Route, table_of(name)).is_some()
    }

    /// Adds everything of another Gateway: what one Envoy that serves both is given.
    pub fn merge(&mut self, other: &Self) {
        for (kind, resources) in &other.resources {
            let all = self.resources.entry(*kind).or_default();
            all.extend(resources.iter().map(|(name, resource)| (name.clone(), Arc::clone(resource))));
        }
    }

    /// How many resources differ: new, changed or gone.
    pub fn changes_since(&self, old: &Self) -> usize {
        let new_or_changed = |a: &Self, b: &Self| {
            ResourceType::ALL
                .into_iter()
                .flat_map(|kind| a.of(kind).map(move |(name, resource)| (kind, name, &resource.version)))
                .filter(|(kind, name, version)| b.get(*kind, name).is_none_or(|other| other.version != **version))
                .count()
        };
        let gone = ResourceType::ALL
            .into_iter()
            .flat_map(|kind| old.of(kind).map(move |(name, _)| (kind, name)))
            .filter(|(kind, name)| self.get(*kind, name).is_none())
            .count();
        new_or_changed(self, old) + gone
    }

    /// All of one type, by name.
    pub fn of(&self, kind: ResourceType) -> impl Iterator<Item = (&str, &Resource)> {
        self.resources.get(&kind).into_iter().flatten().map(|(name, resource)| (name.as_str(), resource.as_ref()))
    }
}
