//! The roll of a process's workers, in shared data. Each worker signs at its ticks and lists the buckets that it
//! uses. A worker whose VM has died (of a panic, or without memory) signs no more. Another worker then charges what
//! the dead one had taken, so that these tokens are not missing from the lease until the window ends.

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

/// What dead workers leave behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Buried {
    pub workers: u64,
    /// Tokens that they had taken.
    pub taken: Vec<(Bucket, Release)>,
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

    /// Takes over from dead workers. Only one worker gets a dead one, and only once.
    pub fn bury_the_dead(&self, shared: &dyn Shared, me: u64, now: u64) -> Buried {
        let workers = shared.get(WORKERS).map_or(0, |(record, _)| read_u64(&record));
        let mut buried = Buried::default();
        for worker in (1..=workers).filter(|worker| *worker != me) {
            if is_dead(shared, worker, now) {
                buried.workers += 1;
                buried.taken.extend(taken_by(shared, worker, now));
            }
        }
        buried
    }
}

/// True for one caller only: whoever finds a dead worker clears its record.
fn is_dead(shared: &dyn Shared, worker: u64, now: u64) -> bool {
    let Some((record, version)) = shared.get(&signed_by(worker)) else {
        return false;
    };
    let signed = read_u64(&record);
    signed != 0
        && now >= signed.saturating_add(DEAD_MS)
        && shared.set(&signed_by(worker), &[0; 8], Some(version)).is_ok()
}

fn taken_by(shared: &dyn Shared, worker: u64, now: u64) -> Vec<(Bucket, Release)> {
    let listed = shared.get(&listed_by(worker)).and_then(|(record, _)| Listed::decode(record.as_slice()).ok());
    let mut all = Vec::new();
    for bucket in listed.unwrap_or_default().buckets {
        let bucket = Bucket::new(bucket.limit.into(), bucket.scope);
        let taken = update(shared, &bucket.key, now, |record| {
            let mut lease = Lease::decode(record);
            let taken = lease.bury(worker);
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
