//! What is to be looked at in a cluster, and when: soon after it has changed, and later each time that it fails.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub struct Agenda<K> {
    due: BTreeMap<K, Instant>,
    failures: BTreeMap<K, u32>,
}

/// Changes come in bursts.
const TOGETHER: Duration = Duration::from_millis(20);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_AT_MOST: Duration = Duration::from_secs(60);

// === impl Agenda ===

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), failures: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Agenda<K> {
    /// It has changed. What is due already stays due when it is.
    pub fn add(&mut self, key: K, now: Instant) {
        self.due.entry(key).or_insert(now + TOGETHER);
    }

    /// When the next one is due. None: nothing is.
    pub fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// Those that are due now. They stay so until they are begun.
    pub fn due(&self, now: Instant) -> Vec<K> {
        self.due.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect()
    }

    pub fn begin(&mut self, key: &K) {
        self.due.remove(key);
    }

    pub fn done(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// It is tried again, each time after twice as long.
    pub fn failed(&mut self, key: K, now: Instant) {
        let failures = self.failures.entry(key.clone()).or_default();
        let wait = RETRY_AT_MOST.min(RETRY * 2u32.saturating_pow(*failures));
        *failures = failures.saturating_add(1).min(10);
        self.due.insert(key, now + wait);
    }

    /// Forgets all others.
    pub fn retain(&mut self, is_there: impl Fn(&K) -> bool) {
        self.due.retain(|key, _| is_there(key));
        self.failures.retain(|key, _| is_there(key));
    }
}

#[cfg(test)]
mod tests {
    use tollgate_core::objects::Key;

    use super::*;

    #[test]
    fn what_fails_is_tried_later_each_time_and_soon_after_it_was_done() {
        let (mut agenda, key, start) = (Agenda::default(), Key::new("a", "b"), Instant::now());
        assert_eq!(agenda.next(), None);
        agenda.add(key.clone(), start);
        let due = start + TOGETHER;
        assert_eq!((agenda.next(), agenda.due(start)), (Some(due), Vec::new()));
        agenda.add(key.clone(), due);
        assert_eq!(agenda.due(due), std::slice::from_ref(&key), "it is not put off");
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            agenda.begin(&key);
            assert_eq!(agenda.next(), None);
            agenda.failed(key.clone(), start);
            assert_eq!(agenda.next(), Some(start + Duration::from_secs(seconds)));
        }
        agenda.done(&key);
        agenda.failed(key.clone(), start);
        assert_eq!(agenda.next(), Some(start + RETRY));
        agenda.retain(|_| false);
        assert_eq!(agenda.next(), None);
        agenda.failed(key, start);
        assert_eq!(agenda.next(), Some(start + RETRY), "nothing is known of it any more");
    }
}
