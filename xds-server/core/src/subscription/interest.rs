//! What a client wants of one type: everything, or these names.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Wanted;
use crate::snapshot::{ResourceType, Snapshot};

#[derive(Debug, Clone, Default)]
pub(super) struct Interest {
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
}

/// What a request changes in what a client wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Names that were asked for (again), or, in delta, given up. Nothing is known of what the client has of them.
    pub renewed: BTreeSet<Arc<str>>,
    /// State of the world: names that the client does not name any more.
    pub dropped: BTreeSet<Arc<str>>,
    pub wildcard: Wildcard,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Wildcard {
    #[default]
    AsBefore,
    Begins,
    /// Delta: it was asked for once more. The client may be waiting for an answer.
    Again,
    Ends,
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

    pub(super) fn names_some(&self) -> bool {
        !self.names.is_empty()
    }

    pub(super) fn in_snapshot<'a>(&'a self, kind: ResourceType, snapshot: &'a Snapshot) -> Wanted<'a> {
        Wanted { kind, interest: self, snapshot }
    }

    /// Delta: `*` is everything, and so is a first request that subscribes to nothing.
    pub(super) fn change(
        &mut self,
        kind: ResourceType,
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        first: bool,
    ) -> Asked {
        let before = self.wildcard;
        let mut asked = Asked::default();
        let implicit = first && subscribe.is_empty() && may_be_implicit(kind);
        let given_up: BTreeSet<Arc<str>> = unsubscribe.into_iter().map(Arc::from).collect();
        let wanted: BTreeSet<Arc<str>> = subscribe.into_iter().map(Arc::from).collect();
        let says_all = |names: &BTreeSet<Arc<str>>| names.contains("*");
        let ends = says_all(&given_up) && !says_all(&wanted);
        self.wildcard = implicit || says_all(&wanted) || (self.wildcard && !ends);
        asked.wildcard = match (before, self.wildcard) {
            (false, true) => Wildcard::Begins,
            (true, false) => Wildcard::Ends,
            (true, true) if says_all(&wanted) => Wildcard::Again,
            _ => Wildcard::AsBefore,
        };
        // "The server must still provide those resources", even when it believes the client has them: the client may
        // have forgotten them.
        for name in given_up {
            self.names.remove(&name);
            asked.renewed.insert(name);
        }
        for name in wanted {
            self.names.insert(Arc::clone(&name));
            asked.renewed.insert(name);
        }
        self.names.remove("*");
        asked.renewed.remove("*");
        asked
    }

    /// State of the world: the names are all that is wanted. A request without names means everything only as long as
    /// nothing was ever named.
    pub(super) fn replace(&mut self, kind: ResourceType, names: Vec<String>, first: bool) -> Asked {
        let implicit = names.is_empty() && may_be_implicit(kind) && (first || (self.wildcard && self.names.is_empty()));
        let mut names: BTreeSet<Arc<str>> = names.into_iter().map(Arc::from).collect();
        let wildcard = names.remove("*") || implicit;
        let asked = Asked {
            renewed: names.difference(&self.names).cloned().collect(),
            dropped: self.names.difference(&names).cloned().collect(),
            wildcard: match (self.wildcard, wildcard) {
                (false, true) => Wildcard::Begins,
                (true, false) => Wildcard::Ends,
                _ => Wildcard::AsBefore,
            },
        };
        *self = Self { wildcard, names };
        asked
    }
}
