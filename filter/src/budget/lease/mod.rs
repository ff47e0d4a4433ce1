//! What this process holds of one bucket: requests reserve from it, and settle with it at their end. Everything here
//! is a function of a record and the time.
//!
//! The bound is spent ≤ limit + Σ over running requests (true − reserved). A request gets what it asks for. It gets
//! less only where the ledger has just said that there is no more: then it gets the rest.

mod record;
#[cfg(test)]
mod tests;

use tollgate_proto::v1 as wire;

use super::Holder;

/// How long an answer of the ledger is believed. It is short, so that a raised limit acts soon.
const FRESH_MS: u64 = 1000;
/// So long may the ledger be away, and requests like those of late go on: a control plane that was killed is replaced within
/// 15 s, and a lease is filled again when half of it is used up.
const AHEAD_MS: u64 = 30_000;
/// A lease that nobody has used for this time goes back. Another control plane takes less than that to take over, so a
/// gateway with little to do has tokens meanwhile.
const IDLE_MS: u64 = 20_000;
/// The rate is that of the last 5 to 10 s with requests.
const RATE_MS: u64 = 10_000;
/// A slice has tokens for so many requests, and is at most this part of what is there. Other workers need the rest.
const SLICE_REQUESTS: u64 = 32;
const SLICE_PART: u64 = 8;

/// What this process holds of one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lease {
    pub window_start: i64,
    /// Unix seconds by the ledger's clock. 0: the window never ends.
    pub window_end: i64,
    /// Tokens that may be reserved without asking.
    pub available: u64,
    /// `available` after the last grant.
    granted: u64,
    pub limit: u64,
    /// What was left of the budget at the ledger after the last grant.
    pub remaining: u64,
    /// When the call of the last grant was sent.
    sent_at: u64,
    /// When its answer came. 0: there was none yet.
    answered_at: u64,
    answer: Answer,
    /// When tokens were last asked for ahead of need.
    asked_at: u64,
    pub used_at: u64,
    /// Tokens taken since `counted_from`, at the rate of late. They decide the size of the next wish.
    taken: u64,
    counted_from: u64,
    /// What each worker has taken and the ledger has not heard of yet. When a worker dies, this is all that is known
    /// of its requests.
    taken_by: Vec<Taken>,
}

/// Tokens of the lease that a worker answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    worker: u64,
    window_start: i64,
    amount: u64,
}

/// What the last answer means for who asks next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Answer {
    /// There is more.
    #[default]
    More,
    /// Everything is leased out, or less was granted than was needed.
    NoMore,
    /// There was no more, but a request has ended since, so there may be some now.
    Outdated,
    /// The budget is spent up to its limit.
    Exhausted,
    /// The ledger knows no such limit.
    Unknown,
}

/// Tokens taken from a lease, for one request or as a slice for several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    pub amount: u64,
    pub window_start: i64,
    valid_since: u64,
    worker: u64,
}

/// What is left of a budget, as answers tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub limit: u64,
    pub remaining: u64,
    /// None: the window never ends.
    pub reset_s: Option<u64>,
}

/// What a try to reserve leaves.
#[derive(Debug, PartialEq, Eq)]
pub struct Reserved {
    pub lease: Lease,
    pub outcome: Reserve,
    /// What the lease had left of an ended window, or when it expired. It goes back.
    pub release: Option<Release>,
}

/// What a try to reserve says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// The tokens are reserved. `low`: the lease runs low, and it is time to ask for so many more.
    Taken { reservation: Reservation, low: Option<u64> },
    /// Nothing is left. It is worth asking again after so many seconds.
    Refused { retry_after_s: u64 },
    /// The ledger has to be asked. So many tokens would be enough for a while.
    Ask { wish: u64 },
}

/// Tokens on their way back: of an ended window, of an expired lease, or of one that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    pub window_start: i64,
    pub amount: u64,
}

/// What became of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// How much of the lease is used up by it.
    pub from_lease: u64,
    /// What is to be charged for it.
    pub charged: u64,
    /// What the lease had left, if it has expired meanwhile.
    pub release: Option<Release>,
}

// === impl Lease ===

impl Lease {
    fn window_is_over(&self, now: u64, holder: Holder) -> bool {
        self.window_end != 0 && holder.ledger_time(now) >= self.window_end.cast_unsigned().saturating_mul(1000)
    }

    /// The lease as far as it is still valid. The ledger may have charged an expired lease, so nothing more is taken
    /// from it. What is left is given back, and the ledger credits it however late that comes.
    fn held(mut self, now: u64, holder: Holder) -> (Self, Option<Release>) {
        if now < holder.expires_at && self.sent_at >= holder.valid_since {
            return (self, None);
        }
        let release = self.release();
        (self, release)
    }

    /// Takes `amount`, or says what else is to be done.
    pub fn reserve(self, amount: u64, worker: u64, now: u64, holder: Holder) -> Reserved {
        let (mut lease, expired) = self.held(now, holder);
        let wish = lease.wish(amount, now);
        lease.used_at = now;
        if lease.answered_at == 0 {
            return Reserved { lease, outcome: Reserve::Ask { wish }, release: expired };
        }
        if lease.window_is_over(now, holder) {
            let release = expired.or(lease.release());
            let lease = Self {
                taken: lease.taken,
                counted_from: lease.counted_from,
                used_at: now,
                taken_by: lease.taken_by,
                ..Self::default()
            };
            return Reserved { lease, outcome: Reserve::Ask { wish }, release };
        }
        let fresh = now < lease.answered_at.saturating_add(FRESH_MS);
        let outcome = match lease.answer {
            Answer::Unknown if fresh => Reserve::Taken { reservation: lease.take(0, worker, holder), low: None },
            Answer::Unknown => Reserve::Ask { wish },
            _ if lease.available >= amount && lease.available > 0 => {
                let reservation = lease.take(amount, worker, holder);
                Reserve::Taken { reservation, low: lease.asks_early(now).then_some(wish) }
            }
            Answer::NoMore | Answer::Exhausted if fresh && lease.available > 0 => {
                Reserve::Taken { reservation: lease.take(lease.available, worker, holder), low: None }
            }
            Answer::Exhausted if fresh => Reserve::Refused { retry_after_s: lease.seconds_left(now, holder) },
            Answer::NoMore if fresh => Reserve::Refused { retry_after_s: 1 },
            Answer::More | Answer::NoMore | Answer::Outdated | Answer::Exhausted => Reserve::Ask { wish },
        };
        Reserved { lease, outcome, release: expired }
    }

    fn take(&mut self, amount: u64, worker: u64, holder: Holder) -> Reservation {
        self.available = self.available.saturating_sub(amount);
        self.taken = self.taken.saturating_add(amount);
        self.note(worker, self.window_start, amount);
        Reservation { amount, window_start: self.window_start, valid_since: holder.valid_since, worker }
    }

    /// Cuts a slice for more requests like one of `amount`, and takes it for the worker. None: there is too little for
    /// that, or the ledger has no more, and then each token counts.
    pub fn cut(&mut self, amount: u64, worker: u64, holder: Holder) -> Option<(Self, Reservation)> {
        let size = (self.available / SLICE_PART).min(amount.saturating_mul(SLICE_REQUESTS));
        if self.answer != Answer::More || size < amount.saturating_mul(2) {
            return None;
        }
        let slice = Self {
            available: size,
            // It never asks for more by itself.
            granted: 0,
            remaining: self.remaining.saturating_add(self.available - size),
            taken_by: self.taken_by.iter().filter(|taken| taken.worker == worker).copied().collect(),
            ..*self
        };
        Some((slice, self.take(size, worker, holder)))
    }

    /// Whether a slice is still what it was when it was taken.
    pub fn is_valid(&self, taken: &Reservation, now: u64, holder: Holder) -> bool {
        now < holder.expires_at && taken.valid_since == holder.valid_since && !self.window_is_over(now, holder)
    }

    /// Puts back what is left of a slice. It was not used, so it does not count for the rate.
    pub fn put_back(self, slice: &Reservation, left: u64, now: u64, holder: Holder) -> (Self, Settled) {
        let (mut lease, settled) = self.settle(&Reservation { amount: left, ..*slice }, 0, now, holder);
        lease.taken = lease.taken.saturating_sub(left);
        (lease, settled)
    }

    /// Whether to ask for more before the lease is used up: no more often than answers stay fresh.
    fn asks_early(&mut self, now: u64) -> bool {
        let low = self.available < self.granted / 2;
        let asks = low && self.answer == Answer::More && now >= self.asked_at.saturating_add(FRESH_MS);
        if asks {
            self.asked_at = now;
        }
        asks
    }

    fn taken_by(&mut self, worker: u64, window_start: i64) -> Option<&mut Taken> {
        self.taken_by.iter_mut().find(|taken| taken.worker == worker && taken.window_start == window_start)
    }

    fn note(&mut self, worker: u64, window_start: i64, amount: u64) {
        match self.taken_by(worker, window_start) {
            Some(taken) => taken.amount = taken.amount.saturating_add(amount),
            None if amount > 0 => self.taken_by.push(Taken { worker, window_start, amount }),
            None => {}
        }
    }

    /// Whether the worker of a reservation still answers for it.
    fn answers_for(&mut self, reserved: &Reservation) -> bool {
        let taken = self.taken_by(reserved.worker, reserved.window_start);
        taken.map_or(0, |taken| taken.amount) >= reserved.amount
    }

    /// A worker no longer answers for so many tokens, because they came back or the ledger has heard of them. False: it
    /// did not answer for so many.
    pub fn answered_for(&mut self, worker: u64, window_start: i64, amount: u64) -> bool {
        let Some(taken) = self.taken_by(worker, window_start) else {
            return amount == 0;
        };
        let had = taken.amount;
        taken.amount = had.saturating_sub(amount);
        self.taken_by.retain(|taken| taken.amount > 0);
        had >= amount
    }

    /// Takes away what a dead worker answered for.
    pub fn bury(&mut self, worker: u64) -> Vec<Release> {
        let buried = self.taken_by.extract_if(.., |taken| taken.worker == worker);
        buried.map(|taken| Release { window_start: taken.window_start, amount: taken.amount }).collect()
    }

    /// Gives what a dead worker answered for to another one, who is to report it.
    pub fn inherit(&mut self, dead: u64, heir: u64) -> Vec<Release> {
        let taken = self.bury(dead);
        for one in &taken {
            self.note(heir, one.window_start, one.amount);
        }
        taken
    }

    /// Whether this worker answers for tokens, of whatever window.
    pub fn is_noted(&self, worker: u64) -> bool {
        self.taken_by.iter().any(|taken| taken.worker == worker)
    }

    /// The workers that have taken tokens.
    #[cfg(test)]
    pub fn workers(&self) -> impl Iterator<Item = u64> {
        self.taken_by.iter().map(|taken| taken.worker)
    }

    /// So many tokens as are enough for [`AHEAD_MS`] at the rate of late, and for four requests like this one.
    fn wish(&mut self, amount: u64, now: u64) -> u64 {
        let elapsed = now.saturating_sub(self.counted_from).max(1000);
        let for_ms = |ms| self.taken.saturating_mul(ms) / elapsed;
        let wish = for_ms(AHEAD_MS).max(amount.saturating_mul(4));
        let (forgets, folds) = (elapsed > 2 * RATE_MS, elapsed > RATE_MS);
        if folds {
            // What is older counts less and less, and nothing after a while without requests.
            let (taken, ago) = if forgets { (0, 0) } else { (for_ms(RATE_MS / 2), RATE_MS / 2) };
            (self.taken, self.counted_from) = (taken, now.saturating_sub(ago));
        }
        wish
    }

    /// Takes in a grant. At `sent_at`, at least `least` was asked for.
    pub fn grant(
        self,
        grant: &wire::Grant,
        least: u64,
        sent_at: u64,
        now: u64,
        holder: Holder,
    ) -> (Self, Option<Release>) {
        if grant.window_start < self.window_start && !grant.unknown {
            // The answer of the next window has come before this one.
            let late = Release { window_start: grant.window_start, amount: grant.granted };
            return (self, (late.amount > 0).then_some(late));
        }
        let (mut lease, mut release) = self.held(now, holder);
        if grant.window_start != lease.window_start {
            release = release.or(lease.release());
        }
        lease.window_start = grant.window_start;
        lease.window_end = grant.window_end;
        lease.available = lease.available.saturating_add(grant.granted);
        lease.granted = lease.available;
        lease.limit = grant.limit;
        lease.remaining = grant.remaining;
        lease.sent_at = lease.sent_at.max(sent_at);
        lease.answered_at = now;
        lease.answer = if grant.unknown {
            Answer::Unknown
        } else if grant.exhausted {
            Answer::Exhausted
        } else if grant.remaining == 0 || grant.granted < least {
            Answer::NoMore
        } else {
            Answer::More
        };
        (lease, release)
    }

    /// Replaces a reservation by what the request really cost. What it used of the lease stays noted under its worker
    /// until the ledger has heard of it.
    pub fn settle(mut self, reserved: &Reservation, truth: u64, now: u64, holder: Holder) -> (Self, Settled) {
        if self.window_start != reserved.window_start
            || reserved.valid_since != holder.valid_since
            || self.answered_at == 0
        {
            return (self, Settled { from_lease: reserved.amount, charged: truth, release: None });
        }
        if !self.answers_for(reserved) {
            // Another worker took this one for dead and charged the reservation.
            return (self, Settled { from_lease: 0, charged: truth.saturating_sub(reserved.amount), release: None });
        }
        let unused = reserved.amount.saturating_sub(truth);
        self.answered_for(reserved.worker, reserved.window_start, unused);
        let (mut lease, release) = self.held(now, holder);
        let owed = truth.saturating_sub(reserved.amount).min(lease.available);
        lease.note(reserved.worker, reserved.window_start, owed);
        lease.available = lease.available.saturating_add(unused).saturating_sub(owed);
        lease.used_at = now;
        // Tokens may have come back to the budget, so the next request asks the ledger again.
        if lease.answer == Answer::NoMore {
            lease.answer = Answer::Outdated;
        }
        (lease, Settled { from_lease: reserved.amount - unused + owed, charged: truth, release })
    }

    /// Gives the lease back if nobody has used it for a while.
    pub fn release_idle(self, now: u64, holder: Holder) -> (Self, Option<Release>) {
        let (mut lease, expired) = self.held(now, holder);
        if !lease.window_is_over(now, holder) && now < lease.used_at.saturating_add(IDLE_MS) {
            return (lease, expired);
        }
        let release = expired.or(lease.release());
        (lease, release)
    }

    /// Whether somebody used it a short while ago.
    pub fn is_in_use(&self, now: u64) -> bool {
        now < self.used_at.saturating_add(IDLE_MS)
    }

    fn release(&mut self) -> Option<Release> {
        let amount = std::mem::take(&mut self.available);
        (amount > 0).then_some(Release { window_start: self.window_start, amount })
    }

    fn seconds_left(&self, now: u64, holder: Holder) -> u64 {
        let now_s = holder.ledger_time(now) / 1000;
        self.window_end.cast_unsigned().saturating_sub(now_s).max(1)
    }

    /// How much of the budget is left, as far as this process knows. None: it knows of no limit.
    pub fn rate(&self, now: u64, holder: Holder) -> Option<Rate> {
        (self.limit != 0).then(|| Rate {
            limit: self.limit,
            remaining: self.remaining.saturating_add(self.available).min(self.limit),
            reset_s: (self.window_end != 0).then(|| self.seconds_left(now, holder)),
        })
    }
}
