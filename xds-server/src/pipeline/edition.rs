//! What one kind of proxy may have, and what changed in it lately. A stream that has followed so far looks at the changes
//! alone. Streams skip publications, above all when many come at once, so some changes are kept.

use std::collections::VecDeque;
use std::sync::Arc;

use tollgate_core::snapshot::{Changed, Snapshot};
use tollgate_core::subscription::stream::Since;

/// The most changes that are kept, and the most names in them. Whoever is further behind compares whole snapshots.
const CHANGES: usize = 64;
const NAMES: usize = 10_000;

#[derive(Debug, Clone)]
pub struct Edition {
    pub snapshot: Arc<Snapshot>,
    /// The last changes, each with the generation of its publication. The newest is at the end.
    changes: VecDeque<(u64, Arc<Changed>)>,
    /// All changes after this generation are there.
    complete_after: u64,
}

// === impl Edition ===

impl Edition {
    /// There was nothing of it before this generation.
    pub fn first(generation: u64, snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot, changes: VecDeque::new(), complete_after: generation }
    }

    #[must_use]
    pub fn next(&self, generation: u64, snapshot: Arc<Snapshot>, changed: Changed) -> Self {
        let mut next = self.clone();
        next.snapshot = snapshot;
        if changed.is_empty() {
            return next;
        }
        next.changes.push_back((generation, Arc::new(changed)));
        let names = |next: &Self| next.changes.iter().map(|(_, changed)| changed.len()).sum::<usize>();
        while next.changes.len() > CHANGES || names(&next) > NAMES {
            let Some((generation, _)) = next.changes.pop_front() else { break };
            next.complete_after = generation;
        }
        next
    }

    /// What changed since the publication of that generation.
    pub fn since(&self, generation: u64) -> Since {
        if generation < self.complete_after {
            return Since::Unknown;
        }
        let mut changed = Changed::default();
        for (_, later) in self.changes.iter().filter(|(of, _)| *of > generation) {
            changed.merge(later);
        }
        Since::Names(changed)
    }
}

impl Default for Edition {
    /// Nothing. Nobody knows what was there before.
    fn default() -> Self {
        Self::first(u64::MAX, Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use tollgate_core::snapshot::ResourceType;

    use super::*;

    fn changed(names: &[&str]) -> Changed {
        let mut changed = Changed::default();
        changed.add_all(ResourceType::Route, names.iter().map(|name| Arc::from(*name)));
        changed
    }

    #[test]
    fn who_is_not_far_behind_is_told_the_names_of_all_that_changed_since() {
        let mut edition = Edition::first(3, Arc::default());
        for (generation, name) in [(5, "a"), (6, "b"), (9, "c")] {
            edition = edition.next(generation, Arc::default(), changed(&[name]));
        }
        for (seen, names) in [(3, &["a", "b", "c"][..]), (4, &["a", "b", "c"]), (5, &["b", "c"]), (8, &["c"]), (9, &[])]
        {
            assert_eq!(edition.since(seen), Since::Names(changed(names)), "{seen}");
        }
        // At that time it was not there, or it was another one of the same name.
        assert_eq!(edition.since(2), Since::Unknown);
        assert_eq!(Edition::default().since(9), Since::Unknown);
    }

    #[test]
    fn few_changes_are_kept_and_few_names() {
        let mut edition = Edition::first(0, Arc::default());
        for generation in 1..=100 {
            edition = edition.next(generation, Arc::default(), changed(&["a"]));
        }
        assert_eq!(edition.since(35), Since::Unknown);
        assert_eq!(edition.since(36), Since::Names(changed(&["a"])));
        let names: Vec<String> = (0..=NAMES).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let full = edition.next(101, Arc::default(), changed(&names[1..]));
        assert_eq!(full.since(99), Since::Unknown);
        assert_eq!(full.since(100), Since::Names(changed(&names[1..])));
        let too_many = full.next(102, Arc::default(), changed(&names));
        assert_eq!(too_many.since(101), Since::Unknown);
        assert_eq!(too_many.since(102), Since::Names(Changed::default()));
    }
}
