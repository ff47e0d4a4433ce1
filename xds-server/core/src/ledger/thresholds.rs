//! Soft thresholds: when a bucket comes to 80 % of its tokens, somebody is to be told, once in its window.
//!
//! What was crossed is a part of the bucket. So it is durable together with the tokens that crossed it, and a budget that
//! gets tokens back and spends them again is told of once. What was told is a part of it too: after a restart all that is
//! crossed and not known to be told is told again.

use std::collections::BTreeMap;

use super::{Bucket, BucketKey, Now, Rules, State};
use crate::ir::Limit;
use crate::terms::{Key, ScopePart};

/// A bucket has spent so much of its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    pub key: BucketKey,
    pub policy: Key,
    /// The limit's name in its policy.
    pub limit: String,
    /// In percent of the tokens.
    pub threshold: u16,
    /// What the values of the key are.
    pub scope: Vec<ScopePart>,
    pub spent: u64,
    pub tokens: u64,
    /// Unix seconds. 0: the window never ends.
    pub window_end: i64,
}

/// The fullest bucket of each limit, in the newest window that has one.
#[derive(Debug, Default)]
pub(super) struct Fullest(BTreeMap<String, (BucketKey, Bucket)>);

// === impl State ===

impl State {
    /// Notes what the buckets have crossed that changed since the changes were taken, and returns it: lower thresholds
    /// first. A threshold that was added later, below one that is crossed, is not told of.
    pub fn cross(&mut self, rules: &Rules) -> Vec<Crossing> {
        let changed: Vec<BucketKey> = self.changes.buckets.keys().cloned().collect();
        let mut crossings = Vec::new();
        for key in changed {
            self.fullest.note(&key, &self.buckets);
            let (Some(limit), Some(bucket)) = (rules.limit(&key.limit), self.buckets.get_mut(&key)) else { continue };
            let before = bucket.crossed;
            let Some(highest) = crossed(limit, bucket.spent).filter(|highest| *highest > before) else { continue };
            bucket.crossed = highest;
            self.changes.buckets.insert(key.clone(), Some(*bucket));
            crossings.extend(between(limit, &key, *bucket, before));
        }
        crossings
    }

    /// What is crossed in windows that are not over, and not known to be told.
    pub fn untold(&self, rules: &Rules, now: Now) -> Vec<Crossing> {
        let of = |(key, bucket): (&BucketKey, &Bucket)| {
            let limit = rules.limit(&key.limit).filter(|_| is_open(bucket, now));
            limit.into_iter().flat_map(|limit| between(limit, key, *bucket, bucket.told)).collect::<Vec<_>>()
        };
        self.buckets.iter().filter(|(_, bucket)| bucket.told < bucket.crossed).flat_map(of).collect()
    }

    /// Somebody was told that the bucket has crossed this threshold.
    pub fn told(&mut self, key: &BucketKey, threshold: u16) {
        if let Some(bucket) = self.buckets.get_mut(key).filter(|bucket| bucket.told < threshold) {
            bucket.told = threshold;
            self.changes.buckets.insert(key.clone(), Some(*bucket));
        }
    }

    /// How much of its tokens the fullest bucket of each limit has spent. A limit without tokens is always full, and is left
    /// out.
    pub fn spent_ratios<'a>(&'a self, rules: &'a Rules, now: Now) -> impl Iterator<Item = (&'a Limit, f64)> {
        rules.limits.values().filter(|limit| limit.tokens > 0).map(move |limit| {
            let fullest = self.fullest.0.get(&limit.id).filter(|(_, bucket)| is_open(bucket, now));
            #[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
            let ratio = fullest.map_or(0.0, |(_, bucket)| bucket.spent as f64 / limit.tokens as f64);
            (limit, ratio)
        })
    }
}

fn is_open(bucket: &Bucket, now: Now) -> bool {
    !bucket.is_over(now.wall.as_second().saturating_add(1))
}

/// The highest threshold that so many tokens have reached.
fn crossed(limit: &Limit, spent: u64) -> Option<u16> {
    limit.warn_at.iter().take_while(|threshold| reaches(limit, spent, *threshold)).last()
}

fn reaches(limit: &Limit, spent: u64, threshold: u16) -> bool {
    limit.tokens > 0 && u128::from(spent) * 100 >= u128::from(limit.tokens) * u128::from(threshold)
}

/// The thresholds above `before` that the bucket has crossed.
fn between(limit: &Limit, key: &BucketKey, bucket: Bucket, before: u16) -> impl Iterator<Item = Crossing> {
    let above = limit.warn_at.iter().filter(move |threshold| *threshold > before && *threshold <= bucket.crossed);
    above.map(move |threshold| Crossing {
        key: key.clone(),
        policy: Key { namespace: limit.origin.namespace.clone(), name: limit.origin.name.clone() },
        limit: limit.name.clone(),
        threshold,
        scope: limit.scope.clone(),
        spent: bucket.spent,
        tokens: limit.tokens,
        window_end: bucket.window_end,
    })
}

// === impl Fullest ===

impl Fullest {
    pub fn of(buckets: &BTreeMap<BucketKey, Bucket>) -> Self {
        let mut fullest = Self::default();
        buckets.iter().for_each(|(key, bucket)| fullest.compare(key, *bucket));
        fullest
    }

    /// This bucket has changed.
    fn note(&mut self, key: &BucketKey, buckets: &BTreeMap<BucketKey, Bucket>) {
        let now = buckets.get(key);
        let is_known =
            |(known, before): &&(BucketKey, Bucket)| known == key && now.is_none_or(|now| now.spent < before.spent);
        if self.0.get(&key.limit).filter(is_known).is_none() {
            return now.into_iter().for_each(|bucket| self.compare(key, *bucket));
        }
        // The fullest one got tokens back, or is gone. Another one may be fuller.
        self.0.remove(&key.limit);
        let first = BucketKey { limit: key.limit.clone(), scope: Vec::new(), window_start: i64::MIN };
        let of_limit = buckets.range(first..).take_while(|(other, _)| other.limit == key.limit);
        of_limit.for_each(|(key, bucket)| self.compare(key, *bucket));
    }

    fn compare(&mut self, key: &BucketKey, bucket: Bucket) {
        let rank = |key: &BucketKey, bucket: &Bucket| (key.window_start, bucket.spent);
        match self.0.get_mut(&key.limit) {
            Some((known, fullest)) if rank(known, fullest) > rank(key, &bucket) => {}
            Some(fullest) => *fullest = (key.clone(), bucket),
            None => drop(self.0.insert(key.limit.clone(), (key.clone(), bucket))),
        }
    }
}
