//! The roll of a process's workers, in shared data. Each worker signs at its ticks and lists the buckets that it uses
//! or has taken tokens from. A worker whose VM has died (of a panic, or without memory) signs no more. Another worker
//! then charges what the dead one had taken, so that these tokens are not missing from the lease until the window ends.

use std::{collections::HashMap, rc::Rc};

use prost::Message as _;
use tollgate_proto::v1 as wire;

use crate::{
    budget::{Bucket, Lease, Release},
    host::{Shared, read_u64, update},
    worker::WORKERS,
};

/// A worker that has not signed for so long is dead. Longer than any configuration blocks an event loop,
/// shorter than the time to live of a lease.
const DEAD_MS: u64 = 10_000;

/// This worker's part in the roll.
#[derive(Debug, Default)]
pub struct Roll {
    /// Names of the buckets that were listed last.
    listed: Vec<Rc<str>>,
}

/// What a look at the roll has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// How many workers live, the main thread's and this one included.
    pub living: u64,
    /// How many were found dead.
    pub buried: u64,
    /// Tokens that these had taken.
    pub taken: Vec<(Bucket, Release)>,
}

/// How a worker has signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Never, or it is buried.
    Absent,
    Living,
    /// This caller has to bury it. Nobody else has to.
    Dead,
}

/// What a worker lists.
#[derive(Clone, PartialEq, prost::Message)]
struct Listed {
    #[prost(message, repeated, tag = "1")]
    buckets: Vec<wire::Bucket>,
}

// === impl Roll ===

impl Roll {
    /// Signs for this worker, and lists the buckets that it uses if they have changed.
    pub fn sign(&mut self, shared: &dyn Shared, me: u64, now: u64, uses: &HashMap<Rc<str>, Bucket>) {
        if me == 0 {
            return;
        }
        let same = self.listed.len() == uses.len() && self.listed.iter().all(|key| uses.contains_key(key));
        if !same {
            let listed = Listed { buckets: uses.values().map(Bucket::wire).collect() };
            // A worker alone writes this record of its own, so nobody's change is lost.
            let _ = shared.set(&listed_by(me), &listed.encode_to_vec(), None);
            self.listed = uses.keys().cloned().collect();
        }
        let _ = shared.set(&signed_by(me), &now.to_le_bytes(), None);
    }

    /// Calls the roll, and takes over from dead workers. Only one worker gets a dead one, and only once.
    pub fn call(&self, shared: &dyn Shared, me: u64, now: u64) -> Called {
        let workers = shared.get(WORKERS).map_or(0, |(record, _)| read_u64(&record));
        let mut called = Called { living: 1, ..Called::default() };
        for worker in (1..=workers).filter(|worker| *worker != me) {
            match sign_of(shared, worker, now) {
                Sign::Absent => {}
                Sign::Living => called.living += 1,
                Sign::Dead => {
                    called.buried += 1;
                    called.taken.extend(inherited(shared, worker, me, now));
                }
            }
        }
        called
    }
}

/// Whoever finds a dead worker clears its record.
fn sign_of(shared: &dyn Shared, worker: u64, now: u64) -> Sign {
    let Some((record, version)) = shared.get(&signed_by(worker)) else {
        return Sign::Absent;
    };
    match read_u64(&record) {
        0 => Sign::Absent,
        signed if now < signed.saturating_add(DEAD_MS) => Sign::Living,
        _ if shared.set(&signed_by(worker), &[0; 8], Some(version)).is_ok() => Sign::Dead,
        // It has signed meanwhile, or another worker buries it.
        _ => Sign::Living,
    }
}

/// What a dead worker had taken. It is noted under the heir until the ledger has heard of it.
fn inherited(shared: &dyn Shared, dead: u64, heir: u64, now: u64) -> Vec<(Bucket, Release)> {
    let listed = shared.get(&listed_by(dead)).and_then(|(record, _)| Listed::decode(record.as_slice()).ok());
    let mut all = Vec::new();
    for bucket in listed.unwrap_or_default().buckets {
        let bucket = Bucket::new(bucket.limit.into(), bucket.scope);
        let taken = update(shared, &bucket.key, now, |record| {
            let mut lease = Lease::decode(record);
            let taken = lease.inherit(dead, heir);
            ((!taken.is_empty()).then(|| lease.encode()), taken)
        });
        all.extend(taken.unwrap_or_default().into_iter().map(|tokens| (bucket.clone(), tokens)));
    }
    all
}

fn signed_by(worker: u64) -> String {
    format!("signed/{worker}")
}

fn listed_by(worker: u64) -> String {
    format!("listed/{worker}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::{Holder, Reserve},
        host::{FakeShared, Version, prepare},
    };

    const NOW: u64 = 1_000_000;

    fn bucket(consumer: &str) -> Bucket {
        Bucket::new("default/p/daily".into(), vec![consumer.to_owned()])
    }

    fn uses(consumers: &[&str]) -> HashMap<Rc<str>, Bucket> {
        consumers.iter().map(|consumer| bucket(consumer)).map(|bucket| (bucket.key.clone(), bucket)).collect()
    }

    /// Of a process with three workers.
    fn shared() -> FakeShared {
        let shared = FakeShared::default();
        prepare(&shared, &[(WORKERS, &3u64.to_le_bytes())]);
        shared
    }

    /// A worker takes tokens of a consumer's bucket.
    fn take(shared: &FakeShared, consumer: &str, worker: u64, amount: u64) {
        let holder = Holder { expires_at: u64::MAX, ..Holder::default() };
        let grant =
            wire::Grant { window_start: 60, window_end: 9000, granted: 100, remaining: 9, ..Default::default() };
        update(shared, &bucket(consumer).key, NOW, |record| {
            let (lease, _) = Lease::decode(record).grant(&grant, 1, NOW, NOW, holder);
            let reserved = lease.reserve(amount, worker, NOW, holder);
            assert!(matches!(reserved.outcome, Reserve::Taken { .. }), "{:?}", reserved.outcome);
            (Some(reserved.lease.encode()), ())
        })
        .unwrap();
    }

    fn call(shared: &FakeShared, me: u64, now: u64) -> Called {
        Roll::default().call(shared, me, now)
    }

    /// Nobody is dead.
    fn living(living: u64) -> Called {
        Called { living, ..Called::default() }
    }

    fn listed_at(shared: &FakeShared, worker: u64) -> Option<Version> {
        shared.get(&listed_by(worker)).map(|(_, version)| version)
    }

    #[test]
    fn who_signs_stays() {
        let shared = shared();
        let mut roll = Roll::default();
        take(&shared, "app", 1, 40);
        assert_eq!(call(&shared, 2, NOW), living(1), "nobody is dead, nor who never signed");
        for now in [NOW, NOW + DEAD_MS - 1, NOW + 2 * DEAD_MS - 2] {
            roll.sign(&shared, 2, now, &uses(&[]));
            assert_eq!(call(&shared, 2, now), living(if now == NOW { 1 } else { 2 }));
            roll.sign(&shared, 1, now, &uses(&["app"]));
        }
    }

    #[test]
    fn one_of_the_others_takes_over_from_a_silent_worker() {
        let shared = shared();
        take(&shared, "app", 1, 40);
        take(&shared, "other", 1, 7);
        take(&shared, "app", 3, 5);
        Roll::default().sign(&shared, 1, NOW, &uses(&["app", "other", "never used"]));
        assert_eq!(call(&shared, 2, NOW + DEAD_MS - 1), living(2));
        assert_eq!(call(&shared, 1, NOW + DEAD_MS), living(1), "nobody buries himself");

        let mut called = call(&shared, 2, NOW + DEAD_MS);
        assert_eq!((called.living, called.buried), (1, 1));
        called.taken.sort_by_key(|(_, taken)| taken.amount);
        let release = |amount| Release { window_start: 60, amount };
        assert_eq!(called.taken, [(bucket("other"), release(7)), (bucket("app"), release(40))]);
        assert_eq!(call(&shared, 3, NOW + DEAD_MS), living(1), "once");
        assert_eq!(call(&shared, 2, NOW + 9 * DEAD_MS), living(1));

        let record = shared.get(&bucket("app").key).unwrap().0;
        let mut lease = Lease::decode(&record);
        assert_eq!(lease.bury(3), [release(5)], "what the living took is theirs");
        assert_eq!(lease.bury(2), [release(40)], "the heir answers for the rest");
    }

    #[test]
    fn each_worker_has_a_list_of_its_own() {
        let shared = shared();
        take(&shared, "app", 1, 40);
        Roll::default().sign(&shared, 1, NOW, &uses(&["app"]));
        Roll::default().sign(&shared, 3, NOW + 1, &uses(&["other"]));
        let called = call(&shared, 2, NOW + DEAD_MS);
        assert_eq!(called.taken, [(bucket("app"), Release { window_start: 60, amount: 40 })]);
    }

    #[test]
    fn who_signs_again_lives() {
        let shared = shared();
        let mut roll = Roll::default();
        roll.sign(&shared, 1, NOW, &uses(&["app"]));
        assert_eq!(call(&shared, 2, NOW + DEAD_MS).buried, 1);
        roll.sign(&shared, 1, NOW + DEAD_MS, &uses(&["app"]));
        take(&shared, "app", 1, 3);
        assert_eq!(call(&shared, 2, NOW + 2 * DEAD_MS - 1), living(2));
        let called = call(&shared, 2, NOW + 2 * DEAD_MS);
        assert_eq!((called.buried, called.taken.len()), (1, 1), "its list is still there");
    }

    /// Two find a worker dead at the same time: the swap decides.
    #[test]
    fn a_worker_that_signs_meanwhile_is_not_buried() {
        struct SignsMeanwhile(FakeShared);
        impl Shared for SignsMeanwhile {
            fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
                let found = self.0.get(key);
                if key == signed_by(1) {
                    self.0.set(key, &(NOW + DEAD_MS).to_le_bytes(), None).unwrap();
                }
                found
            }
            fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> Result<(), crate::host::Conflict> {
                self.0.set(key, value, version)
            }
        }
        let shared = shared();
        Roll::default().sign(&shared, 1, NOW, &uses(&[]));
        assert_eq!(Roll::default().call(&SignsMeanwhile(shared), 2, NOW + DEAD_MS), living(2));
    }

    #[test]
    fn the_list_is_written_when_it_changes() {
        let shared = shared();
        let mut roll = Roll::default();
        roll.sign(&shared, 1, NOW, &uses(&[]));
        assert_eq!(listed_at(&shared, 1), None, "nothing to list");
        roll.sign(&shared, 1, NOW, &uses(&["app"]));
        let mut last = listed_at(&shared, 1);
        roll.sign(&shared, 1, NOW + 1, &uses(&["app"]));
        assert_eq!(listed_at(&shared, 1), last);
        // Another one, another one in the place of the first, fewer.
        for consumers in [["app", "b"].as_slice(), &["b", "c"], &["c"], &[]] {
            roll.sign(&shared, 1, NOW + 2, &uses(consumers));
            assert_ne!(listed_at(&shared, 1), last, "{consumers:?}");
            last = listed_at(&shared, 1);
        }
        assert_eq!(shared.get(&signed_by(1)).map(|(record, _)| read_u64(&record)), Some(NOW + 2));
    }

    #[test]
    fn a_worker_without_a_number_signs_nothing() {
        let shared = shared();
        Roll::default().sign(&shared, 0, NOW, &uses(&["app"]));
        assert!(shared.get(&signed_by(0)).is_none() && shared.get(&listed_by(0)).is_none());
    }
}
