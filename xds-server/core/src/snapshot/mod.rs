//! What is published: resources by type and name, each versioned by the hash of its content.
//!
//! A snapshot is cheap to clone and to change, because its clones share what they have in common. What a change does to a
//! snapshot is noted in [`Changed`], so that nobody who follows a snapshot has to compare all of it.

mod changed;
mod content;
mod resources;
#[cfg(test)]
mod tests;
mod version;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::changed::Changed;
pub use self::content::Content;
pub use self::resources::Resources;
pub use self::version::Version;
use crate::ir::ConsumerNamespaces;
use crate::status::Origin;
pub use crate::terms::ResourceType;

/// In the name of a scope, between the route table and the hostname. No name of an object has it.
pub const HOST_MARK: char = '|';

/// One resource, ready to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// That of the content.
    pub version: Version,
    /// The value of the Any; its type URL is the resource type's.
    pub content: Content,
    /// Objects that it was made from, the first being the one that a NACK is reported on.
    pub origins: Box<[Origin]>,
}

/// Everything that the Envoys of one Gateway may have. It is always complete: nothing in it refers to something that is
/// missing.
///
/// Keys are an exception: all Gateways share one set of them, and each serves some of it. The others are not there for
/// whoever asks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    resources: BTreeMap<ResourceType, Resources>,
    /// The namespaces of the Consumers whose keys are served.
    served: ConsumerNamespaces,
}

/// Of two snapshots that were made by the same build, with the same settings, it tells whether Envoys are to have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub u64);

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
    pub fn new(message: &impl prost::Message, origins: impl Into<Box<[Origin]>>) -> Self {
        let message = message.encode_to_vec();
        Self { version: Version::of(&message), content: message.into(), origins: origins.into() }
    }

    /// The same for one of many resources that say nearly what the example says, in less memory.
    pub fn like(example: &'static [u8], message: &impl prost::Message, origins: impl Into<Box<[Origin]>>) -> Self {
        let message = message.encode_to_vec();
        let content = Content::packed(&message, example);
        Self { version: Version::of(&message), content, origins: origins.into() }
    }

    /// Whether a client that has one of them has the other, too.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.version == other.version
    }
}

// === impl Snapshot ===

impl Snapshot {
    pub fn insert(&mut self, kind: ResourceType, name: impl AsRef<str>, resource: Resource) {
        self.resources.entry(kind).or_default().insert(name.as_ref().into(), Arc::new(resource));
    }

    /// The same, noted if it is a change.
    pub fn put(&mut self, kind: ResourceType, name: &Arc<str>, resource: Arc<Resource>, changed: &mut Changed) {
        if self.resources.entry(kind).or_default().put(name, resource) {
            changed.add(kind, Arc::clone(name));
        }
    }

    pub fn remove(&mut self, kind: ResourceType, name: &Arc<str>, changed: &mut Changed) {
        if self.resources.get_mut(&kind).is_some_and(|resources| resources.remove(name)) {
            changed.add(kind, Arc::clone(name));
        }
    }

    /// Becomes `next`, but keeps what is the same. Keys stay as they are.
    pub fn update(&mut self, next: &Self, changed: &mut Changed) {
        for kind in ResourceType::ALL.into_iter().filter(|kind| *kind != ResourceType::ApiKey) {
            self.update_kind(kind, next, changed);
        }
    }

    /// The same for one type.
    pub fn update_kind(&mut self, kind: ResourceType, next: &Self, changed: &mut Changed) {
        let nothing = Resources::default();
        let resources = self.resources.entry(kind).or_default();
        changed.add_all(kind, resources.update(next.resources.get(&kind).unwrap_or(&nothing)));
    }

    /// Serves the keys of these namespaces. `touched` are those of all keys that are not as they were in this snapshot.
    pub fn serve_keys(
        &mut self,
        keys: &Resources,
        touched: &BTreeSet<Arc<str>>,
        served: ConsumerNamespaces,
        changed: &mut Changed,
    ) {
        let kind = ResourceType::ApiKey;
        let before = self.clone();
        self.resources.insert(kind, keys.clone());
        self.served = served;
        if self.served == before.served {
            // A key that was not served and is not served now is nobody's business.
            let visible = |name: &&Arc<str>| before.shared(kind, name).is_some() || self.shared(kind, name).is_some();
            changed.add_all(kind, touched.iter().filter(visible).cloned());
        } else {
            changed.add_all(kind, changed::between(kind, &before, self));
        }
    }

    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Resource> {
        self.shared(kind, name).map(AsRef::as_ref)
    }

    /// The same, to keep.
    pub fn shared(&self, kind: ResourceType, name: &str) -> Option<&Arc<Resource>> {
        self.entry(kind, name).map(|(_, resource)| resource)
    }

    /// The same, with the name to keep.
    pub fn entry(&self, kind: ResourceType, name: &str) -> Option<(&Arc<str>, &Arc<Resource>)> {
        self.resources.get(&kind)?.entry(name).filter(|(_, resource)| self.serves(kind, resource))
    }

    /// All of one type, by name, to keep.
    pub fn shared_of(&self, kind: ResourceType) -> impl Iterator<Item = (&Arc<str>, &Arc<Resource>)> {
        let all = self.resources.get(&kind).into_iter().flat_map(Resources::iter);
        all.filter(move |(_, resource)| self.serves(kind, resource))
    }

    /// Whether a client keeps this resource that is not in the snapshot. When a table of scopes becomes one table,
    /// connections from before still look among its scopes until they are drained.
    pub fn leaves(&self, kind: ResourceType, name: &str) -> bool {
        kind == ResourceType::ScopedRoute && self.get(ResourceType::Route, table_of(name)).is_some()
    }

    /// All of one type, by name.
    pub fn of(&self, kind: ResourceType) -> impl Iterator<Item = (&str, &Resource)> {
        self.shared_of(kind).map(|(name, resource)| (name.as_ref(), resource.as_ref()))
    }

    /// Says in little which resources an Envoy is to have: everything but keys, which its filter asks for itself.
    pub fn digest(&self) -> Digest {
        let of_kinds = self.resources.iter().filter(|(kind, _)| **kind != ResourceType::ApiKey);
        let sums = of_kinds.map(|(kind, resources)| resources.sum().rotate_left(*kind as u32));
        Digest(sums.fold(0, u64::wrapping_add))
    }

    /// The namespaces of the Consumers whose keys are served.
    pub fn served(&self) -> &ConsumerNamespaces {
        &self.served
    }

    /// Adds everything of another Gateway: what one Envoy that serves both is given. Both have the same keys, but more of
    /// them may be served now.
    pub fn merge(&mut self, other: &Self) {
        for (kind, resources) in &other.resources {
            match self.resources.entry(*kind) {
                Entry::Vacant(entry) => {
                    entry.insert(resources.clone());
                }
                Entry::Occupied(_) if *kind == ResourceType::ApiKey => {}
                Entry::Occupied(mut entry) => entry.get_mut().merge(resources),
            }
        }
        self.served.extend(&other.served);
    }

    fn serves(&self, kind: ResourceType, resource: &Resource) -> bool {
        let of_consumer = || resource.origins.first().is_some_and(|origin| self.served.include(&origin.namespace));
        kind != ResourceType::ApiKey || of_consumer()
    }
}
