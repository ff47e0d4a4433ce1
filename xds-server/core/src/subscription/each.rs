//! What a client has, resource by resource, and the difference to what it wants.
//!
//! Most of it needs no memory: the client has what the target has. Only names of which that is not so, or not for sure,
//! have an entry here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::interest::{Asked, Wildcard};
use super::{Phase, Refused, Sent, Wanted};
use crate::snapshot::{Resource, ResourceType, Snapshot, Version};

#[derive(Debug)]
pub(super) struct Each {
    open: BTreeMap<Arc<str>, Entry>,
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
    client: Held,
    /// The version that the client does not take.
    refused: Option<Version>,
    /// The resource was in a refused response with others, so next time it is sent by itself.
    alone: bool,
}

/// The client's copy of a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Held {
    #[default]
    Unknown,
    Missing,
    Some(Version),
    /// A version that no resource has.
    Other,
}

/// What is to be done about an open name.
enum Task<'a> {
    Send(&'a Arc<str>, &'a Arc<Resource>),
    /// The client waits for it, but there is no such resource. Telling it so breaks nothing, so it is told at once.
    TellMissing,
    /// The client has it and should not have it any more.
    Remove,
    /// Nothing now, but what is known of it counts later.
    Remember,
    /// Nothing. The client has what the target has.
    Close,
}

// === impl Each ===

impl Each {
    pub(super) fn delta() -> Self {
        Self { open: BTreeMap::new(), wording: Wording::Removed { greeted: false } }
    }

    pub(super) fn by_name() -> Self {
        Self { open: BTreeMap::new(), wording: Wording::Silence }
    }

    pub(super) fn holds(&self, name: &str, version: Version, target: Wanted<'_>) -> bool {
        match self.open.get(name) {
            Some(entry) => entry.has(version),
            None => target.version(name) == Some(version),
        }
    }

    /// Whether the client lacks something of this part of the target that it asks for.
    pub(super) fn lacks_some(&self, kind: ResourceType, part: &Snapshot) -> bool {
        self.open_of(kind, part).any(|(entry, resource)| !entry.has(resource.version))
    }

    pub(super) fn refuses_some(&self, kind: ResourceType, target: &Snapshot) -> bool {
        self.open_of(kind, target).any(|(entry, resource)| entry.refuses(resource.version))
    }

    /// The open names that there are in the snapshot.
    fn open_of<'a>(
        &'a self,
        kind: ResourceType,
        snapshot: &'a Snapshot,
    ) -> impl Iterator<Item = (&'a Entry, &'a Resource)> {
        self.open.iter().filter_map(move |(name, entry)| snapshot.get(kind, name).map(|resource| (entry, resource)))
    }

    /// There is another target. `before` is what was wanted until now.
    pub(super) fn changed<'a>(&mut self, names: impl Iterator<Item = &'a Arc<str>>, before: Wanted<'_>) {
        for name in names.filter(|name| before.interest.covers(name)) {
            if !self.open.contains_key(name) {
                let client = self.wording.copy_of_closed(name, before);
                self.open.insert(Arc::clone(name), Entry { client, ..Entry::default() });
            }
        }
    }

    /// The client asks for something else. `initial` is what it says to have.
    pub(super) fn asked(&mut self, asked: &Asked, initial: BTreeMap<String, String>, wanted: Wanted<'_>) {
        for name in &asked.renewed {
            self.open.insert(Arc::clone(name), Entry::default());
        }
        match asked.wildcard {
            Wildcard::AsBefore | Wildcard::Again => {}
            Wildcard::Begins => {
                let before = |name: &Arc<str>| wanted.interest.is_named(name) || asked.dropped.contains(name);
                for (name, _) in wanted.all().filter(|(name, _)| !before(name)) {
                    self.open.entry(Arc::clone(name)).or_default();
                }
            }
            Wildcard::Ends => self.open.retain(|name, _| wanted.interest.covers(name)),
        }
        if let (Wording::Removed { greeted }, true) = (&mut self.wording, asked.wildcard != Wildcard::AsBefore) {
            *greeted = false;
        }
        for name in asked.renewed.iter().chain(&asked.dropped).filter(|name| !wanted.interest.covers(name)) {
            self.open.remove(name);
        }
        for (name, version) in initial {
            if wanted.interest.covers(&name) {
                let name = wanted.entry(&name).map_or_else(|| name.into(), |(name, _)| Arc::clone(name));
                self.open.insert(
                    name,
                    Entry { client: Version::parse(&version).map_or(Held::Other, Held::Some), ..Entry::default() },
                );
            }
        }
    }

    pub(super) fn next(&mut self, phase: Phase, wanted: Wanted<'_>) -> Option<Sent> {
        let sent = match phase {
            Phase::Awaited if !wanted.interest.names_some() => return None,
            Phase::Awaited | Phase::Additions => self.additions(phase, wanted),
            Phase::Removals => Sent { removed: self.gone(wanted), ..Sent::default() },
        };
        let empty = sent.resources.is_empty() && sent.removed.is_empty();
        if let Wording::Removed { greeted } = &mut self.wording
            && wanted.interest.is_wildcard()
            && phase == Phase::Additions
            && !std::mem::replace(greeted, true)
        {
            return Some(sent);
        }
        (!empty).then_some(sent)
    }

    /// On the way, names that need no more looks are closed.
    fn additions(&mut self, phase: Phase, wanted: Wanted<'_>) -> Sent {
        let mut sent = Sent::default();
        let mut closed = Vec::new();
        for (name, entry) in &self.open {
            let is_awaited = || entry.client == Held::Unknown && wanted.interest.is_named(name);
            match self.wording.task(name, entry, wanted) {
                Task::Send(..) if phase == Phase::Awaited && !is_awaited() => {}
                Task::Send(name, resource) if entry.alone => {
                    let resources = BTreeMap::from([(Arc::clone(name), Arc::clone(resource))]);
                    sent = Sent { resources: Arc::new(resources), ..Sent::default() };
                    break;
                }
                Task::Send(name, resource) => {
                    Arc::make_mut(&mut sent.resources).insert(Arc::clone(name), Arc::clone(resource));
                }
                Task::TellMissing => {
                    sent.removed.insert(Arc::clone(name));
                }
                Task::Remove | Task::Remember => {}
                Task::Close => closed.push(Arc::clone(name)),
            }
        }
        for name in closed {
            self.open.remove(&name);
        }
        sent
    }

    fn gone(&self, wanted: Wanted<'_>) -> BTreeSet<Arc<str>> {
        let gone =
            self.open.iter().filter(|(name, entry)| matches!(self.wording.task(name, entry, wanted), Task::Remove));
        gone.map(|(name, _)| Arc::clone(name)).collect()
    }

    pub(super) fn accepted(&mut self, sent: Sent, wanted: Wanted<'_>) {
        for (name, resource) in sent.resources.iter() {
            if wanted.version(name) == Some(resource.version) {
                self.open.remove(name);
            } else {
                let client = Held::Some(resource.version);
                self.open.insert(Arc::clone(name), Entry { client, ..Entry::default() });
            }
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
        for (name, resource) in sent.resources.iter() {
            let entry = self.open.entry(Arc::clone(name)).or_default();
            entry.alone = several;
            if !several {
                entry.refused = Some(resource.version);
            }
        }
        if several { Refused::OneOfThem } else { Refused::ForGood }
    }

    pub(super) fn retry(&mut self) {
        for entry in self.open.values_mut() {
            entry.refused = None;
        }
    }

    /// What the client has of these is not known any more, except that it may have them.
    pub(super) fn renew(&mut self, which: impl Fn(&str) -> bool, wanted: Wanted<'_>) {
        for (name, _) in wanted.all().filter(|(name, _)| which(name)) {
            let client = self.wording.copy_of_closed(name, wanted);
            self.open.entry(Arc::clone(name)).or_insert_with(|| Entry { client, ..Entry::default() });
        }
        for (_, entry) in self.open.iter_mut().filter(|(name, _)| which(name)) {
            if let Held::Some(_) = entry.client {
                entry.client = Held::Other;
            }
        }
    }

    fn removed(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        for name in names {
            self.open.insert(name, Entry { client: Held::Missing, ..Entry::default() });
        }
    }
}

// === impl Wording ===

impl Wording {
    /// What the client has of a name that is not open.
    fn copy_of_closed(&self, name: &str, wanted: Wanted<'_>) -> Held {
        match (wanted.version(name), self) {
            (Some(version), _) => Held::Some(version),
            (None, Self::Removed { .. }) if wanted.interest.is_named(name) => Held::Missing,
            (None, _) => Held::Unknown,
        }
    }

    fn task<'a>(&self, name: &str, entry: &Entry, wanted: Wanted<'a>) -> Task<'a> {
        match (wanted.entry(name), &entry.client, self) {
            (Some((_, resource)), _, _) if entry.has(resource.version) => {
                if entry.refused.is_none() && !entry.alone {
                    Task::Close
                } else {
                    Task::Remember
                }
            }
            (Some((_, resource)), _, _) if entry.refuses(resource.version) => Task::Remember,
            (Some((name, resource)), _, _) => Task::Send(name, resource),
            (None, Held::Some(_) | Held::Other, Self::Removed { .. }) if wanted.leaves(name) => Task::Remember,
            (None, Held::Some(_) | Held::Other, Self::Removed { .. }) => Task::Remove,
            (None, Held::Some(_) | Held::Other, Self::Silence) => Task::Remember,
            (None, Held::Unknown, Self::Removed { .. }) if wanted.interest.is_named(name) => Task::TellMissing,
            (None, Held::Unknown | Held::Missing, _) => entry.close(),
        }
    }
}

// === impl Entry ===

impl Entry {
    fn has(&self, version: Version) -> bool {
        self.client == Held::Some(version)
    }

    fn refuses(&self, version: Version) -> bool {
        self.refused == Some(version)
    }

    /// The name can be closed, unless a refusal is to be remembered.
    fn close<'a>(&self) -> Task<'a> {
        if self.refused.is_none() && !self.alone { Task::Close } else { Task::Remember }
    }
}
