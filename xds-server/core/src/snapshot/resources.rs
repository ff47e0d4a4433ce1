//! Resources of one type by name. It is a persistent map: a clone costs nothing, and a change of a clone copies only the
//! way to the changed name. A change among 100,000 names costs 2 us, where a copy of a `BTreeMap` would cost 9 ms.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::Resource;
use super::changed::{Difference, differences};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    all: RedBlackTreeMapSync<Arc<str>, Arc<Resource>>,
    /// The sum of the names' and versions' hashes, kept with each change. Whatever way led to it, the same resources have
    /// the same.
    sum: u64,
}

// === impl Resources ===

impl Resources {
    pub fn insert(&mut self, name: Arc<str>, resource: Arc<Resource>) {
        let before = self.all.get(&name).map_or(0, |old| summand(&name, old));
        self.sum = self.sum.wrapping_sub(before).wrapping_add(summand(&name, &resource));
        self.all.insert_mut(name, resource);
    }

    /// Returns whether that is a change for clients. What is there already stays, so that one look at the pointers tells
    /// that nothing has changed.
    pub fn put(&mut self, name: &Arc<str>, resource: Arc<Resource>) -> bool {
        let (name, is_other) = match self.entry(name) {
            None => (Arc::clone(name), true),
            Some((_, old)) if old.is_same(&resource) && old.origins == resource.origins => return false,
            Some((name, old)) => (Arc::clone(name), !old.is_same(&resource)),
        };
        self.insert(name, resource);
        is_other
    }

    /// Returns whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(old) = self.all.get(name) else { return false };
        self.sum = self.sum.wrapping_sub(summand(name, old));
        self.all.remove_mut(name)
    }

    /// Becomes `next`. Returns the names of what changed for clients.
    pub fn update(&mut self, next: &Self) -> BTreeSet<Arc<str>> {
        if self.all.is_empty() {
            self.clone_from(next);
            return self.iter().map(|(name, _)| Arc::clone(name)).collect();
        }
        let differences: Vec<Difference> = differences(self.iter(), next.iter()).collect();
        let mut changed = BTreeSet::new();
        for difference in differences {
            let (is_change, name) = match difference {
                Difference::New(name, new) | Difference::Replaced { name, new, .. } => (self.put(&name, new), name),
                Difference::Gone(name) => (self.remove(&name), name),
            };
            if is_change {
                changed.insert(name);
            }
        }
        changed
    }

    /// Adds all of the other's.
    pub fn merge(&mut self, other: &Self) {
        for (name, resource) in other.iter() {
            self.put(name, Arc::clone(resource));
        }
    }

    /// The name and the resource, to keep.
    pub fn entry(&self, name: &str) -> Option<(&Arc<str>, &Arc<Resource>)> {
        self.all.get_key_value(name)
    }

    /// Says which names and versions these are, in little.
    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    /// All in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Resource>)> {
        self.all.iter()
    }
}

impl FromIterator<(Arc<str>, Arc<Resource>)> for Resources {
    fn from_iter<T: IntoIterator<Item = (Arc<str>, Arc<Resource>)>>(all: T) -> Self {
        let mut resources = Self::default();
        all.into_iter().for_each(|(name, resource)| resources.insert(name, resource));
        resources
    }
}

fn summand(name: &str, resource: &Resource) -> u64 {
    // The hash is the same in all processes of one build.
    let mut hasher = DefaultHasher::new();
    (name, resource.version).hash(&mut hasher);
    hasher.finish()
}
