//! What this process holds of one bucket: requests reserve from it, and settle with it at their end. Everything here
//! is a function of a record and the time.
//!
//! The bound is spent ≤ limit + Σ over running requests (true − reserved). A request gets what it asks for. It gets
//! less only where the ledger has just said that there is no more: then it gets the rest.

use tollgate_proto::v1 as wire;

use crate::host::Shared;

/// How long an answer of the ledger is believed. It is short, so that a raised limit acts soon.
const FRESH_MS: u64 = 1000;
/// A lease that nobody has used for this time goes back. The control plane takes less than that to start anew, so a
/// gateway with little to do has tokens meanwhile.
const IDLE_MS: u64 = 10_000;
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
    /// Tokens taken since `counted_from`. They decide the size of the next wish.
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

/// How long the leases of this process are valid. There is one record for all buckets and workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holder {
    pub expires_at: u64,
    /// Grants of calls that were sent before this are void. They expired before the ledger heard of us again.
    pub valid_since: u64,
    /// The ledger's clock minus ours, in milliseconds. Windows end by the ledger's clock.
    pub ahead_ms: i64,
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
    const WORDS: usize = 13;
    const WORDS_PER_WORKER: usize = 3;

    // Not inlined: each copy of it would be compiled anew at each start of Envoy.
    #[inline(never)]
    pub fn decode(record: &[u8]) -> Self {
        let (words, []) = record.as_chunks::<8>() else {
            return Self::default();
        };
        if words.len() < Self::WORDS {
            return Self::default();
        }
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        Self {
            window_start: next().cast_signed(),
            window_end: next().cast_signed(),
            available: next(),
            granted: next(),
            limit: next(),
            remaining: next(),
            sent_at: next(),
            answered_at: next(),
            answer: Answer::of(next()),
            asked_at: next(),
            used_at: next(),
            taken: next(),
            counted_from: next(),
            taken_by: (0..(record.len() / 8 - Self::WORDS) / Self::WORDS_PER_WORKER)
                .map(|_| Taken { worker: next(), window_start: next().cast_signed(), amount: next() })
                .collect(),
        }
    }

    #[inline(never)]
    pub fn encode(&self) -> Vec<u8> {
        let words = [
            self.window_start.cast_unsigned(),
            self.window_end.cast_unsigned(),
            self.available,
            self.granted,
            self.limit,
            self.remaining,
            self.sent_at,
            self.answered_at,
            self.answer as u64,
            self.asked_at,
            self.used_at,
            self.taken,
            self.counted_from,
        ];
        let mut record = Vec::with_capacity(8 * (Self::WORDS + Self::WORDS_PER_WORKER * self.taken_by.len()));
        for word in words {
            record.extend_from_slice(&word.to_le_bytes());
        }
        for taken in &self.taken_by {
            for word in [taken.worker, taken.window_start.cast_unsigned(), taken.amount] {
                record.extend_from_slice(&word.to_le_bytes());
            }
        }
        record
    }

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

    /// So many tokens as are enough for ten seconds at the present rate, and for four requests like this one.
    fn wish(&mut self, amount: u64, now: u64) -> u64 {
        let elapsed = now.saturating_sub(self.counted_from).max(1000);
        let wish = (self.taken.saturating_mul(10_000) / elapsed).max(amount.saturating_mul(4));
        if elapsed > 10_000 {
            self.taken = 0;
            self.counted_from = now;
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

// === impl Answer ===

impl Answer {
    fn of(word: u64) -> Self {
        match word {
            0 => Self::More,
            1 => Self::NoMore,
            2 => Self::Outdated,
            3 => Self::Exhausted,
            _ => Self::Unknown,
        }
    }
}

// === impl Holder ===

impl Holder {
    pub const RECORD: &'static str = "holder";

    pub fn decode(record: &[u8]) -> Self {
        let mut words = record.chunks_exact(8).map(crate::host::read_u64);
        let mut next = || words.next().unwrap_or(0);
        Self { expires_at: next(), valid_since: next(), ahead_ms: next().cast_signed() }
    }

    pub fn encode(self) -> Vec<u8> {
        [self.expires_at.to_le_bytes(), self.valid_since.to_le_bytes(), self.ahead_ms.to_le_bytes()].concat()
    }

    /// What the ledger's clock shows when ours shows `now`. Both are unix milliseconds.
    pub fn ledger_time(self, now: u64) -> u64 {
        now.saturating_add_signed(self.ahead_ms)
    }

    pub fn read(shared: &dyn Shared) -> Self {
        shared.get(Self::RECORD).map_or_else(Self::default, |(record, _)| Self::decode(&record))
    }

    /// Between the sending of a call and its answer, the ledger's clock showed `ledger` (unix milliseconds; 0: it does
    /// not say). A difference that the time on the way can explain does not count.
    pub fn told(self, ledger: u64, sent_at: u64, now: u64) -> Self {
        let ahead_ms = if ledger == 0 || (sent_at..=now).contains(&ledger) {
            0
        } else {
            let nearest = if ledger < sent_at { sent_at } else { now };
            i64::try_from(i128::from(ledger) - i128::from(nearest)).unwrap_or(0)
        };
        Self { ahead_ms, ..self }
    }

    /// A call that was sent at `sent_at` has succeeded, so the leases are valid for longer.
    pub fn extended(self, sent_at: u64, ttl_ms: u64) -> Self {
        Self {
            expires_at: self.expires_at.max(sent_at.saturating_add(ttl_ms)),
            valid_since: if sent_at >= self.expires_at { sent_at } else { self.valid_since },
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLDER: Holder = Holder { expires_at: u64::MAX, valid_since: 0, ahead_ms: 0 };
    const ME: u64 = 1;

    fn grant(granted: u64, remaining: u64) -> wire::Grant {
        wire::Grant { window_start: 0, window_end: 3600, granted, limit: 1000, remaining, ..Default::default() }
    }

    fn granted(granted: u64, remaining: u64, least: u64) -> Lease {
        Lease::default().grant(&grant(granted, remaining), least, 1, 1000, HOLDER).0
    }

    fn reserve(lease: &Lease, amount: u64, now: u64) -> (Lease, Reserve) {
        let reserved = lease.clone().reserve(amount, ME, now, HOLDER);
        (reserved.lease, reserved.outcome)
    }

    fn taken(reserve: Reserve) -> Reservation {
        let Reserve::Taken { reservation, .. } = reserve else { panic!("{reserve:?}") };
        reservation
    }

    #[test]
    fn records_survive_encoding() {
        let (mut lease, _) = reserve(&granted(500, 400, 1), 100, 1000);
        lease.note(2, -60, 7);
        for answer in [Answer::More, Answer::NoMore, Answer::Outdated, Answer::Exhausted, Answer::Unknown] {
            lease.answer = answer;
            assert_eq!(Lease::decode(&lease.encode()), lease);
        }
        assert_eq!(Lease::decode(&[0]), Lease::default());
        let holder = Holder { expires_at: 7, valid_since: 3, ahead_ms: -5 };
        assert_eq!(Holder::decode(&holder.encode()), holder);
    }

    #[test]
    fn inside_the_lease_nothing_is_asked() {
        let (lease, outcome) = reserve(&granted(500, 400, 1), 100, 1000);
        assert_eq!((lease.available, taken(outcome).amount), (400, 100));
    }

    #[test]
    fn a_low_lease_asks_once_in_advance() {
        let (lease, outcome) = reserve(&granted(500, 400, 1), 250, 2000);
        assert!(matches!(outcome, Reserve::Taken { low: None, .. }), "half is not low: {outcome:?}");
        let (lease, outcome) = reserve(&lease, 1, 2000);
        assert!(matches!(outcome, Reserve::Taken { low: Some(wish), .. } if wish >= 251), "{outcome:?}");
        let (lease, outcome) = reserve(&lease, 10, 2000 + FRESH_MS - 1);
        assert!(matches!(outcome, Reserve::Taken { low: None, .. }), "{outcome:?}");
        let (_, outcome) = reserve(&lease, 10, 2000 + FRESH_MS);
        assert!(matches!(outcome, Reserve::Taken { low: Some(_), .. }), "{outcome:?}");
        let (_, outcome) = reserve(&granted(500, 0, 1), 400, 2000);
        assert!(matches!(outcome, Reserve::Taken { low: None, .. }), "there is no more to ask for");
    }

    #[test]
    fn the_last_tokens_are_given_out_and_then_it_is_over() {
        let (lease, outcome) = reserve(&granted(50, 0, 100), 100, 1001);
        assert_eq!(taken(outcome).amount, 50);
        let (lease, outcome) = reserve(&lease, 100, 1000 + FRESH_MS - 1);
        assert_eq!(outcome, Reserve::Refused { retry_after_s: 1 });
        let (_, outcome) = reserve(&lease, 100, 1000 + FRESH_MS);
        assert!(matches!(outcome, Reserve::Ask { .. }), "a denial is believed for a second only");
    }

    #[test]
    fn the_end_of_a_request_makes_a_denial_old_news() {
        let (lease, outcome) = reserve(&granted(50, 0, 50), 50, 1001);
        // It cost more than was reserved: the ledger will say that the budget is spent, and until when.
        let (lease, settled) = lease.settle(&taken(outcome), 80, 1002, HOLDER);
        assert_eq!(settled, Settled { from_lease: 50, charged: 80, release: None });
        assert!(matches!(reserve(&lease, 50, 1003).1, Reserve::Ask { .. }));
    }

    #[test]
    fn an_exhausted_budget_says_when_it_starts_anew() {
        let exhausted = wire::Grant { exhausted: true, ..grant(0, 0) };
        let (lease, _) = Lease::default().grant(&exhausted, 1, 1, 600_000, HOLDER);
        assert_eq!(reserve(&lease, 1, 600_500).1, Reserve::Refused { retry_after_s: 3000 });
        assert!(matches!(reserve(&lease, 1, 600_000 + FRESH_MS).1, Reserve::Ask { .. }));
    }

    #[test]
    fn with_tokens_elsewhere_it_asks() {
        let (lease, outcome) = reserve(&granted(50, 400, 10), 100, 1001);
        assert_eq!((outcome, lease.available), (Reserve::Ask { wish: 400 }, 50));
        assert!(matches!(reserve(&Lease::default(), 1, 0).1, Reserve::Ask { .. }));
        let lease = Lease { taken: 5000, counted_from: 1000, ..granted(50, 400, 10) };
        let (lease, outcome) = reserve(&lease, 100, 6000);
        assert_eq!(outcome, Reserve::Ask { wish: 10_000 }, "ten seconds at the rate of late");
        assert_eq!((lease.taken, lease.counted_from), (5000, 1000));
        let (lease, _) = reserve(&lease, 100, 11_001);
        assert_eq!((lease.taken, lease.counted_from), (0, 11_001), "the rate is of late");
    }

    #[test]
    fn a_grant_of_just_what_was_needed_is_no_denial() {
        assert!(matches!(reserve(&granted(50, 400, 50), 100, 1001).1, Reserve::Ask { .. }), "there is more");
        assert_eq!(taken(reserve(&granted(50, 400, 51), 100, 1001).1).amount, 50, "there is no more now");
        assert_eq!(taken(reserve(&granted(50, 0, 50), 100, 1001).1).amount, 50);
    }

    #[test]
    fn an_unknown_limit_holds_nobody_back() {
        let unknown = wire::Grant { unknown: true, ..Default::default() };
        let (lease, _) = Lease::default().grant(&unknown, 9, 1, 1000, HOLDER);
        assert_eq!(taken(reserve(&lease, 9, 1001).1).amount, 0);
        assert!(matches!(reserve(&lease, 9, 1000 + FRESH_MS).1, Reserve::Ask { .. }));
    }

    #[test]
    fn an_ended_window_goes_back() {
        let lease = granted(500, 400, 1);
        let before = lease.clone().reserve(7, ME, 1000, HOLDER);
        let old = taken(before.outcome);
        let reserved = before.lease.reserve(100, ME, 3_600_000, HOLDER);
        assert_eq!(reserved.release, Some(Release { window_start: 0, amount: 493 }));
        assert!(matches!(reserved.outcome, Reserve::Ask { .. }));
        assert_eq!(reserved.lease.available, 0);
        assert_eq!(
            (reserved.lease.taken, reserved.lease.counted_from, reserved.lease.used_at),
            (0, 3_600_000, 3_600_000)
        );
        assert_eq!(reserved.lease.workers().collect::<Vec<_>>(), [ME], "what was taken before is still unheard of");
        // What was reserved before does not come back into the new window.
        let next = wire::Grant { window_start: 3600, window_end: 7200, ..grant(50, 1) };
        let (lease, _) = reserved.lease.grant(&next, 1, 2, 3_600_001, HOLDER);
        let settled = Settled { from_lease: 7, charged: 3, release: None };
        assert_eq!(lease.clone().settle(&old, 3, 3_600_002, HOLDER), (lease.clone(), settled));
        let late = wire::Grant { window_start: 0, ..grant(9, 1) };
        let back = Some(Release { window_start: 0, amount: 9 });
        assert_eq!(lease.clone().grant(&late, 1, 3, 3_600_003, HOLDER), (lease, back), "an answer overtaken");
    }

    #[test]
    fn the_rate_of_late_goes_on_in_the_next_window() {
        let lease = Lease { taken: 500, counted_from: 3_599_000, ..granted(500, 400, 1) };
        let (next, outcome) = reserve(&lease, 1, 3_600_000);
        assert_eq!(outcome, Reserve::Ask { wish: 5000 }, "ten seconds at 500 a second");
        assert_eq!(reserve(&next, 1, 3_600_000).1, outcome, "whoever asks next asks for as much");
    }

    #[test]
    fn windows_end_by_the_ledgers_clock() {
        let lease = granted(500, 400, 1);
        for (ahead_ms, now, ends) in
            [(0, 3_599_999, false), (0, 3_600_000, true), (-5000, 3_604_999, false), (5000, 3_595_000, true)]
        {
            let holder = Holder { ahead_ms, ..HOLDER };
            let reserved = lease.clone().reserve(1, ME, now, holder);
            assert_eq!(matches!(reserved.outcome, Reserve::Ask { .. }), ends, "{ahead_ms} {now}");
        }
        let exhausted = wire::Grant { exhausted: true, ..grant(0, 0) };
        let behind = Holder { ahead_ms: 1_000_000, ..HOLDER };
        let (lease, _) = Lease::default().grant(&exhausted, 1, 1, 600_000, behind);
        let outcome = lease.reserve(1, ME, 600_500, behind).outcome;
        assert_eq!(outcome, Reserve::Refused { retry_after_s: 2000 });
    }

    #[test]
    fn the_way_of_a_call_is_not_held_against_our_clock() {
        let (sent_at, now) = (1000, 1020);
        for (ledger, ahead_ms) in
            [(0, 0), (999, -1), (1000, 0), (1010, 0), (1020, 0), (1021, 1), (1, -999), (6020, 5000), (u64::MAX, 0)]
        {
            let told = Holder { ahead_ms: 77, ..HOLDER }.told(ledger, sent_at, now);
            assert_eq!(told, Holder { ahead_ms, ..HOLDER }, "{ledger}");
        }
    }

    #[test]
    fn an_expired_lease_is_void_even_after_the_ledger_is_back() {
        let lease = granted(500, 400, 1);
        let holder = Holder { expires_at: 5000, ..HOLDER };
        assert!(matches!(lease.clone().reserve(100, ME, 4999, holder).outcome, Reserve::Taken { .. }));
        let left = lease.clone().reserve(100, ME, 5000, holder);
        assert!(matches!(left.outcome, Reserve::Ask { .. }));
        assert_eq!((left.lease.available, left.release), (0, Some(Release { window_start: 0, amount: 500 })));
        assert_eq!(left.lease.reserve(100, ME, 5001, holder).release, None, "it goes back once");
        let back = holder.extended(6000, 30_000);
        assert_eq!(back, Holder { expires_at: 36_000, valid_since: 6000, ahead_ms: 0 });
        assert!(matches!(lease.reserve(100, ME, 6001, back).outcome, Reserve::Ask { .. }));
        assert_eq!(holder.extended(4999, 30_000).valid_since, 0);
        assert_eq!(holder.extended(5000, 30_000).valid_since, 5000);
    }

    #[test]
    fn whoever_finds_a_lease_expired_gives_it_back() {
        let (lease, outcome) = reserve(&granted(500, 400, 1), 100, 1000);
        let holder = Holder { expires_at: 5000, ..HOLDER };
        let release = Some(Release { window_start: 0, amount: 400 });
        let (settled, said) = lease.clone().settle(&taken(outcome), 30, 5000, holder);
        assert_eq!((settled.available, said), (70, Settled { from_lease: 30, charged: 30, release }));
        assert_eq!(lease.clone().release_idle(5000, holder).1, release);
        let (granted, given_back) = lease.grant(&grant(50, 1), 1, 6000, 6001, holder.extended(6000, 30_000));
        assert_eq!((granted.available, given_back), (50, release));
    }

    #[test]
    fn idle_leases_go_back() {
        let (lease, _) = reserve(&granted(500, 400, 1), 100, 1000);
        assert_eq!(lease.clone().release_idle(10_999, HOLDER).1, None);
        assert!(lease.is_in_use(10_999) && !lease.is_in_use(11_000));
        let (lease, release) = lease.release_idle(11_000, HOLDER);
        assert_eq!(release, Some(Release { window_start: 0, amount: 400 }));
        assert_eq!(lease.available, 0);
    }

    #[test]
    fn what_a_dead_worker_took_is_taken_over() {
        let (lease, outcome) = reserve(&granted(500, 400, 1), 100, 1000);
        let one = taken(outcome);
        let (mut lease, outcome) = reserve(&lease, 60, 1000);
        // One request has ended and the ledger has not heard of it; the other still runs.
        lease = lease.settle(&taken(outcome), 20, 1001, HOLDER).0;
        let other = lease.clone().reserve(5, 2, 1002, HOLDER);
        lease = other.lease;
        assert_eq!(lease.workers().collect::<Vec<_>>(), [ME, 2]);
        assert!(lease.is_noted(ME) && lease.is_noted(2) && !lease.is_noted(3));
        assert_eq!(lease.bury(ME), [Release { window_start: 0, amount: 120 }]);
        assert_eq!(lease.bury(ME), []);
        // It was not dead, only slow: what it used beyond the charge is charged, nothing twice.
        let (lease, settled) = lease.settle(&one, 130, 1003, HOLDER);
        assert_eq!(settled, Settled { from_lease: 0, charged: 30, release: None });
        let (_, settled) = lease.settle(&taken(other.outcome), 3, 1004, HOLDER);
        assert_eq!(settled, Settled { from_lease: 3, charged: 3, release: None });
    }

    #[test]
    fn what_the_ledger_has_heard_of_is_nobodys_any_more() {
        let (lease, outcome) = reserve(&granted(500, 400, 1), 100, 1000);
        let (mut lease, settled) = lease.settle(&taken(outcome), 30, 1001, HOLDER);
        assert!(!lease.answered_for(ME, 60, 1), "of another window");
        assert!(lease.answered_for(ME, 0, settled.from_lease));
        assert_eq!(lease.workers().count(), 0);
        assert!(!lease.answered_for(ME, 0, 1) && lease.answered_for(ME, 0, 0));
    }

    proptest! {
        /// granted = available + reserved + used up + released + buried, whatever happens in which order,
        /// and what is noted under the workers is what they answer for.
        #[test]
        fn tokens_are_conserved(
            steps in prop::collection::vec((0u8..6, 0u64..300, 0u64..400, 1u64..4), 1..60)
        ) {
            let mut lease = Lease::default();
            let mut open: Vec<Reservation> = Vec::new();
            let mut unheard: Vec<(u64, u64)> = Vec::new();
            let (mut total, mut used, mut released, mut buried) = (0, 0, 0, 0);
            let mut now = 1000;
            for (kind, amount, truth, worker) in steps {
                now += 50;
                lease = Lease::decode(&lease.encode());
                match kind {
                    0 => {
                        let (next, release) = lease.grant(&grant(amount, 10), amount, now, now, HOLDER);
                        prop_assert_eq!(release, None);
                        total += amount;
                        lease = next;
                    }
                    1 => {
                        let reserved = lease.reserve(amount, worker, now, HOLDER);
                        if let Reserve::Taken { reservation, .. } = reserved.outcome {
                            prop_assert!(reservation.amount <= amount);
                            open.push(reservation);
                        }
                        lease = reserved.lease;
                    }
                    2 => if let Some(reserved) = open.pop() {
                        let (next, settled) = lease.settle(&reserved, truth, now, HOLDER);
                        prop_assert!(settled.from_lease <= truth, "never more than it cost");
                        prop_assert_eq!(settled.charged, truth);
                        used += settled.from_lease;
                        unheard.push((reserved.worker, settled.from_lease));
                        lease = next;
                    },
                    3 => {
                        let (next, release) = lease.release_idle(now + 12_000, HOLDER);
                        released += release.map_or(0, |release| release.amount);
                        lease = next;
                    }
                    4 => if let Some((worker, from_lease)) = unheard.pop() {
                        prop_assert!(lease.answered_for(worker, 0, from_lease));
                    },
                    _ => {
                        let dead: u64 = lease.bury(worker).iter().map(|release| release.amount).sum();
                        let heard: u64 = unheard.extract_if(.., |one| one.0 == worker).map(|one| one.1).sum();
                        open.retain(|reserved| reserved.worker != worker);
                        used -= heard;
                        buried += dead;
                    }
                }
                let reserved: u64 = open.iter().map(|reserved| reserved.amount).sum();
                prop_assert_eq!(total, lease.available + reserved + used + released + buried);
                let answered_for: u64 = lease.taken_by.iter().map(|taken| taken.amount).sum();
                prop_assert_eq!(answered_for, reserved + unheard.iter().map(|one| one.1).sum::<u64>());
            }
        }
    }
}
