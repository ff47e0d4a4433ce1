//! Sets of what calls can name. A change of one among 100,000 copies a small part of the set, and what two sets have in
//! common is told without a look into it.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// Something that an entry of a call can name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Thing {
    /// By id.
    Limit(Arc<str>),
    /// By the display name of the HTTPRoute.
    Route(Arc<str>),
    /// By its display name.
    Consumer(Arc<str>),
}

/// Clones share their parts, and so do the scopes that have the same and configurations that follow each other.
#[derive(Clone)]
pub struct Things {
    /// A thing is in the part that its hash says. No parts: nothing was ever there.
    parts: Arc<[Part]>,
}

type Part = Arc<BTreeSet<Thing>>;

/// At 100,000 things a part has some hundred.
const PARTS: usize = 256;

// === impl Thing ===

impl Thing {
    pub fn limit(id: &str) -> Self {
        Self::Limit(id.into())
    }

    pub fn route(name: &str) -> Self {
        Self::Route(name.into())
    }

    pub fn consumer(name: &str) -> Self {
        Self::Consumer(name.into())
    }
}

// === impl Things ===

impl Things {
    pub fn contains(&self, thing: &Thing) -> bool {
        self.parts.get(part(thing)).is_some_and(|part| part.contains(thing))
    }

    /// Adds things and takes others out.
    pub fn change(&mut self, changes: impl IntoIterator<Item = (Thing, bool)>) {
        let mut changes = changes.into_iter().filter(|(thing, there)| self.contains(thing) != *there).peekable();
        if changes.peek().is_none() {
            return;
        }
        let changes: Vec<_> = changes.collect();
        if self.parts.is_empty() {
            self.parts = (0..PARTS).map(|_| Arc::default()).collect();
        }
        for (thing, there) in changes {
            if let Some(part) = Arc::make_mut(&mut self.parts).get_mut(part(&thing)) {
                let part = Arc::make_mut(part);
                if there {
                    part.insert(thing)
                } else {
                    part.remove(&thing)
                };
            }
        }
    }

    /// What none of the others has.
    pub fn missing_in<'a>(&'a self, others: &'a [Self]) -> impl Iterator<Item = &'a Thing> {
        let is_shared = move |(index, part): &(usize, &Part)| {
            others.iter().any(|other| other.parts.get(*index).is_some_and(|other| Arc::ptr_eq(part, other)))
        };
        let alone = self.parts.iter().enumerate().filter(move |part| !is_shared(part));
        alone.flat_map(|(_, part)| part.iter()).filter(move |thing| !others.iter().any(|other| other.contains(thing)))
    }
}

impl Things {
    /// None: nothing is in it.
    fn part(&self, index: usize) -> Option<&Part> {
        self.parts.get(index).filter(|part| !part.is_empty())
    }
}

impl Default for Things {
    fn default() -> Self {
        Self { parts: Arc::new([]) }
    }
}

impl PartialEq for Things {
    fn eq(&self, other: &Self) -> bool {
        (0..PARTS).all(|index| self.part(index) == other.part(index))
    }
}

impl Eq for Things {}

impl fmt::Debug for Things {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.parts.iter().flat_map(|part| part.iter())).finish()
    }
}

impl FromIterator<Thing> for Things {
    fn from_iter<T: IntoIterator<Item = Thing>>(all: T) -> Self {
        let mut things = Self::default();
        things.change(all.into_iter().map(|thing| (thing, true)));
        things
    }
}

fn part(thing: &Thing) -> usize {
    // It is the same for all things of one process, and nothing else reads it.
    let mut hasher = DefaultHasher::new();
    thing.hash(&mut hasher);
    usize::try_from(hasher.finish() % PARTS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumers(names: std::ops::Range<u32>) -> Things {
        names.map(|name| Thing::consumer(&name.to_string())).collect()
    }

    fn missing(things: &Things, others: &[Things]) -> Vec<String> {
        let mut all: Vec<_> = things.missing_in(others).map(|thing| format!("{thing:?}")).collect();
        all.sort();
        all
    }

    #[test]
    fn a_change_leaves_the_other_parts_as_they_are() {
        let before = consumers(0..10_000);
        let mut after = before.clone();
        after.change([(Thing::consumer("7"), false), (Thing::consumer("new"), true)]);
        assert!(before.contains(&Thing::consumer("7")) && !before.contains(&Thing::consumer("new")));
        assert!(!after.contains(&Thing::consumer("7")) && after.contains(&Thing::consumer("new")));
        assert!(!after.contains(&Thing::route("8")), "a route is no consumer");
        let others = before.parts.iter().zip(after.parts.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert!((1..=2).contains(&others), "{others} of {PARTS} parts are copied");
        assert_eq!(missing(&before, std::slice::from_ref(&after)), ["Consumer(\"7\")"]);
        assert_eq!(missing(&after, &[before]), ["Consumer(\"new\")"]);
    }

    #[test]
    fn what_is_as_it_was_is_not_copied() {
        let before = consumers(0..10);
        let mut after = before.clone();
        after.change([(Thing::consumer("7"), true), (Thing::consumer("none"), false)]);
        assert!(Arc::ptr_eq(&before.parts, &after.parts));
        let mut nothing = Things::default();
        nothing.change([(Thing::consumer("none"), false)]);
        assert!(nothing.parts.is_empty());
        nothing.change([(Thing::consumer("7"), true)]);
        assert_ne!(nothing, Things::default());
        nothing.change([(Thing::consumer("7"), false)]);
        assert_eq!(nothing, Things::default());
    }

    #[test]
    fn whoever_of_several_has_a_thing_it_is_not_missing() {
        let things = consumers(0..4);
        assert_eq!(missing(&things, &[]).len(), 4);
        assert_eq!(missing(&things, &[consumers(0..2), Things::default(), consumers(3..9)]), ["Consumer(\"2\")"]);
    }
}
