//! What a client wants of one type: everything, or these names.

use std::collections::BTreeSet;

use crate::snapshot::ResourceType;

#[derive(Debug, Clone, Default)]
pub(super) struct Interest {
    wildcard: bool,
    names: BTreeSet<String>,
}

/// For these types, a first request that names nothing asks for everything. For the other types it asks for nothing.
/// State-of-the-world responses of these types hold the whole set.
pub(super) fn may_be_implicit(kind: ResourceType) -> bool {
    use ResourceType::{ApiKey, Cluster, Listener, ScopedRoute};
    matches!(kind, Cluster | Listener | ScopedRoute | ApiKey)
}

// === impl Interest ===

impl Interest {
    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub(super) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    pub(super) fn is_named(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The names that the client asks for.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Delta: `*` is everything, and so is a first request that subscribes to nothing.
    pub(super) fn change(&mut self, kind: ResourceType, subscribe: &[String], unsubscribe: &[String], first: bool) {
        for name in unsubscribe {
            if name == "*" {
                self.wildcard = false;
            } else {
                self.names.remove(name);
            }
        }
        for name in subscribe {
            if name == "*" {
                self.wildcard = true;
            } else {
                self.names.insert(name.clone());
            }
        }
        if first && subscribe.is_empty() && may_be_implicit(kind) {
            self.wildcard = true;
        }
    }

    /// State of the world: the names are all that is wanted. Returns the new ones. A request without names means
    /// everything only as long as nothing was ever named.
    pub(super) fn replace(&mut self, kind: ResourceType, names: Vec<String>, first: bool) -> Vec<String> {
        let implicit = names.is_empty() && may_be_implicit(kind) && (first || (self.wildcard && self.names.is_empty()));
        let before = std::mem::take(&mut self.names);
        self.wildcard = implicit || names.iter().any(|name| name == "*");
        self.names = names.into_iter().filter(|name| name != "*").collect();
        self.names.difference(&before).cloned().collect()
    }
}
