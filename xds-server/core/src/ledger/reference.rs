//! What a shared store has to do, in memory: load an excerpt, commit if it is still so, say what is due. A store of
//! another kind is right if it does the same.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    BUCKET_KEPT, BucketKey, Changes, Excerpt, HOLDER_KEPT, HolderKey, Now, Step, Touched, Upkeep,
    upkeep::older_than,
    usage::{Totals, UsageKey},
};

/// All records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reference {
    pub records: Excerpt,
    /// By minute since the epoch.
    pub usage: BTreeMap<(u64, UsageKey), Totals>,
}

/// Whether a step counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    Yes,
    /// Some record is not as it was. Nothing was written.
    Changed,
}

// === impl Reference ===

impl Reference {
    pub fn load(&self, touched: &Touched) -> Excerpt {
        let all = &self.records;
        let of_holder = |(holder, _): &(HolderKey, BucketKey)| touched.leases_of.contains(holder);
        let leases = all.leases.iter().filter(|(key, _)| touched.leases.contains(*key) || of_holder(key));
        let asked = all.asked.iter().filter(|asked| touched.asked.contains(&(asked.day, asked.consumer.clone())));
        Excerpt {
            touched: touched.clone(),
            buckets: part(&all.buckets, &touched.buckets),
            leases: leases.map(|(key, lease)| (key.clone(), *lease)).collect(),
            holders: part(&all.holders, &touched.holders),
            workers: part(&all.workers, &touched.workers),
            asked: asked.cloned().collect(),
        }
    }

    /// Writes all of a step or nothing. Records that the step touched must be as it found them. Usage is added, so it is
    /// right whatever it was before.
    pub fn commit<T>(&mut self, step: &Step<T>) -> Committed {
        if self.load(&step.before.touched) != step.before {
            return Committed::Changed;
        }
        self.put(&step.changes);
        Committed::Yes
    }

    fn put(&mut self, changes: &Changes) {
        let all = &mut self.records;
        put(&mut all.buckets, &changes.buckets);
        put(&mut all.leases, &changes.leases);
        put(&mut all.holders, &changes.holders);
        put(&mut all.workers, &changes.workers);
        if let Some(last) = changes.asked.last() {
            all.asked.extend(changes.asked.iter().cloned());
            all.asked.retain(|asked| asked.day == last.day);
        }
        for (key, totals) in &changes.usage {
            *self.usage.entry(key.clone()).or_default() += *totals;
        }
        if let Some(minute) = changes.forget_before {
            self.usage.retain(|(at, _), _| *at >= minute);
        }
    }

    /// What upkeep of this kind touches now: so many leases, windows or holders at most. Empty: there is nothing to do.
    pub fn due(&self, upkeep: Upkeep, now: Now, most: usize) -> Touched {
        match upkeep {
            Upkeep::Expire => self.silent(now, most),
            Upkeep::ForgetWindows => self.ended(now, most),
            Upkeep::ForgetHolders => self.unseen(now, most),
        }
    }

    fn silent(&self, now: Now, most: usize) -> Touched {
        let mut touched = Touched::default();
        let silent = |holder| self.records.holders.get(holder).is_none_or(|heard| heard.expires <= now.steady);
        let leases = self.records.leases.iter().filter(|((holder, _), lease)| lease.outstanding > 0 && silent(holder));
        for ((holder, bucket), _) in leases.take(most) {
            touched.holders.insert(holder.clone());
            touched.lease(holder, bucket.clone());
        }
        touched
    }

    /// Nothing new is leased in a window that ended. So these are all leases there, or more.
    fn ended(&self, now: Now, most: usize) -> Touched {
        let before = older_than(now, BUCKET_KEPT);
        let ended = self.records.buckets.iter().filter(|(_, bucket)| bucket.is_over(before));
        let buckets: BTreeSet<BucketKey> = ended.map(|(key, _)| key.clone()).take(most).collect();
        let leases = self.records.leases.keys().filter(|(_, bucket)| buckets.contains(bucket)).cloned().collect();
        Touched { buckets, leases, ..Touched::default() }
    }

    fn unseen(&self, now: Now, most: usize) -> Touched {
        let before = older_than(now, HOLDER_KEPT);
        let all = &self.records;
        let has_tokens = |key: &HolderKey| all.leases.iter().any(|((of, _), lease)| of == key && lease.outstanding > 0);
        let unseen = all.holders.iter().filter(|(key, heard)| heard.seen < before && !has_tokens(key));
        let holders: BTreeSet<HolderKey> = unseen.map(|(key, _)| key.clone()).take(most).collect();
        let workers = all.workers.keys().filter(|(holder, _)| holders.contains(holder)).cloned().collect();
        Touched { leases_of: holders.clone(), holders, workers, ..Touched::default() }
    }
}

fn part<K: Ord + Clone, V: Clone>(all: &BTreeMap<K, V>, keys: &BTreeSet<K>) -> BTreeMap<K, V> {
    keys.iter().filter_map(|key| Some((key.clone(), all.get(key)?.clone()))).collect()
}

fn put<K: Ord + Clone, V: Clone>(records: &mut BTreeMap<K, V>, changes: &BTreeMap<K, Option<V>>) {
    for (key, value) in changes {
        match value {
            Some(value) => records.insert(key.clone(), value.clone()),
            None => records.remove(key),
        };
    }
}
