//! What is different between two snapshots: the names of what is new, has another version, or is gone.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Resource, ResourceType, Snapshot};

/// Names by type. It never lacks a difference. It may name something that was changed back since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    names: BTreeMap<ResourceType, BTreeSet<Arc<str>>>,
}

/// What is behind a name is not one and the same.
pub(super) enum Difference {
    New(Arc<str>, Arc<Resource>),
    Replaced { name: Arc<str>, old: Arc<Resource>, new: Arc<Resource> },
    Gone(Arc<str>),
}

// === impl Changed ===

impl Changed {
    /// Compares all of both.
    pub fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let mut changed = Self::default();
        for kind in ResourceType::ALL {
            changed.add_all(kind, between(kind, old, new));
        }
        changed
    }

    pub fn add(&mut self, kind: ResourceType, name: Arc<str>) {
        self.names.entry(kind).or_default().insert(name);
    }

    pub fn add_all(&mut self, kind: ResourceType, names: impl IntoIterator<Item = Arc<str>>) {
        let mut names = names.into_iter().peekable();
        if names.peek().is_some() {
            self.names.entry(kind).or_default().extend(names);
        }
    }

    /// Adds what changed after that.
    pub fn merge(&mut self, later: &Self) {
        for (kind, names) in &later.names {
            self.add_all(*kind, names.iter().cloned());
        }
    }

    pub fn of(&self, kind: ResourceType) -> impl Iterator<Item = &Arc<str>> {
        self.names.get(&kind).into_iter().flatten()
    }

    pub fn iter(&self) -> impl Iterator<Item = (ResourceType, &Arc<str>)> {
        self.names.iter().flat_map(|(kind, names)| names.iter().map(move |name| (*kind, name)))
    }

    pub fn len(&self) -> usize {
        self.names.values().map(BTreeSet::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// What clients see as different in one type.
pub(super) fn between(kind: ResourceType, old: &Snapshot, new: &Snapshot) -> Vec<Arc<str>> {
    let differences = differences(old.shared_of(kind), new.shared_of(kind));
    let changes = differences.filter_map(|difference| match difference {
        Difference::Replaced { old, new, .. } if old.is_same(&new) => None,
        Difference::New(name, _) | Difference::Replaced { name, .. } | Difference::Gone(name) => Some(name),
    });
    changes.collect()
}

/// Goes through both, which are in the order of names. What is one and the same in both is left out.
pub(super) fn differences<'old, 'new>(
    old: impl Iterator<Item = (&'old Arc<str>, &'old Arc<Resource>)>,
    new: impl Iterator<Item = (&'new Arc<str>, &'new Arc<Resource>)>,
) -> impl Iterator<Item = Difference> {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    let pairs = std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (Some((old, _)), Some((new, _))) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let before = if order == Ordering::Greater { None } else { old.next() };
        let after = if order == Ordering::Less { None } else { new.next() };
        (before.is_some() || after.is_some()).then_some((before, after))
    });
    pairs.filter_map(|(before, after)| match (before, after) {
        (None, Some((name, new))) => Some(Difference::New(Arc::clone(name), Arc::clone(new))),
        (Some((name, _)), None) => Some(Difference::Gone(Arc::clone(name))),
        (Some((name, old)), Some((_, new))) if !Arc::ptr_eq(old, new) => {
            Some(Difference::Replaced { name: Arc::clone(name), old: Arc::clone(old), new: Arc::clone(new) })
        }
        _ => None,
    })
}
