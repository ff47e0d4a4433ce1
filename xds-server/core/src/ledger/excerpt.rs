//! A part of the ledger's records: those that a step touches, present or missing. A step that runs on them alone does
//! what it would do on all of them.
//!
//! A ledger that keeps everything in memory needs no excerpt. One whose store others write to as well loads an excerpt,
//! runs the step, and writes what changed if every record of the excerpt is still as it was. A step is a function of
//! these records, the rules and the time. So it does not matter whether a record changed in between and changed back.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Asked, Bucket, BucketKey, Changes, Heard, HolderKey, Lease, RefusedEntry, State, Worker, WorkerKey,
    asked::AskedNames,
};

/// Names of records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    pub workers: BTreeSet<WorkerKey>,
    pub holders: BTreeSet<HolderKey>,
    pub leases: BTreeSet<(HolderKey, BucketKey)>,
    /// Holders of which all leases are touched.
    pub leases_of: BTreeSet<HolderKey>,
    pub buckets: BTreeSet<BucketKey>,
    /// Days since the epoch, and consumers: all names that are kept for them.
    pub asked: BTreeSet<(u64, String)>,
}

/// Records, and which were looked for. A name that was looked for and has no record is a record that is missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Excerpt {
    pub touched: Touched,
    pub buckets: BTreeMap<BucketKey, Bucket>,
    pub leases: BTreeMap<(HolderKey, BucketKey), Lease>,
    pub holders: BTreeMap<HolderKey, Heard>,
    pub workers: BTreeMap<WorkerKey, Worker>,
    pub asked: BTreeSet<Asked>,
}

/// A step that ran on an excerpt. It counts when its changes are written, and that may be only while the store has all
/// of `before`.
#[derive(Debug, Clone, PartialEq)]
pub struct Step<T> {
    pub before: Excerpt,
    pub changes: Changes,
    pub result: T,
    /// For the log and the metrics, once the changes are written.
    pub refused: BTreeMap<RefusedEntry, u64>,
}

// === impl Touched ===

impl Touched {
    pub(super) fn lease(&mut self, holder: &HolderKey, bucket: BucketKey) {
        self.leases.insert((holder.clone(), bucket.clone()));
        self.buckets.insert(bucket);
    }

    pub fn extend(&mut self, more: Self) {
        let Self { workers, holders, leases, leases_of, buckets, asked } = more;
        self.workers.extend(workers);
        self.holders.extend(holders);
        self.leases.extend(leases);
        self.leases_of.extend(leases_of);
        self.buckets.extend(buckets);
        self.asked.extend(asked);
    }

    /// Whether all of that is touched.
    pub fn covers(&self, other: &Self) -> bool {
        let lease = |key: &(HolderKey, BucketKey)| self.leases.contains(key) || self.leases_of.contains(&key.0);
        other.workers.is_subset(&self.workers)
            && other.holders.is_subset(&self.holders)
            && other.leases.iter().all(lease)
            && other.leases_of.is_subset(&self.leases_of)
            && other.buckets.is_subset(&self.buckets)
            && other.asked.is_subset(&self.asked)
    }
}

// === impl Excerpt ===

impl Excerpt {
    /// Runs a step on these records.
    pub fn run<T>(self, step: impl FnOnce(&mut State) -> T) -> Step<T> {
        let mut state = State::of(&self);
        let result = step(&mut state);
        let after = state.records();
        let mut changes = state.take_changes();
        // A state in memory knows more than it says is worth a write. What others share must be written.
        changes.buckets = changed(&self.buckets, after.buckets);
        changes.leases = changed(&self.leases, after.leases);
        changes.workers = changed(&self.workers, after.workers);
        changes.holders = changed(&self.holders, after.holders);
        // A lease may be touched without its holder.
        changes.holders.retain(|holder, _| self.touched.holders.contains(holder));
        Step { before: self, changes, result, refused: state.take_refused() }
    }
}

fn changed<K: Ord + Clone, V: PartialEq>(before: &BTreeMap<K, V>, after: BTreeMap<K, V>) -> BTreeMap<K, Option<V>> {
    let gone: Vec<(K, Option<V>)> =
        before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), None)).collect();
    let differs = |(key, value): &(K, V)| before.get(key) != Some(value);
    after.into_iter().filter(differs).map(|(key, value)| (key, Some(value))).chain(gone).collect()
}

// === impl State ===

impl State {
    /// The state that has these records and no others.
    pub fn of(excerpt: &Excerpt) -> Self {
        let mut state = Self { asked: AskedNames::new(&excerpt.asked), ..Self::default() };
        state.buckets.clone_from(&excerpt.buckets);
        for (holder, Heard { seen, expires }) in &excerpt.holders {
            let holder = state.holders.entry(holder.clone()).or_default();
            (holder.seen, holder.expires) = (*seen, *expires);
        }
        for ((holder, bucket), lease) in &excerpt.leases {
            state.holders.entry(holder.clone()).or_default().leases.insert(bucket.clone(), *lease);
        }
        for ((holder, number), worker) in &excerpt.workers {
            state.holders.entry(holder.clone()).or_default().workers.insert(*number, worker.clone());
        }
        state
    }

    /// All records of this state but the names that were asked for, which only ever grow.
    pub(super) fn records(&self) -> Excerpt {
        let mut excerpt = Excerpt { buckets: self.buckets.clone(), ..Excerpt::default() };
        for (key, holder) in &self.holders {
            excerpt.holders.insert(key.clone(), Heard { seen: holder.seen, expires: holder.expires });
            let leases = holder.leases.iter().map(|(bucket, lease)| ((key.clone(), bucket.clone()), *lease));
            excerpt.leases.extend(leases);
            let workers = holder.workers.iter().map(|(number, worker)| ((key.clone(), *number), worker.clone()));
            excerpt.workers.extend(workers);
        }
        excerpt
    }
}
