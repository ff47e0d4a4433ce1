//! The ledger's state in memory, and what a batch of steps changed in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tollgate_proto::v1::SyncResponse;

use super::{
    Now,
    asked::{Asked, AskedNames},
    bucket::{Bucket, BucketKey, Lease},
    measures::{Group, Metered},
    thresholds::Fullest,
    usage::{Totals, UsageKey, second_of},
};

/// One life of one proxy, whose workers share its leases. Callers with different certificates are different holders,
/// whatever they say of themselves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HolderKey {
    /// Whom the certificate of the connection names.
    pub identity: String,
    /// Envoy's node id.
    pub proxy: String,
    pub epoch: u64,
}

pub type WorkerKey = (HolderKey, u64);

/// The last call of a worker that counted, and its answer in case the call is sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    pub sequence: u64,
    pub answer: SyncResponse,
}

/// When a holder was heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// In unix seconds. It is only as precise as is worth a write.
    pub seen: i64,
    /// The steady time at which its leases are charged. If only one process knows it, it ends with the process.
    pub expires: Duration,
}

/// Everything that decisions need. Usage is not here, because it only goes to the store.
#[derive(Debug, Default)]
pub struct State {
    pub(super) buckets: BTreeMap<BucketKey, Bucket>,
    pub(super) holders: BTreeMap<HolderKey, Holder>,
    pub(super) asked: AskedNames,
    pub(super) changes: Changes,
    pub(super) refused: BTreeMap<RefusedEntry, u64>,
    pub(super) fullest: Fullest,
}

/// What is known of entries that did not count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusedEntry {
    pub identity: String,
    pub entry: Entry,
    pub reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    Usage,
    /// What a row says of its requests besides their tokens, which count.
    Measures,
    Settlement,
    Want,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It names what the caller's Gateway does not serve.
    Foreign,
    /// It has more tokens than so many answers, or more requests than any row.
    TooLarge,
    /// It contradicts itself, or is more than its requests can have.
    Nonsense,
}

#[derive(Debug, Default)]
pub(super) struct Holder {
    /// When it was last seen, in unix seconds. It is only as precise as is worth a write.
    pub seen: i64,
    /// The steady time at which its leases are charged.
    pub expires: Duration,
    pub workers: BTreeMap<u64, Worker>,
    pub leases: BTreeMap<BucketKey, Lease>,
}

/// What the store is to write at once. Records are as they are now (None: gone), and usage is sums to add.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    pub buckets: BTreeMap<BucketKey, Option<Bucket>>,
    pub leases: BTreeMap<(HolderKey, BucketKey), Option<Lease>>,
    pub holders: BTreeMap<HolderKey, Option<Heard>>,
    pub workers: BTreeMap<WorkerKey, Option<Worker>>,
    /// By minute since the epoch.
    pub usage: BTreeMap<(u64, UsageKey), Totals>,
    /// The same usage under the pool's names of models, and how requests ended and spread, for metrics.
    pub metered: BTreeMap<Group, Metered>,
    /// Names that are kept from now on. The store forgets those of earlier days.
    pub asked: BTreeSet<Asked>,
    /// The store forgets the usage of earlier minutes.
    pub forget_before: Option<u64>,
}

/// What a store holds, as it is read at the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    pub buckets: BTreeMap<BucketKey, Bucket>,
    pub leases: BTreeMap<(HolderKey, BucketKey), Lease>,
    /// When each was last seen, in unix seconds.
    pub holders: BTreeMap<HolderKey, i64>,
    pub workers: BTreeMap<WorkerKey, Worker>,
    pub asked: BTreeSet<Asked>,
}

// === impl State ===

impl State {
    /// Begins with what was stored. All holders get a fresh time to live, because the ledger was away and not they.
    pub fn new(records: Records, ttl: Duration, now: Now) -> Self {
        let mut holders: BTreeMap<HolderKey, Holder> = BTreeMap::new();
        for ((holder, number), worker) in records.workers {
            holders.entry(holder).or_default().workers.insert(number, worker);
        }
        for ((holder, bucket), lease) in records.leases {
            holders.entry(holder).or_default().leases.insert(bucket, lease);
        }
        for key in records.holders.keys() {
            holders.entry(key.clone()).or_default();
        }
        for (key, holder) in &mut holders {
            holder.seen = records.holders.get(key).copied().unwrap_or(now.wall.as_second());
            holder.expires = now.steady.saturating_add(ttl);
        }
        let asked = AskedNames::new(&records.asked);
        let fullest = Fullest::of(&records.buckets);
        Self { buckets: records.buckets, holders, asked, fullest, ..Self::default() }
    }

    /// Takes what changed since this was last called.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Takes what was refused since this was last called.
    pub fn take_refused(&mut self) -> BTreeMap<RefusedEntry, u64> {
        std::mem::take(&mut self.refused)
    }

    pub(super) fn refuse(&mut self, holder: &HolderKey, entry: Entry, reason: Reason, count: u64) {
        if count > 0 {
            let refusal = RefusedEntry { identity: holder.identity.clone(), entry, reason };
            let sum = self.refused.entry(refusal).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// How many holders have tokens outstanding, and how many tokens.
    pub fn leased(&self) -> (usize, u64) {
        let per_holder = self
            .holders
            .values()
            .map(|holder| holder.leases.values().fold(0u64, |sum, lease| sum.saturating_add(lease.outstanding)));
        per_holder.filter(|sum| *sum > 0).fold((0, 0), |(count, all), sum| (count + 1, all.saturating_add(sum)))
    }

    pub(super) fn last_call(&self, holder: &HolderKey, worker: u64) -> Option<&Worker> {
        self.holders.get(holder)?.workers.get(&worker)
    }

    /// The only way in which budgets and leases change.
    pub(super) fn change<T>(
        &mut self,
        holder: &HolderKey,
        key: &BucketKey,
        step: impl FnOnce(&mut Bucket, &mut Lease) -> T,
    ) -> T {
        let bucket = self.buckets.entry(key.clone()).or_default();
        let leases = &mut self.holders.entry(holder.clone()).or_default().leases;
        let mut lease = leases.get(key).copied().unwrap_or_default();
        let before = (*bucket, lease);
        let result = step(bucket, &mut lease);
        if *bucket != before.0 {
            self.changes.buckets.insert(key.clone(), Some(*bucket));
        }
        if lease != before.1 {
            let kept = (!lease.is_empty()).then_some(lease);
            match kept {
                Some(lease) => leases.insert(key.clone(), lease),
                None => leases.remove(key),
            };
            self.changes.leases.insert((holder.clone(), key.clone()), kept);
        }
        result
    }
}

// === impl Changes ===

impl Changes {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each consumer whose usage was settled, with the minute of its last request in Unix seconds.
    pub fn last_used(&self) -> impl Iterator<Item = (&str, i64)> {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for (minute, key) in self.usage.keys() {
            let known = last.entry(&key.consumer).or_default();
            *known = (*known).max(*minute);
        }
        last.into_iter().map(|(consumer, minute)| (consumer, second_of(minute)))
    }

    /// The tokens that were settled, each with the consumer and the minute.
    pub fn spent(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.usage.iter().map(|((minute, key), totals)| (key.consumer.as_str(), *minute, totals.tokens()))
    }
}
