//! Who was woken and has not said so yet. A root hears of its wake when all held requests have tried again, because only
//! then it is known what they still need.

use std::collections::{BTreeSet, HashMap};

use tollgate_filter::stream::Callback;

#[derive(Debug, Default)]
pub struct Wakes {
    by_number: HashMap<u64, Wake>,
    last: u64,
}

#[derive(Debug)]
struct Wake {
    woken: Woken,
    streams: BTreeSet<u64>,
}

/// All of a wake have tried again: the root of this configuration is to hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Woken {
    pub plugin: u32,
    pub callback: Callback,
}

// === impl Wakes ===

impl Wakes {
    /// Begins a wake of these streams. Returns its number. None: there are no streams.
    pub fn begin(&mut self, plugin: u32, callback: Callback, streams: impl Iterator<Item = u64>) -> Option<u64> {
        let streams: BTreeSet<u64> = streams.collect();
        if streams.is_empty() {
            return None;
        }
        self.last += 1;
        self.by_number.insert(self.last, Wake { woken: Woken { plugin, callback }, streams });
        Some(self.last)
    }

    /// What streams are to be told in this wake.
    pub fn callback(&self, wake: u64) -> Option<Callback> {
        self.by_number.get(&wake).map(|wake| wake.woken.callback)
    }

    /// The stream has tried again.
    pub fn tried(&mut self, wake: u64, stream: u64) -> Option<Woken> {
        let waited = self.by_number.get_mut(&wake)?;
        waited.streams.remove(&stream);
        waited.streams.is_empty().then(|| self.by_number.remove(&wake)).flatten().map(|wake| wake.woken)
    }

    /// The stream is gone, so nobody waits for it.
    pub fn gone(&mut self, stream: u64) -> Vec<Woken> {
        let wakes: Vec<u64> = self.by_number.keys().copied().collect();
        wakes.into_iter().filter_map(|wake| self.tried(wake, stream)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn woken(plugin: u32) -> Woken {
        Woken { plugin, callback: Callback::LedgerAnswered }
    }

    #[test]
    fn a_wake_is_over_when_the_last_one_has_tried() {
        let mut wakes = Wakes::default();
        let wake = wakes.begin(7, Callback::LedgerAnswered, [1, 2].into_iter()).unwrap();
        assert_eq!(wakes.callback(wake), Some(Callback::LedgerAnswered));
        assert_eq!(wakes.tried(wake, 1), None);
        assert_eq!(wakes.tried(wake, 1), None, "it counts once");
        assert_eq!(wakes.tried(wake, 3), None, "it is of no wake");
        assert_eq!(wakes.tried(wake, 2), Some(woken(7)));
        assert_eq!((wakes.tried(wake, 2), wakes.callback(wake)), (None, None));
    }

    #[test]
    fn nobody_waits_for_who_is_gone() {
        let mut wakes = Wakes::default();
        let one = wakes.begin(1, Callback::LedgerAnswered, [1].into_iter()).unwrap();
        let other = wakes.begin(2, Callback::LedgerAnswered, [1, 2].into_iter()).unwrap();
        assert_ne!(one, other);
        assert_eq!(wakes.gone(1), [woken(1)]);
        assert_eq!(wakes.gone(2), [woken(2)]);
        assert_eq!(wakes.gone(2), []);
    }

    #[test]
    fn without_streams_there_is_no_wake() {
        assert_eq!(Wakes::default().begin(1, Callback::Tick, std::iter::empty()), None);
    }
}
