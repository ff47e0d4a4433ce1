//! What a state-of-the-world client has of a type whose responses hold the whole set (LDS, CDS, keys).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Phase, Refused, Sent, interest::Interest};
use crate::snapshot::{Resource, ResourceType, Snapshot};

#[derive(Debug, Default)]
pub(super) struct Full {
    /// The last set that the client took. None: it has taken none yet.
    held: Option<BTreeMap<String, Arc<Resource>>>,
    /// The versions of the last set that it refused.
    refused: Option<BTreeMap<String, String>>,
}

// === impl Full ===

impl Full {
    pub(super) fn holds(&self, name: &str, version: &str) -> bool {
        let held = self.held.as_ref().and_then(|held| held.get(name));
        held.is_some_and(|resource| resource.version == version)
    }

    /// The next response is sent even if it is the same again.
    pub(super) fn renew(&mut self) {
        self.held = None;
    }

    pub(super) fn refuses_any(&self) -> bool {
        self.refused.is_some()
    }

    /// For additions the response is the old and the new set together, so that it keeps what is to go. For removals it
    /// is the new set alone.
    pub(super) fn next(
        &mut self,
        kind: ResourceType,
        phase: Phase,
        interest: &Interest,
        snapshot: &Snapshot,
    ) -> Option<Sent> {
        if phase == Phase::Awaited {
            return None;
        }
        let mut set: BTreeMap<_, _> = snapshot
            .shared_of(kind)
            .filter(|(name, _)| interest.covers(name))
            .map(|(name, resource)| (name.to_owned(), Arc::clone(resource)))
            .collect();
        for (name, resource) in self.held.iter().flatten() {
            if phase == Phase::Additions || snapshot.leaves(kind, name) {
                set.entry(name.clone()).or_insert_with(|| Arc::clone(resource));
            }
        }
        let versions = versions(&set);
        let same = self.held.as_ref().is_some_and(|held| self::versions(held) == versions);
        if same {
            self.refused = None;
        }
        let refused = self.refused.as_ref() == Some(&versions);
        (!same && !refused).then(|| Sent { resources: set, ..Sent::default() })
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

fn versions(set: &BTreeMap<String, Arc<Resource>>) -> BTreeMap<String, String> {
    set.iter().map(|(name, resource)| (name.clone(), resource.version.clone())).collect()
}
