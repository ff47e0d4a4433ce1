//! One budget, and one holder's lease of it: granted, settled, expired.
//!
//! At every moment `spent + leased` is all that was charged and all that holders may still use. So a token of
//! `limit - spent - leased` is never handed out twice.

use tollgate_proto::v1;

/// The name of a bucket: a limit, the values of its scope in order, and the window's start in unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketKey {
    pub limit: String,
    pub scope: Vec<String>,
    pub window_start: i64,
}

/// One budget in one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// What was charged. Expired leases are in it.
    pub spent: u64,
    /// The sum of what holders have outstanding.
    pub leased: u64,
    /// Unix seconds. 0: the window never ends.
    pub window_end: i64,
    /// The highest threshold that it has crossed, in percent of its tokens. 0: none.
    pub crossed: u16,
    /// The highest one that somebody is known to be told of.
    pub told: u16,
}

/// What one holder has of one budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lease {
    /// What was granted and is not accounted for yet.
    pub outstanding: u64,
    /// What was charged because the holder was silent for too long. A settlement that comes later takes from this
    /// first, so that nothing is charged twice.
    pub expired: u64,
}

/// How much of a lease ends, and what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    /// Tokens of the lease that nobody holds any more: used up or given back.
    pub ended: u64,
    pub charged: u64,
}

// === impl BucketKey ===

impl BucketKey {
    pub fn to_wire(&self) -> v1::Bucket {
        v1::Bucket { limit: self.limit.clone(), scope: self.scope.clone() }
    }
}

// === impl Bucket ===

impl Bucket {
    /// How much of a budget of so many tokens is neither spent nor leased.
    pub fn free(&self, tokens: u64) -> u64 {
        tokens.saturating_sub(self.spent.saturating_add(self.leased))
    }

    /// Leases what is wished for. It is no more than a quarter of what is free, unless requests wait for more. So
    /// leases shrink as the budget ends, and each of several proxies gets some.
    pub(super) fn grant(&mut self, lease: &mut Lease, tokens: u64, wish: u64, least: u64) -> u64 {
        let free = self.free(tokens);
        let granted = wish.max(least).min(least.max(free / 4)).min(free);
        self.leased = self.leased.saturating_add(granted);
        lease.outstanding = lease.outstanding.saturating_add(granted);
        granted
    }

    /// Whether its window ended before this second.
    pub(super) fn is_over(&self, before: i64) -> bool {
        self.window_end != 0 && self.window_end < before
    }

    pub(super) fn settle(&mut self, lease: &mut Lease, settled: Settled) {
        let late = settled.ended.min(lease.expired);
        let live = (settled.ended - late).min(lease.outstanding);
        lease.expired -= late;
        lease.outstanding -= live;
        self.leased = self.leased.saturating_sub(live);
        self.spent = self.spent.saturating_sub(late).saturating_add(settled.charged);
    }

    /// Charges all that is outstanding, because nobody can say any more that it was not used.
    pub(super) fn expire(&mut self, lease: &mut Lease) {
        let charged = std::mem::take(&mut lease.outstanding);
        lease.expired = lease.expired.saturating_add(charged);
        self.leased = self.leased.saturating_sub(charged);
        self.spent = self.spent.saturating_add(charged);
    }
}

// === impl Lease ===

impl Lease {
    pub fn is_empty(&self) -> bool {
        self.outstanding == 0 && self.expired == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(ended: u64, charged: u64) -> Settled {
        Settled { ended, charged }
    }

    #[test]
    fn grants_shrink_as_the_budget_ends() {
        let (mut bucket, mut lease) = (Bucket::default(), Lease::default());
        assert_eq!(bucket.grant(&mut lease, 1000, 900, 0), 250);
        assert_eq!(bucket.grant(&mut lease, 1000, 10, 0), 10);
        assert_eq!(bucket.grant(&mut lease, 1000, 900, 400), 400, "someone waits for 400");
        assert_eq!(bucket.grant(&mut lease, 1000, 900, 500), 340, "all that is left");
        assert_eq!(bucket.grant(&mut lease, 1000, 900, 500), 0);
        assert_eq!((bucket.leased, lease.outstanding), (1000, 1000));
    }

    #[test]
    fn a_debt_counts_and_a_lowered_limit_gives_nothing() {
        let (mut bucket, mut lease) = (Bucket::default(), Lease::default());
        bucket.grant(&mut lease, 100, 100, 100);
        bucket.settle(&mut lease, settled(100, 130));
        assert_eq!((bucket.spent, bucket.leased, bucket.free(100)), (130, 0, 0));
        assert_eq!(bucket.grant(&mut lease, 100, 10, 10), 0);
        assert_eq!(bucket.grant(&mut lease, 150, 30, 30), 20, "raised");
    }

    #[test]
    fn what_expired_is_charged_once() {
        let (mut bucket, mut lease) = (Bucket::default(), Lease::default());
        bucket.grant(&mut lease, 1000, 100, 100);
        bucket.expire(&mut lease);
        assert_eq!((bucket.spent, bucket.leased, lease.expired), (100, 0, 100));
        bucket.settle(&mut lease, settled(60, 60));
        assert_eq!((bucket.spent, lease.expired), (100, 40), "already charged");
        bucket.settle(&mut lease, settled(40, 0));
        assert_eq!((bucket.spent, lease.is_empty()), (60, true), "given back late");
    }

    #[test]
    fn nonsense_saturates() {
        let (mut bucket, mut lease) = (Bucket::default(), Lease::default());
        bucket.settle(&mut lease, settled(u64::MAX, u64::MAX));
        bucket.settle(&mut lease, settled(u64::MAX, u64::MAX));
        assert_eq!((bucket.spent, bucket.leased, bucket.free(u64::MAX)), (u64::MAX, 0, 0));
        assert_eq!(bucket.grant(&mut lease, u64::MAX, u64::MAX, u64::MAX), 0);
    }
}
