//! What a client has, resource by resource, and the difference to a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Phase, Refused, Sent, interest::Interest};
use crate::snapshot::{ResourceType, Snapshot};

#[derive(Debug)]
pub(super) struct Each {
    entries: BTreeMap<String, Entry>,
    wording: Wording,
}

/// How a client learns that a resource does not exist (any more).
#[derive(Debug)]
enum Wording {
    /// Delta says so in `removed_resources`. The first response to a wildcard is sent even when it is empty, because a
    /// client that starts waits for it.
    Removed { greeted: bool },
    /// State of the world cannot say so. The resource that refers to the missing one goes first.
    Silence,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    client: Copy,
    /// The version that the client does not take.
    refused: Option<String>,
    /// The resource was in a refused response with others, so next time it is sent by itself.
    alone: bool,
}

/// The client's copy of a resource.
#[derive(Debug, Clone, Default, PartialEq)]
enum Copy {
    #[default]
    Unknown,
    Missing,
    Has(String),
}

// === impl Each ===

impl Each {
    pub(super) fn delta() -> Self {
        Self { entries: BTreeMap::new(), wording: Wording::Removed { greeted: false } }
    }

    pub(super) fn by_name() -> Self {
        Self { entries: BTreeMap::new(), wording: Wording::Silence }
    }

    pub(super) fn holds(&self, name: &str, version: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| matches!(&entry.client, Copy::Has(has) if has == version))
    }

    pub(super) fn refuses(&self, name: &str, version: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.refuses(version))
    }

    /// `renewed` names were asked for (again) or given up, so nothing is known of them.
    pub(super) fn asked(&mut self, interest: &Interest, renewed: &[String], initial: BTreeMap<String, String>) {
        for name in renewed {
            if name == "*"
                && let Wording::Removed { greeted } = &mut self.wording
            {
                *greeted = false;
            }
            self.entries.remove(name);
        }
        // That a resource is missing is worth remembering only if the client asks for it by name.
        let worth = |name: &str, entry: &Entry| entry.client != Copy::Missing || interest.is_named(name);
        self.entries.retain(|name, entry| interest.covers(name) && worth(name, entry));
        for (name, version) in initial {
            if interest.covers(&name) {
                self.entries.insert(name, Entry { client: Copy::Has(version), ..Entry::default() });
            }
        }
    }

    pub(super) fn next(
        &mut self,
        kind: ResourceType,
        phase: Phase,
        interest: &Interest,
        snapshot: &Snapshot,
    ) -> Option<Sent> {
        let sent = match phase {
            Phase::Awaited => {
                let awaited = |name: &str| interest.is_named(name) && !self.is_known(name);
                self.additions(kind, interest, snapshot, awaited)
            }
            Phase::Additions => self.additions(kind, interest, snapshot, |_| true),
            Phase::Removals => Sent { removed: self.gone(kind, snapshot), ..Sent::default() },
        };
        let empty = sent.resources.is_empty() && sent.removed.is_empty();
        if let Wording::Removed { greeted } = &mut self.wording
            && interest.is_wildcard()
            && phase == Phase::Additions
            && !std::mem::replace(greeted, true)
        {
            return Some(sent);
        }
        (!empty).then_some(sent)
    }

    fn is_known(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.client != Copy::Unknown)
    }

    fn additions(
        &self,
        kind: ResourceType,
        interest: &Interest,
        snapshot: &Snapshot,
        wanted: impl Fn(&str) -> bool,
    ) -> Sent {
        let mut sent = Sent::default();
        for (name, resource) in snapshot.shared_of(kind).filter(|(name, _)| interest.covers(name) && wanted(name)) {
            let entry = self.entries.get(name);
            if entry.is_some_and(|entry| entry.is_done_with(&resource.version)) {
                continue;
            }
            if entry.is_some_and(|entry| entry.alone) {
                return Sent {
                    resources: BTreeMap::from([(name.to_owned(), Arc::clone(resource))]),
                    ..Sent::default()
                };
            }
            sent.resources.insert(name.to_owned(), Arc::clone(resource));
        }
        // A client may wait for a resource that does not exist. Telling it so breaks nothing, so it is told at once.
        if matches!(self.wording, Wording::Removed { .. }) {
            let missing = interest.names().filter(|name| snapshot.get(kind, name).is_none() && !self.is_known(name));
            sent.removed.extend(missing.map(str::to_owned));
        }
        sent
    }

    /// What the client has and should not have any more.
    fn gone(&self, kind: ResourceType, snapshot: &Snapshot) -> BTreeSet<String> {
        if matches!(self.wording, Wording::Silence) {
            return BTreeSet::new();
        }
        let has = |entry: &Entry| matches!(entry.client, Copy::Has(_));
        let stays = |name: &str| snapshot.get(kind, name).is_some() || snapshot.leaves(kind, name);
        let gone = self.entries.iter().filter(|(name, entry)| has(entry) && !stays(name));
        gone.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn accepted(&mut self, sent: Sent) {
        for (name, resource) in sent.resources {
            let client = Copy::Has(resource.version.clone());
            self.entries.insert(name, Entry { client, ..Entry::default() });
        }
        self.removed(sent.removed);
    }

    pub(super) fn refused(&mut self, sent: Sent) -> Refused {
        if sent.resources.is_empty() {
            // A removal alone cannot be wrong, and sending it again would not help.
            self.removed(sent.removed);
            return Refused::ForGood;
        }
        let several = sent.resources.len() + sent.removed.len() > 1;
        for (name, resource) in sent.resources {
            let entry = self.entries.entry(name).or_default();
            entry.alone = several;
            if !several {
                entry.refused = Some(resource.version.clone());
            }
        }
        if several { Refused::OneOfThem } else { Refused::ForGood }
    }

    pub(super) fn retry(&mut self) {
        for entry in self.entries.values_mut() {
            entry.refused = None;
        }
    }

    /// What the client has of these is not known any more, except that it may have them.
    pub(super) fn renew(&mut self, which: impl Fn(&str) -> bool) {
        for (_, entry) in self.entries.iter_mut().filter(|(name, _)| which(name)) {
            if let Copy::Has(version) = &mut entry.client {
                version.clear();
            }
        }
    }

    fn removed(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            self.entries.insert(name, Entry { client: Copy::Missing, ..Entry::default() });
        }
    }
}

// === impl Entry ===

impl Entry {
    fn refuses(&self, version: &str) -> bool {
        self.refused.as_deref() == Some(version)
    }

    fn is_done_with(&self, version: &str) -> bool {
        self.refuses(version) || matches!(&self.client, Copy::Has(has) if has == version)
    }
}
