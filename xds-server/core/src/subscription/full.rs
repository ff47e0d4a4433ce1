//! What a state-of-the-world client has of a type whose responses hold the whole set (LDS, CDS, keys).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::interest::{Asked, Interest, Wildcard};
use super::{Contents, Phase, Refused, Sent, Wanted};
use crate::snapshot::{Resource, ResourceType, Snapshot, Version};

#[derive(Debug, Default)]
pub(super) struct Full {
    /// The last set that the client took. None: it has taken none yet.
    held: Option<Contents>,
    /// The versions of the last set that it refused.
    refused: Option<BTreeMap<Arc<str>, Version>>,
    /// Of all other names the client has what the target has.
    open: BTreeSet<Arc<str>>,
}

// === impl Full ===

impl Full {
    pub(super) fn holds(&self, name: &str, version: Version) -> bool {
        let held = self.held.as_ref().and_then(|held| held.get(name));
        held.is_some_and(|resource| resource.version == version)
    }

    /// The next response is sent even if it is the same again.
    pub(super) fn renew(&mut self) {
        self.held = None;
    }

    /// Whether the client lacks something of this part of the target that it asks for.
    pub(super) fn lacks_some(&self, kind: ResourceType, part: &Snapshot) -> bool {
        let lacks = |name: &str| part.get(kind, name).is_some_and(|resource| !self.holds(name, resource.version));
        match self.held {
            None => part.of(kind).next().is_some(),
            Some(_) => self.open.iter().any(|name| lacks(name)),
        }
    }

    pub(super) fn refuses_some(&self) -> bool {
        self.refused.is_some()
    }

    /// There is another target.
    pub(super) fn changed<'a>(&mut self, names: impl Iterator<Item = &'a Arc<str>>, interest: &Interest) {
        self.open.extend(names.filter(|name| interest.covers(name)).cloned());
    }

    /// The client asks for something else.
    pub(super) fn asked(&mut self, asked: &Asked, wanted: Wanted<'_>) {
        self.open.extend(asked.renewed.iter().chain(&asked.dropped).cloned());
        if asked.wildcard != Wildcard::AsBefore {
            self.open.extend(wanted.all().map(|(name, _)| Arc::clone(name)));
            self.open.extend(self.held.iter().flat_map(|held| held.keys()).cloned());
        }
    }

    /// For additions the response is the old and the new set together, so that it keeps what is to go. For removals it
    /// is the new set alone.
    pub(super) fn next(&mut self, phase: Phase, wanted: Wanted<'_>) -> Option<Sent> {
        if phase == Phase::Awaited {
            return None;
        }
        if let Some(held) = &self.held {
            self.open.retain(|name| held.get(name).map(|resource| resource.version) != wanted.version(name));
            if self.open.is_empty() {
                self.refused = None;
                return None;
            }
        }
        let mut set: BTreeMap<_, _> =
            wanted.all().map(|(name, resource)| (Arc::clone(name), Arc::clone(resource))).collect();
        for (name, resource) in self.held.iter().flat_map(|held| held.iter()) {
            if phase == Phase::Additions || wanted.leaves(name) {
                set.entry(Arc::clone(name)).or_insert_with(|| Arc::clone(resource));
            }
        }
        let versions = versions(&set);
        let same = self.held.as_ref().is_some_and(|held| self::versions(held) == versions);
        if same {
            self.refused = None;
        }
        let refused = self.refused.as_ref() == Some(&versions);
        (!same && !refused).then(|| Sent { resources: Arc::new(set), ..Sent::default() })
    }

    pub(super) fn accepted(&mut self, sent: Sent) {
        self.held = Some(sent.resources);
        self.refused = None;
    }

    /// Envoy takes the sound resources of a refused set, so sending the set in parts would help nobody.
    pub(super) fn refused(&mut self, sent: Sent) -> Refused {
        self.refused = Some(versions(&sent.resources));
        Refused::ForGood
    }
}

fn versions(set: &BTreeMap<Arc<str>, Arc<Resource>>) -> BTreeMap<Arc<str>, Version> {
    set.iter().map(|(name, resource)| (Arc::clone(name), resource.version)).collect()
}
