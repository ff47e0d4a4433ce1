//! What happens as time passes. The leases of silent holders are charged, and old records are removed.
//!
//! Like calls, these are steps over what they touch. A state in memory has all of it. A shared store says what is due,
//! a part at a time.

use std::time::Duration;

use super::{BucketKey, Changes, HolderKey, Now, State};

/// How long an ended window is kept, for settlements that come late.
pub const BUCKET_KEPT: Duration = Duration::from_secs(3600);
/// How long a holder without a lease is kept, so that a call which is sent again after a long outage counts once.
pub const HOLDER_KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long usage per minute is kept.
pub const USAGE_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// What is to be done again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// Charges the leases of holders that were silent for too long.
    Expire,
    /// Removes windows that ended long ago, what is leased in them, and old usage per minute.
    ForgetWindows,
    /// Removes holders that were not seen for long and have no lease.
    ForgetHolders,
}

impl State {
    /// Does this to all records that are here. Those to which it does not apply stay as they are.
    pub fn keep_up(&mut self, upkeep: Upkeep, now: Now) {
        match upkeep {
            Upkeep::Expire => self.expire(now),
            Upkeep::ForgetWindows => {
                self.prune_buckets(older_than(now, BUCKET_KEPT));
                self.changes.forget_before = u64::try_from(older_than(now, USAGE_KEPT).div_euclid(60)).ok();
            }
            Upkeep::ForgetHolders => self.prune_holders(older_than(now, HOLDER_KEPT)),
        }
    }

    /// Charges the leases of holders that were silent for too long.
    pub fn expire(&mut self, now: Now) {
        let silent = |holder: &super::state::Holder| {
            holder.expires <= now.steady && holder.leases.values().any(|lease| lease.outstanding > 0)
        };
        let keys: Vec<HolderKey> =
            self.holders.iter().filter(|(_, holder)| silent(holder)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.charge_leases(key));
    }

    /// Removes what nothing depends on any more.
    pub fn prune(&mut self, now: Now) {
        self.keep_up(Upkeep::ForgetWindows, now);
        self.keep_up(Upkeep::ForgetHolders, now);
    }

    pub(super) fn charge_leases(&mut self, holder: &HolderKey) {
        let leases = self.holders.get(holder).map(|holder| holder.leases.keys().cloned().collect::<Vec<_>>());
        for key in leases.into_iter().flatten() {
            self.change(holder, &key, |bucket, lease| bucket.expire(lease));
        }
    }

    fn prune_buckets(&mut self, ended_before: i64) {
        let Self { buckets, holders, changes, .. } = self;
        buckets.retain(|key, bucket| {
            let kept = !bucket.is_over(ended_before);
            if !kept {
                changes.buckets.insert(key.clone(), None);
            }
            kept
        });
        for (name, holder) in holders {
            holder.leases.retain(|key, _| buckets.contains_key(key) || forget_lease(changes, name, key));
        }
    }

    fn prune_holders(&mut self, seen_before: i64) {
        let Self { holders, changes, .. } = self;
        holders.retain(|key, holder| {
            if holder.seen >= seen_before || holder.leases.values().any(|lease| lease.outstanding > 0) {
                return true;
            }
            changes.holders.insert(key.clone(), None);
            changes.workers.extend(holder.workers.keys().map(|worker| ((key.clone(), *worker), None)));
            changes.leases.extend(holder.leases.keys().map(|bucket| ((key.clone(), bucket.clone()), None)));
            false
        });
    }
}

/// The second before which something is older than this.
pub(super) fn older_than(now: Now, kept: Duration) -> i64 {
    now.wall.as_second().saturating_sub(i64::try_from(kept.as_secs()).unwrap_or(i64::MAX))
}

/// Notes that a lease goes. Returns that it is not kept.
fn forget_lease(changes: &mut Changes, holder: &HolderKey, key: &BucketKey) -> bool {
    changes.leases.insert((holder.clone(), key.clone()), None);
    false
}
