//! A worker's own part of the leases that it uses most. Requests of one worker that come right after one another
//! reserve from a slice in its own memory and settle with it. They need no shared record.
//!
//! ```text
//! shared lease ─ the second request within a moment ─▶ slice ─ at a tick, or when it has too little ─▶ shared lease
//! ```
//! A slice is a [`Lease`] itself, so the same functions reserve from it. In the shared lease its tokens are noted under
//! the worker, like those of a request: if the worker dies, they are charged. So slices are small, they are cut only while
//! the ledger has more tokens, and what is left of them goes back at each tick.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, rc::Rc};

use crate::{
    budget::{Bucket, Budget, Counter, Lease, Rate, Reservation, Reserve, Settled},
    host::update,
    report::Reporter,
};

/// A bucket from which a worker has reserved within this time is worth a slice.
const BUSY_MS: u64 = 100;
/// A slice that has not gone back for so long is not used any more. Its worker may have slept, and a worker that sleeps
/// for much longer is taken for dead.
const GOOD_MS: u64 = 500;

/// The slices of one worker.
#[derive(Debug, Default)]
pub struct Slices {
    /// Buckets that were used a moment ago, by the names of their leases' records.
    used: HashMap<Rc<str>, InUse>,
    /// Whether a root acts for this worker. It puts slices back, so without one none is cut.
    pub are_put_back: bool,
}

#[derive(Debug)]
struct InUse {
    bucket: Bucket,
    /// Unix milliseconds. 0: not yet.
    at: u64,
    slice: Option<Slice>,
}

#[derive(Debug)]
struct Slice {
    lease: Lease,
    /// The whole slice, as the shared lease has noted it.
    taken: Reservation,
    /// Unix milliseconds.
    cut_at: u64,
}

/// What a try to reserve says to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Drawn {
    pub outcome: Reserve,
    /// None: no limit of the budget is known.
    pub rate: Option<Rate>,
}

// === impl Slices ===

impl Slices {
    /// Reserves from the slice, or from the shared lease if the slice has too little. The reporter hears of what goes back
    /// to the ledger. Other workers may be at the lease, and one of them may have been interrupted there. A request can
    /// wait for that as it waits for the ledger.
    pub fn reserve(&mut self, budget: &Budget, counter: &Counter<'_>, amount: u64, reporter: &mut Reporter) -> Drawn {
        let bucket = &budget.bucket;
        let used = self.used.entry(bucket.key.clone()).or_insert_with(|| InUse::new(bucket));
        let cuts = self.are_put_back && used.is_busy(counter.now);
        used.at = counter.now;
        if let Some(drawn) = used.slice.as_mut().and_then(|slice| slice.draw(counter, amount)) {
            return drawn;
        }
        let old = used.slice.as_ref();
        let reserved = update(counter.shared, &bucket.key, counter.now, |record| {
            let before = Lease::decode(record);
            let (lease, back) = match old {
                Some(slice) => slice.put_back(before.clone(), counter),
                None => (before.clone(), None),
            };
            let mut reserved = lease.reserve(amount, counter.worker, counter.now, counter.holder);
            let rate = reserved.lease.rate(counter.now, counter.holder);
            let taken = matches!(reserved.outcome, Reserve::Taken { .. });
            let cut = (cuts && taken).then(|| reserved.lease.cut(amount, counter.worker, counter.holder)).flatten();
            let changed = (reserved.lease != before).then(|| reserved.lease.encode());
            (changed, (Drawn { outcome: reserved.outcome, rate }, back, reserved.release, cut))
        });
        let Ok((drawn, back, release, cut)) = reserved else {
            return Drawn { outcome: Reserve::Ask { wish: amount }, rate: None };
        };
        if let (Some(slice), Some(settled)) = (old, back) {
            tell(reporter, bucket, &slice.taken, settled);
        }
        used.slice = cut.map(|(lease, taken)| Slice { lease, taken, cut_at: counter.now });
        if let Some(release) = release {
            reporter.released(bucket, release);
        }
        drawn
    }

    /// Replaces a reservation by what the request really cost. A cost of 0 gives it back. The reporter hears of it.
    pub fn settle(
        &mut self,
        bucket: &Bucket,
        counter: &Counter<'_>,
        reservation: &Reservation,
        truth: u64,
        reporter: &mut Reporter,
    ) {
        let slice = self.used.get_mut(&bucket.key).and_then(|used| used.slice.as_mut());
        let settled = if let Some(slice) = slice.filter(|slice| slice.settles(reservation, truth, counter)) {
            let lease = std::mem::take(&mut slice.lease);
            let (lease, settled) = lease.settle(reservation, truth, counter.now, counter.holder);
            slice.lease = lease;
            settled
        } else {
            let settled = update(counter.shared, &bucket.key, counter.now, |record| {
                let lease = Lease::decode(record);
                let (lease, settled) = lease.settle(reservation, truth, counter.now, counter.holder);
                (Some(lease.encode()), settled)
            });
            settled.unwrap_or(Settled { from_lease: reservation.amount, charged: truth, release: None })
        };
        tell(reporter, bucket, reservation, settled);
    }

    /// Puts all slices back. A bucket that nobody uses any more is forgotten.
    pub fn put_back(&mut self, counter: &Counter<'_>, reporter: &mut Reporter) {
        self.used.retain(|key, used| {
            if let Some(slice) = &used.slice {
                let back = update(counter.shared, key, counter.now, |record| {
                    let (lease, back) = slice.put_back(Lease::decode(record), counter);
                    (back.is_some().then(|| lease.encode()), back)
                });
                // If the record cannot be changed now, the next tick tries again.
                let Ok(back) = back else { return true };
                if let Some(settled) = back {
                    tell(reporter, &used.bucket, &slice.taken, settled);
                }
                used.slice = None;
            }
            used.is_busy(counter.now)
        });
    }
}

/// Tells the reporter what became of a reservation. The ledger need not hear of one that went back into the lease.
fn tell(reporter: &mut Reporter, bucket: &Bucket, reservation: &Reservation, settled: Settled) {
    if settled.from_lease > 0 || settled.charged > 0 {
        reporter.settled(bucket, reservation.window_start, settled.from_lease, settled.charged);
    }
    if let Some(release) = settled.release {
        reporter.released(bucket, release);
    }
}

// === impl InUse ===

impl InUse {
    fn new(bucket: &Bucket) -> Self {
        Self { bucket: bucket.clone(), at: 0, slice: None }
    }

    fn is_busy(&self, now: u64) -> bool {
        now < self.at.saturating_add(BUSY_MS)
    }
}

// === impl Slice ===

impl Slice {
    /// Whether requests may use it. Otherwise it only goes back.
    fn is_good(&self, counter: &Counter<'_>) -> bool {
        // The clock may have been set back.
        (self.cut_at..self.cut_at.saturating_add(GOOD_MS)).contains(&counter.now)
            && self.lease.is_valid(&self.taken, counter.now, counter.holder)
    }

    fn has(&self, amount: u64, counter: &Counter<'_>) -> bool {
        self.lease.available >= amount && self.is_good(counter)
    }

    /// Whether a reservation is to be settled here. What it cost beyond the reservation comes out of the shared lease if
    /// the slice has too little, and what comes back goes there if it would make the slice larger than it was cut.
    fn settles(&self, reservation: &Reservation, truth: u64, counter: &Counter<'_>) -> bool {
        let owed = truth.saturating_sub(reservation.amount);
        let unused = reservation.amount.saturating_sub(truth);
        self.has(owed, counter) && self.lease.available.saturating_add(unused) <= self.taken.amount
    }

    fn draw(&mut self, counter: &Counter<'_>, amount: u64) -> Option<Drawn> {
        if !self.has(amount, counter) {
            return None;
        }
        let reserved = std::mem::take(&mut self.lease).reserve(amount, counter.worker, counter.now, counter.holder);
        self.lease = reserved.lease;
        Some(Drawn { outcome: reserved.outcome, rate: self.lease.rate(counter.now, counter.holder) })
    }

    /// The shared lease with what is left of this slice. None: nothing is left.
    fn put_back(&self, shared: Lease, counter: &Counter<'_>) -> (Lease, Option<Settled>) {
        if self.lease.available == 0 {
            return (shared, None);
        }
        let (lease, settled) = shared.put_back(&self.taken, self.lease.available, counter.now, counter.holder);
        (lease, Some(settled))
    }
}
