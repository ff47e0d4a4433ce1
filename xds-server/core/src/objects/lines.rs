//! Where the fields of an object stand in its file.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Lines of one object, by dotted path (`spec.models[0].name`); the empty path is its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    pub(crate) start: u64,
    pub(crate) below: Arc<Offsets>,
}

/// How far below the start of its object each field stands, by its path. An alias may stand above it. Objects of a file
/// that look the same share theirs.
pub(crate) type Offsets = BTreeMap<Box<str>, i64>;

// === impl Lines ===

impl Lines {
    /// Of an object of which only its first line is known.
    pub fn starting_at(line: u64) -> Self {
        Self { start: line, below: Arc::default() }
    }

    /// Line of the field, or of the closest field around it.
    pub fn of(&self, field: &str) -> u64 {
        let mut path = field;
        loop {
            if let Some(offset) = self.below.get(path) {
                return self.start.saturating_add_signed(*offset);
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None => return self.start,
            }
        }
    }
}
