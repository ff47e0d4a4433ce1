//! What this process holds of one bucket, and what a request reserves of it and settles at its end. Everything
//! here is a function of a record and the time.
//!
//! spent ≤ limit + Σ over running requests (true − reserved): a request gets what it asks for, or what
//! is left when the ledger has just said that there is no more.

use tollgate_proto::v1 as wire;

use crate::host::Shared;

/// How long an answer of the ledger is believed, so that a raised limit acts soon.
const FRESH_MS: u64 = 1000;
/// A lease that nobody used for so long goes back. Longer than the control plane takes to start anew, so
/// that a gateway with little to do has tokens meanwhile.
const IDLE_MS: u64 = 10_000;

/// What this process holds of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lease {
    pub window_start: i64,
    /// Unix seconds; 0: the window never ends.
    pub window_end: i64,
    /// Tokens that may be reserved without asking.
    pub available: u64,
    /// `available` after the last grant.
    granted: u64,
    pub limit: u64,
    /// What the ledger had left after the last grant.
    pub remaining: u64,
    /// When the call of the last grant was sent.
    sent_at: u64,
    /// When its answer came; 0: never.
    answered_at: u64,
    answer: Answer,
    /// When more was last asked for in advance.
    asked_at: u64,
    pub used_at: u64,
    /// Tokens taken since `counted_from`, for the size of the next wish.
    taken: u64,
    counted_from: u64,
}

/// What the last answer means for who asks next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Answer {
    /// There is more.
    #[default]
    More,
    /// Everything is leased out or less came than was needed.
    NoMore,
    /// Spent up to the limit.
    Exhausted,
    /// The ledger knows no such limit.
    Unknown,
}

/// How long the ledger keeps what this process holds; one record for all buckets and workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holder {
    pub expires_at: u64,
    /// Grants of calls sent before this are void: they expired before the ledger heard of us again.
    pub valid_since: u64,
}

/// Tokens taken from a lease for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    pub amount: u64,
    pub window_start: i64,
    valid_since: u64,
}

/// What a try to reserve gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    Taken(Reservation),
    /// Taken, and the lease runs low: time to ask for this much more.
    TakenLow(Reservation, u64),
    /// Nothing is left; seconds until it is worth asking again.
    Refused {
        retry_after_s: u64,
    },
    /// The ledger has to be asked for at least what is needed, better for this much.
    Ask {
        wish: u64,
    },
}

/// Tokens of an ended window or an expired lease, or that nobody uses, on their way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    pub window_start: i64,
    pub amount: u64,
}

/// What became of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// What of the lease was used up.
    pub from_lease: u64,
    /// The lease had expired meanwhile.
    pub release: Option<Release>,
}

// === impl Lease ===

impl Lease {
    const LEN: usize = 13 * 8;

    // One copy for all who change records: the module is compiled anew at each start of Envoy.
    #[inline(never)]
    pub fn decode(record: &[u8]) -> Self {
        let mut words = record.chunks_exact(8).map(crate::host::read_u64);
        if record.len() != Self::LEN {
            return Self::default();
        }
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
            answer: match next() {
                0 => Answer::More,
                1 => Answer::NoMore,
                2 => Answer::Exhausted,
                _ => Answer::Unknown,
            },
            asked_at: next(),
            used_at: next(),
            taken: next(),
            counted_from: next(),
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
            match self.answer {
                Answer::More => 0,
                Answer::NoMore => 1,
                Answer::Exhausted => 2,
                Answer::Unknown => 3,
            },
            self.asked_at,
            self.used_at,
            self.taken,
            self.counted_from,
        ];
        let mut record = Vec::with_capacity(Self::LEN);
        for word in words {
            record.extend_from_slice(&word.to_le_bytes());
        }
        record
    }

    fn window_is_over(&self, now: u64) -> bool {
        self.window_end != 0 && now >= self.window_end.cast_unsigned().saturating_mul(1000)
    }

    /// What is still ours. The ledger may have charged an expired lease, so nothing more is taken from it;
    /// what is left is given back, and the ledger credits it however late it comes.
    fn held(mut self, now: u64, holder: Holder) -> (Self, Option<Release>) {
        if now < holder.expires_at && self.sent_at >= holder.valid_since {
            return (self, None);
        }
        let release = self.release();
        self.available = 0;
        (self, release)
    }

    /// Takes `amount`, or says what is to be done.
    pub fn reserve(self, amount: u64, now: u64, holder: Holder) -> (Self, Reserve, Option<Release>) {
        let (mut lease, expired) = self.held(now, holder);
        let wish = lease.wish(amount, now);
        lease.used_at = now;
        if lease.answered_at == 0 {
            return (lease, Reserve::Ask { wish }, expired);
        }
        if lease.window_is_over(now) {
            let release = expired.or(lease.release());
            let rolled = Self { taken: lease.taken, counted_from: lease.counted_from, used_at: now, ..Self::default() };
            return (rolled, Reserve::Ask { wish }, release);
        }
        let fresh = now < lease.answered_at.saturating_add(FRESH_MS);
        let take = |mut lease: Self, amount: u64| {
            lease.available -= amount;
            lease.taken = lease.taken.saturating_add(amount);
            let window_start = lease.window_start;
            (lease, Reservation { amount, window_start, valid_since: holder.valid_since })
        };
        match lease.answer {
            Answer::Unknown if fresh => {
                let (lease, taken) = take(lease, 0);
                (lease, Reserve::Taken(taken), expired)
            }
            Answer::Unknown => (lease, Reserve::Ask { wish }, expired),
            answer if lease.available >= amount && lease.available > 0 => {
                let (mut lease, taken) = take(lease, amount);
                let low = lease.available < lease.granted / 2;
                if low && answer == Answer::More && now >= lease.asked_at.saturating_add(FRESH_MS) {
                    lease.asked_at = now;
                    return (lease, Reserve::TakenLow(taken, wish), expired);
                }
                (lease, Reserve::Taken(taken), expired)
            }
            Answer::NoMore | Answer::Exhausted if fresh && lease.available > 0 => {
                let rest = lease.available;
                let (lease, taken) = take(lease, rest);
                (lease, Reserve::Taken(taken), expired)
            }
            Answer::Exhausted if fresh => {
                let retry_after_s = lease.seconds_left(now);
                (lease, Reserve::Refused { retry_after_s }, expired)
            }
            Answer::NoMore if fresh => (lease, Reserve::Refused { retry_after_s: 1 }, expired),
            Answer::More | Answer::NoMore | Answer::Exhausted => (lease, Reserve::Ask { wish }, expired),
        }
    }

    /// Enough for ten seconds at the rate of late, and for a few requests like this one.
    fn wish(&mut self, amount: u64, now: u64) -> u64 {
        let elapsed = now.saturating_sub(self.counted_from).max(1000);
        let wish = (self.taken.saturating_mul(10_000) / elapsed).max(amount.saturating_mul(4));
        if elapsed > 10_000 {
            self.taken = 0;
            self.counted_from = now;
        }
        wish
    }

    /// Takes a grant in. `least` is what had been asked for at least, `sent_at` when.
    pub fn grant(
        self,
        grant: &wire::Grant,
        least: u64,
        sent_at: u64,
        now: u64,
        holder: Holder,
    ) -> (Self, Option<Release>) {
        if grant.window_start < self.window_start && !grant.unknown {
            // An answer that was overtaken by the next window's.
            let late = Release { window_start: grant.window_start, amount: grant.granted };
            return (self, (late.amount > 0).then_some(late));
        }
        let (mut lease, mut release) = self.held(now, holder);
        if grant.window_start != lease.window_start {
            release = release.or(lease.release());
            lease.available = 0;
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

    /// Replaces a reservation by the truth.
    pub fn settle(self, reserved: &Reservation, truth: u64, now: u64, holder: Holder) -> (Self, Settled) {
        if self.window_start != reserved.window_start
            || reserved.valid_since != holder.valid_since
            || self.answered_at == 0
        {
            return (self, Settled { from_lease: reserved.amount, release: None });
        }
        let (mut lease, release) = self.held(now, holder);
        let have = lease.available.saturating_add(reserved.amount);
        lease.available = have.saturating_sub(truth);
        lease.used_at = now;
        // That all was taken is old news once something of it has ended: who asks next hears what is true now.
        if lease.answer == Answer::NoMore {
            lease.answered_at = lease.answered_at.min(now.saturating_sub(FRESH_MS)).max(1);
        }
        (lease, Settled { from_lease: have - lease.available, release })
    }

    /// Gives back what nobody used for a while.
    pub fn release_idle(self, now: u64, holder: Holder) -> (Self, Option<Release>) {
        let (mut lease, expired) = self.held(now, holder);
        if !lease.window_is_over(now) && now < lease.used_at.saturating_add(IDLE_MS) {
            return (lease, expired);
        }
        let release = expired.or(lease.release());
        lease.available = 0;
        (lease, release)
    }

    /// Somebody used it a short while ago.
    pub fn is_in_use(&self, now: u64) -> bool {
        now < self.used_at.saturating_add(IDLE_MS)
    }

    fn release(&self) -> Option<Release> {
        (self.available > 0).then_some(Release { window_start: self.window_start, amount: self.available })
    }

    pub fn seconds_left(&self, now: u64) -> u64 {
        let now_s = now / 1000;
        self.window_end.cast_unsigned().saturating_sub(now_s).max(1)
    }

    /// What of the budget is left, as far as this process knows.
    pub fn left(&self) -> u64 {
        self.remaining.saturating_add(self.available).min(self.limit)
    }
}

// === impl Holder ===

impl Holder {
    pub const RECORD: &'static str = "holder";

    pub fn decode(record: &[u8]) -> Self {
        let mut words = record.chunks_exact(8).map(crate::host::read_u64);
        let mut next = || words.next().unwrap_or(0);
        Self { expires_at: next(), valid_since: next() }
    }

    pub fn encode(self) -> Vec<u8> {
        [self.expires_at.to_le_bytes(), self.valid_since.to_le_bytes()].concat()
    }

    pub fn read(shared: &dyn Shared) -> Self {
        shared.get(Self::RECORD).map_or_else(Self::default, |(record, _)| Self::decode(&record))
    }

    /// After a successful call that was sent at `sent_at`.
    pub fn extended(self, sent_at: u64, ttl_ms: u64) -> Self {
        Self {
            expires_at: self.expires_at.max(sent_at.saturating_add(ttl_ms)),
            valid_since: if sent_at >= self.expires_at { sent_at } else { self.valid_since },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLDER: Holder = Holder { expires_at: u64::MAX, valid_since: 0 };

    fn grant(granted: u64, remaining: u64) -> wire::Grant {
        wire::Grant { window_start: 0, window_end: 3600, granted, limit: 1000, remaining, ..Default::default() }
    }

    fn granted(granted: u64, remaining: u64, least: u64) -> Lease {
        Lease::default().grant(&grant(granted, remaining), least, 1, 1000, HOLDER).0
    }

    #[test]
    fn records_survive_encoding() {
        let lease = granted(500, 400, 1);
        assert_eq!(Lease::decode(&lease.encode()), lease);
        assert_eq!(Lease::decode(&[0]), Lease::default());
        let holder = Holder { expires_at: 7, valid_since: 3 };
        assert_eq!(Holder::decode(&holder.encode()), holder);
    }

    #[test]
    fn inside_the_lease_nothing_is_asked() {
        let (lease, reserve, _) = granted(500, 400, 1).reserve(100, 1000, HOLDER);
        assert_eq!(lease.available, 400);
        assert!(matches!(reserve, Reserve::Taken(Reservation { amount: 100, .. })));
    }

    #[test]
    fn a_low_lease_asks_once_in_advance() {
        let (lease, reserve, _) = granted(500, 400, 1).reserve(300, 2000, HOLDER);
        assert!(matches!(reserve, Reserve::TakenLow(_, wish) if wish >= 300), "{reserve:?}");
        let (_, reserve, _) = lease.reserve(10, 2001, HOLDER);
        assert!(matches!(reserve, Reserve::Taken(_)));
    }

    #[test]
    fn the_last_tokens_are_given_out_and_then_it_is_over() {
        let (lease, reserve, _) = granted(50, 0, 100).reserve(100, 1001, HOLDER);
        assert!(matches!(reserve, Reserve::Taken(Reservation { amount: 50, .. })));
        let (lease, reserve, _) = lease.reserve(100, 1002, HOLDER);
        assert_eq!(reserve, Reserve::Refused { retry_after_s: 1 });
        let (_, reserve, _) = lease.reserve(100, 2000, HOLDER);
        assert!(matches!(reserve, Reserve::Ask { .. }), "a denial is believed for a second only");
    }

    #[test]
    fn the_end_of_a_request_makes_a_denial_old_news() {
        let (lease, reserve, _) = granted(50, 0, 50).reserve(50, 1001, HOLDER);
        let Reserve::Taken(reservation) = reserve else { panic!("{reserve:?}") };
        // It cost more than was reserved: the ledger will say that the budget is spent, and until when.
        let (lease, _) = lease.settle(&reservation, 80, 1002, HOLDER);
        assert!(matches!(lease.reserve(50, 1003, HOLDER).1, Reserve::Ask { .. }));
    }

    #[test]
    fn an_exhausted_budget_says_when_it_starts_anew() {
        let exhausted = wire::Grant { exhausted: true, ..grant(0, 0) };
        let (lease, _) = Lease::default().grant(&exhausted, 1, 1, 600_000, HOLDER);
        assert_eq!(lease.reserve(1, 600_500, HOLDER).1, Reserve::Refused { retry_after_s: 3000 });
    }

    #[test]
    fn with_tokens_elsewhere_it_asks() {
        let (_, reserve, _) = granted(50, 400, 10).reserve(100, 1001, HOLDER);
        assert_eq!(reserve, Reserve::Ask { wish: 400 });
        assert!(matches!(Lease::default().reserve(1, 0, HOLDER).1, Reserve::Ask { .. }));
    }

    #[test]
    fn an_unknown_limit_holds_nobody_back() {
        let unknown = wire::Grant { unknown: true, ..Default::default() };
        let (lease, _) = Lease::default().grant(&unknown, 9, 1, 1000, HOLDER);
        assert!(matches!(lease.reserve(9, 1001, HOLDER).1, Reserve::Taken(Reservation { amount: 0, .. })));
    }

    #[test]
    fn an_ended_window_goes_back() {
        let (lease, reserve, release) = granted(500, 400, 1).reserve(100, 3_600_000, HOLDER);
        assert_eq!(release, Some(Release { window_start: 0, amount: 500 }));
        assert!(matches!(reserve, Reserve::Ask { .. }));
        assert_eq!(lease.available, 0);
        // What was reserved before does not come back into the new window.
        let old = Reservation { amount: 7, window_start: 0, valid_since: 0 };
        let next = wire::Grant { window_start: 3600, window_end: 7200, ..grant(50, 1) };
        let (lease, _) = lease.grant(&next, 1, 2, 3_600_001, HOLDER);
        let settled = Settled { from_lease: 7, release: None };
        assert_eq!(lease.settle(&old, 3, 3_600_002, HOLDER), (lease, settled));
    }

    #[test]
    fn an_expired_lease_is_void_even_after_the_ledger_is_back() {
        let lease = granted(500, 400, 1);
        let holder = Holder { expires_at: 5000, valid_since: 0 };
        let (left, reserve, release) = lease.reserve(100, 5000, holder);
        assert!(matches!(reserve, Reserve::Ask { .. }));
        assert_eq!(
            (left.available, release),
            (0, Some(Release { window_start: 0, amount: 500 })),
            "it goes back, once"
        );
        assert_eq!(left.reserve(100, 5001, holder).2, None);
        let back = holder.extended(6000, 30_000);
        assert_eq!(back, Holder { expires_at: 36_000, valid_since: 6000 });
        assert!(matches!(lease.reserve(100, 6001, back).1, Reserve::Ask { .. }));
        assert_eq!(holder.extended(4000, 30_000).valid_since, 0);
    }

    #[test]
    fn whoever_finds_a_lease_expired_gives_it_back() {
        let (lease, reserve, _) = granted(500, 400, 1).reserve(100, 1000, HOLDER);
        let Reserve::Taken(taken) = reserve else { panic!() };
        let holder = Holder { expires_at: 5000, valid_since: 0 };
        let release = Some(Release { window_start: 0, amount: 400 });
        let (settled, said) = lease.settle(&taken, 30, 5000, holder);
        assert_eq!((settled.available, said), (70, Settled { from_lease: 30, release }));
        assert_eq!(lease.release_idle(5000, holder).1, release);
        let (granted, given_back) = lease.grant(&grant(50, 1), 1, 6000, 6001, holder.extended(6000, 30_000));
        assert_eq!((granted.available, given_back), (50, release));
    }

    #[test]
    fn idle_leases_go_back() {
        let (lease, _, _) = granted(500, 400, 1).reserve(100, 1000, HOLDER);
        assert_eq!(lease.release_idle(10_999, HOLDER).1, None);
        let (lease, release) = lease.release_idle(11_000, HOLDER);
        assert_eq!(release, Some(Release { window_start: 0, amount: 400 }));
        assert_eq!(lease.available, 0);
    }

    proptest! {
        /// granted = available + reserved + used up + released, whatever happens in which order.
        #[test]
        fn tokens_are_conserved(steps in prop::collection::vec((0u8..4, 0u64..300, 0u64..400), 1..60)) {
            let mut lease = Lease::default();
            let mut open: Vec<Reservation> = Vec::new();
            let (mut total, mut used, mut released) = (0, 0, 0);
            let mut now = 1000;
            for (kind, amount, truth) in steps {
                now += 50;
                match kind {
                    0 => {
                        let (next, release) = lease.grant(&grant(amount, 10), amount, now, now, HOLDER);
                        prop_assert_eq!(release, None);
                        total += amount;
                        lease = next;
                    }
                    1 => {
                        let (next, reserve, _) = lease.reserve(amount, now, HOLDER);
                        if let Reserve::Taken(taken) | Reserve::TakenLow(taken, _) = reserve {
                            prop_assert!(taken.amount <= amount);
                            open.push(taken);
                        }
                        lease = next;
                    }
                    2 => if let Some(reserved) = open.pop() {
                        let (next, settled) = lease.settle(&reserved, truth, now, HOLDER);
                        prop_assert!(settled.from_lease <= truth, "never more than it cost");
                        used += settled.from_lease;
                        lease = next;
                    },
                    _ => {
                        let (next, release) = lease.release_idle(now + 12_000, HOLDER);
                        released += release.map_or(0, |release| release.amount);
                        lease = next;
                    }
                }
                let reserved: u64 = open.iter().map(|reserved| reserved.amount).sum();
                prop_assert_eq!(total, lease.available + reserved + used + released);
            }
        }
    }
}
