//! The names below a prefix model that usage is kept under. Clients make them up, so their number is bounded.

use std::collections::{BTreeMap, BTreeSet};

/// The most names of one consumer on one UTC day. Whoever really uses a prefix asks for a few models below it. Further
/// names are counted in the row of the prefix.
pub const ASKED_NAMES: usize = 32;
/// The most bytes of such a name. A filter sends no longer ones.
pub const MAX_ASKED_NAME: usize = 64;

/// One name that is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asked {
    /// Days since the epoch.
    pub day: u64,
    pub consumer: String,
    pub name: String,
}

/// The names of one day.
#[derive(Debug, Default)]
pub(super) struct AskedNames {
    day: u64,
    names: BTreeMap<String, BTreeSet<String>>,
}

/// What becomes of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Already,
    New,
    /// There are too many already.
    No,
}

// === impl AskedNames ===

impl AskedNames {
    /// Goes on with the names of the last day that was stored.
    pub fn new(stored: &BTreeSet<Asked>) -> Self {
        let day = stored.last().map_or(0, |asked| asked.day);
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for asked in stored.iter().filter(|asked| asked.day == day) {
            names.entry(asked.consumer.clone()).or_default().insert(asked.name.clone());
        }
        Self { day, names }
    }

    pub fn keep(&mut self, asked: &Asked) -> Kept {
        if self.day != asked.day {
            *self = Self { day: asked.day, names: BTreeMap::new() };
        }
        let names = self.names.entry(asked.consumer.clone()).or_default();
        if names.contains(&asked.name) {
            Kept::Already
        } else if names.len() < ASKED_NAMES {
            names.insert(asked.name.clone());
            Kept::New
        } else {
            Kept::No
        }
    }
}
