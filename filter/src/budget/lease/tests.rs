//! What a lease says and does at each step, and that no token is lost by any order of steps.

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
    assert_eq!(outcome, Reserve::Ask { wish: 30_000 }, "thirty seconds at the rate of late");
    assert_eq!((lease.taken, lease.counted_from), (5000, 1000));
    let (lease, _) = reserve(&lease, 100, 11_000);
    assert_eq!((lease.taken, lease.counted_from), (5000, 1000), "all of it is of late");
    let (lease, outcome) = reserve(&lease, 100, 21_000);
    assert_eq!(outcome, Reserve::Ask { wish: 7500 });
    assert_eq!((lease.taken, lease.counted_from), (1250, 16_000), "the same rate, and what comes now counts more");
    let (lease, outcome) = reserve(&lease, 100, 21_000);
    assert_eq!(outcome, Reserve::Ask { wish: 7500 }, "no wish is small because others have just been counted");
    let (lease, _) = reserve(&lease, 100, 36_001);
    assert_eq!((lease.taken, lease.counted_from), (0, 36_001), "it is of long ago");
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
    assert_eq!((reserved.lease.taken, reserved.lease.counted_from, reserved.lease.used_at), (0, 3_600_000, 3_600_000));
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
    assert_eq!(outcome, Reserve::Ask { wish: 15_000 }, "thirty seconds at 500 a second");
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
    assert_eq!(lease.clone().release_idle(20_999, HOLDER).1, None);
    assert!(lease.is_in_use(20_999) && !lease.is_in_use(21_000));
    let (lease, release) = lease.release_idle(21_000, HOLDER);
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
