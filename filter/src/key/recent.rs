//! The callers that a worker has looked up a moment ago. A key that is used often costs its hash and one look-up in the
//! worker's own memory. Reading and decoding the shared record at each request would cost more than all else about keys.

use std::{collections::HashMap, rc::Rc};

use super::{Caller, InvalidKey, Proof, look_up};
use crate::host::Shared;

/// What was looked up is believed for this time. A key that is removed or changed acts that much later.
const FRESH_MS: u64 = 100;
/// The most callers that are kept.
const MAX_CALLERS: usize = 1024;

/// Callers by what they showed, all of one generation of the table.
#[derive(Debug, Default)]
pub struct Recent {
    callers: HashMap<Proof, Rc<Caller>>,
    generation: u32,
    /// Unix milliseconds of the first look-up.
    since: u64,
}

// === impl Recent ===

impl Recent {
    /// Looks a caller up, in the table only if it was not looked up a moment ago. Proofs without a caller are not kept, so
    /// nobody can fill this with made-up ones.
    pub fn look_up(
        &mut self,
        shared: &dyn Shared,
        proof: Proof,
        generation: u32,
        now: u64,
    ) -> Result<Rc<Caller>, InvalidKey> {
        // The clock may have been set back.
        let is_fresh = (self.since..self.since.saturating_add(FRESH_MS)).contains(&now);
        if !is_fresh || self.generation != generation || self.callers.len() >= MAX_CALLERS {
            self.callers.clear();
            (self.generation, self.since) = (generation, now);
        }
        if let Some(caller) = self.callers.get(&proof) {
            return if caller.is_expired(now) { Err(InvalidKey::Expired) } else { Ok(caller.clone()) };
        }
        let caller = Rc::new(look_up(shared, &proof, generation, now)?);
        self.callers.insert(proof, caller.clone());
        Ok(caller)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tollgate_proto::v1::ApiKey;

    use super::*;
    use crate::{
        host::FakeShared,
        key::{record, tombstone},
    };

    const NOW: u64 = 1_000_000;

    fn hash(key: &str) -> Proof {
        Proof::of_key(key.as_bytes())
    }

    fn put(shared: &FakeShared, key: &str, consumer: &str, not_after: i64) {
        let value = ApiKey { consumer: consumer.into(), not_after, ..Default::default() }.encode_to_vec();
        shared.set(&hash(key).record(), &record(1, &value), None).unwrap();
    }

    fn remove(shared: &FakeShared, key: &str) {
        shared.set(&hash(key).record(), &tombstone(), None).unwrap();
    }

    #[test]
    fn a_removed_key_acts_for_a_moment_at_most() {
        let (shared, mut recent) = (FakeShared::default(), Recent::default());
        put(&shared, "a", "app", 0);
        assert_eq!(&*recent.look_up(&shared, hash("a"), 1, NOW).unwrap().consumer, "app");
        remove(&shared, "a");
        assert!(recent.look_up(&shared, hash("a"), 1, NOW + FRESH_MS - 1).is_ok());
        assert_eq!(recent.look_up(&shared, hash("a"), 1, NOW + FRESH_MS), Err(InvalidKey::Unknown));
    }

    #[test]
    fn use_does_not_keep_a_caller_fresh() {
        let (shared, mut recent) = (FakeShared::default(), Recent::default());
        put(&shared, "a", "app", 0);
        recent.look_up(&shared, hash("a"), 1, NOW).unwrap();
        put(&shared, "a", "other", 0);
        for later in 1..FRESH_MS {
            assert_eq!(&*recent.look_up(&shared, hash("a"), 1, NOW + later).unwrap().consumer, "app");
        }
        assert_eq!(&*recent.look_up(&shared, hash("a"), 1, NOW + FRESH_MS).unwrap().consumer, "other");
    }

    #[test]
    fn another_generation_or_a_clock_set_back_looks_anew() {
        for (generation, now) in [(2, NOW), (1, NOW - 1)] {
            let (shared, mut recent) = (FakeShared::default(), Recent::default());
            put(&shared, "a", "app", 0);
            recent.look_up(&shared, hash("a"), 1, NOW).unwrap();
            remove(&shared, "a");
            assert!(recent.look_up(&shared, hash("a"), generation, now).is_err(), "{generation} {now}");
        }
    }

    #[test]
    fn an_expired_key_is_refused_at_once() {
        let (shared, mut recent) = (FakeShared::default(), Recent::default());
        let ends = i64::try_from(NOW / 1000).unwrap();
        put(&shared, "a", "app", ends);
        assert!(recent.look_up(&shared, hash("a"), 1, NOW + 990).is_ok());
        assert!(recent.look_up(&shared, hash("a"), 1, NOW + 999).is_ok());
        assert_eq!(recent.look_up(&shared, hash("a"), 1, NOW + 1000), Err(InvalidKey::Expired));
    }

    #[test]
    fn only_so_many_callers_are_kept_and_no_unknown_key() {
        let (shared, mut recent) = (FakeShared::default(), Recent::default());
        for number in 0..MAX_CALLERS + 10 {
            let key = number.to_string();
            assert!(recent.look_up(&shared, hash(&key), 1, NOW).is_err());
            put(&shared, &key, "app", 0);
            assert!(recent.look_up(&shared, hash(&key), 1, NOW).is_ok());
        }
        assert_eq!(recent.callers.len(), 10);
    }
}
