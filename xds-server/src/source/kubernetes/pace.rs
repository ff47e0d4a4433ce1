//! When changes are read out: at once when nothing more comes for a moment, and now and then while more and more comes.
//! Whoever applies a folder writes many objects one after the other, and each reading has a price.

use std::time::Duration;

use tokio::time::Instant;

/// A writer gets this long from one object to the next.
const QUIET: Duration = Duration::from_millis(5);
/// A burst that never rests is not waited for longer than this.
const AT_MOST: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    #[default]
    Rest,
    /// Changes wait to be read.
    Wait { first: Instant, last: Instant },
}

// === impl Pace ===

impl Pace {
    /// There is a change.
    pub fn note(&mut self, now: Instant) {
        *self = match *self {
            Self::Rest => Self::Wait { first: now, last: now },
            Self::Wait { first, .. } => Self::Wait { first, last: now },
        };
    }

    /// None: nothing waits.
    pub fn due(self) -> Option<Instant> {
        match self {
            Self::Rest => None,
            Self::Wait { first, last } => Some((last + QUIET).min(first + AT_MOST)),
        }
    }

    /// What waited is read.
    pub fn rest(&mut self) {
        *self = Self::Rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_change_waits_for_its_neighbours_and_a_burst_not_for_its_end() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::default();
        assert_eq!(pace.due(), None);
        pace.note(at(0));
        assert_eq!(pace.due(), Some(at(5)));
        pace.note(at(4));
        assert_eq!(pace.due(), Some(at(9)));
        (5..100).for_each(|millis| pace.note(at(millis)));
        assert_eq!(pace.due(), Some(at(50)));
        pace.rest();
        assert_eq!(pace.due(), None);
        pace.note(at(100));
        assert_eq!(pace.due(), Some(at(105)));
    }
}
