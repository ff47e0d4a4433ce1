//! Whose status is written next. It is pure: objects and times go in, objects come out.
//!
//! An object is in it once, however often it changed. Few are written at once and not many in a second, because a start
//! with ten thousand routes must leave the API server to others. What fails comes again later and later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::report::Whose;

/// So many are written at once.
const AT_ONCE: usize = 8;
/// So many in a second, each by two requests.
const PER_SECOND: f64 = 50.0;
/// So many may come before that counts.
const BURST: f64 = 100.0;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Queue {
    waiting: BTreeSet<Whose>,
    /// Being written. True: it is to be written again.
    running: BTreeMap<Whose, bool>,
    later: BTreeMap<Whose, Instant>,
    /// How often each failed since it last did not.
    failures: BTreeMap<Whose, u32>,
    tokens: f64,
    counted_at: Instant,
}

// === impl Queue ===

impl Queue {
    pub fn new(now: Instant) -> Self {
        Self {
            waiting: BTreeSet::new(),
            running: BTreeMap::new(),
            later: BTreeMap::new(),
            failures: BTreeMap::new(),
            tokens: BURST,
            counted_at: now,
        }
    }

    /// It is to be written. One that failed waits for its time all the same.
    pub fn add(&mut self, object: Whose) {
        if let Some(again) = self.running.get_mut(&object) {
            *again = true;
        } else if !self.failures.contains_key(&object) || !self.later.contains_key(&object) {
            self.later.remove(&object);
            self.waiting.insert(object);
        }
    }

    /// It is to be looked at again then.
    pub fn add_later(&mut self, object: Whose, at: Instant) {
        if let Some(again) = self.running.get_mut(&object) {
            *again = true;
            return;
        }
        self.waiting.remove(&object);
        self.later.insert(object, at);
    }

    /// There is nothing to write any more.
    pub fn drop(&mut self, object: &Whose) {
        self.waiting.remove(object);
        self.later.remove(object);
        self.failures.remove(object);
    }

    /// The next one, if one may be written now. It is being written until [`Self::done`] or [`Self::failed`].
    pub fn next(&mut self, now: Instant) -> Option<Whose> {
        let due: Vec<Whose> =
            self.later.iter().filter(|(_, at)| **at <= now).map(|(object, _)| object.clone()).collect();
        for object in due {
            self.later.remove(&object);
            self.waiting.insert(object);
        }
        self.count(now);
        if self.running.len() >= AT_ONCE || self.tokens < 1.0 {
            return None;
        }
        let object = self.waiting.pop_first()?;
        self.tokens -= 1.0;
        self.running.insert(object.clone(), false);
        Some(object)
    }

    /// It says what it should.
    pub fn done(&mut self, object: &Whose) {
        self.failures.remove(object);
        if self.running.remove(object) == Some(true) {
            self.waiting.insert(object.clone());
        }
    }

    pub fn failed(&mut self, object: Whose, now: Instant) {
        self.running.remove(&object);
        let failures = self.failures.entry(object.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(10)).min(LONGEST_PAUSE);
        *failures += 1;
        self.later.insert(object, now + pause);
    }

    /// When [`Self::next`] has something, if nothing else happens.
    pub fn wakes_at(&self) -> Option<Instant> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let enough = self.counted_at + Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / PER_SECOND);
        let first = if self.waiting.is_empty() { self.later.values().min().copied() } else { Some(enough) };
        first.map(|first| first.max(enough))
    }

    fn count(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted_at).as_secs_f64();
        self.tokens = (self.tokens + passed * PER_SECOND).min(BURST);
        self.counted_at = now;
    }
}

#[cfg(test)]
mod tests {
    use tollgate_core::objects::Key;
    use tollgate_core::status::StatusKind;

    use super::*;

    fn route(number: usize) -> Whose {
        (StatusKind::HttpRoute, Key::new("a", format!("{number:05}")))
    }

    #[test]
    fn many_objects_come_at_a_bounded_rate_and_gateways_first() {
        let start = Instant::now();
        let mut queue = Queue::new(start);
        (0..1000).for_each(|number| queue.add(route(number)));
        let gateway = (StatusKind::Gateway, Key::new("z", "z"));
        queue.add(gateway.clone());
        assert_eq!(queue.next(start).unwrap(), gateway);
        assert_eq!(std::iter::from_fn(|| queue.next(start)).count(), AT_ONCE - 1);
        assert_eq!(queue.wakes_at(), None);
        let mut now = start;
        let mut written = 0;
        let mut at_start = 0;
        while written < 1001 {
            for object in queue.running.keys().cloned().collect::<Vec<_>>() {
                queue.done(&object);
                written += 1;
            }
            at_start = if now == start { written } else { at_start };
            if queue.next(now).is_none() {
                now = queue.wakes_at().map_or(now, |at| at.max(now));
            }
        }
        assert_eq!(at_start, 100);
        assert!((17..=19).contains(&(now - start).as_secs()), "{:?}", now - start);
    }

    #[test]
    fn what_changes_while_it_is_written_is_written_once_more() {
        let now = Instant::now();
        let mut queue = Queue::new(now);
        queue.add(route(1));
        queue.add(route(1));
        assert_eq!(queue.next(now), Some(route(1)));
        queue.add(route(1));
        queue.add(route(1));
        assert_eq!(queue.next(now), None);
        queue.done(&route(1));
        assert_eq!(queue.next(now), Some(route(1)));
        queue.done(&route(1));
        assert_eq!((queue.next(now), queue.wakes_at()), (None, None));
    }

    #[test]
    fn what_fails_waits_longer_and_longer_and_holds_up_nobody() {
        let mut now = Instant::now();
        let mut queue = Queue::new(now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            queue.add(route(1));
            let at = queue.wakes_at().unwrap().max(now);
            pauses.push(at - now);
            now = at;
            assert_eq!(queue.next(now), Some(route(1)));
            queue.failed(route(1), now);
        }
        assert!(pauses.is_sorted() && pauses[9] == LONGEST_PAUSE, "{pauses:?}");
        queue.add(route(2));
        assert_eq!(queue.next(now), Some(route(2)));
        assert_eq!(queue.next(now), None);
    }
}
