//! What a worker takes for itself, and that no token is lost or doubled by it.

use proptest::prelude::*;
use tollgate_proto::v1 as wire;

use super::*;
use crate::{
    budget::{Holder, Release, Scope},
    config::{EarlyEnd, Limit, Mode, ScopePart, Weights, WithoutLedger},
    host::{Conflict, FakeShared, Shared, Version},
    report::Identity,
};

const NOW: u64 = 1_000_000;
const HOLDER: Holder = Holder { expires_at: u64::MAX, valid_since: 0, ahead_ms: 0 };
const GRANTED: u64 = 16_000;
const LIMIT: u64 = 100_000;
/// Unix seconds.
const WINDOW: (i64, i64) = (0, 9000);

/// A worker that reserves from the one budget of these tests.
struct Worker<'s> {
    shared: &'s dyn Shared,
    number: u64,
    slices: Slices,
    reporter: Reporter,
    holder: Holder,
}

// === impl Worker ===

impl<'s> Worker<'s> {
    fn new(shared: &'s dyn Shared, number: u64) -> Self {
        let slices = Slices { are_put_back: true, ..Slices::default() };
        Self { shared, number, slices, reporter: Reporter::default(), holder: HOLDER }
    }

    fn counter(&self, now: u64) -> Counter<'s> {
        Counter { shared: self.shared, worker: self.number, holder: self.holder, now }
    }

    fn draw(&mut self, amount: u64, now: u64) -> Drawn {
        let counter = self.counter(now);
        self.slices.reserve(&budget(), &counter, amount, &mut self.reporter)
    }

    fn reserve(&mut self, amount: u64, now: u64) -> Reservation {
        match self.draw(amount, now).outcome {
            Reserve::Taken { reservation, .. } => reservation,
            other => panic!("{other:?}"),
        }
    }

    fn settle(&mut self, reservation: &Reservation, truth: u64, now: u64) {
        let counter = self.counter(now);
        self.slices.settle(&budget().bucket, &counter, reservation, truth, &mut self.reporter);
    }

    fn tick(&mut self, now: u64) {
        let counter = self.counter(now);
        self.slices.put_back(&counter, &mut self.reporter);
    }

    /// What the slice has left.
    fn slice(&self) -> Option<u64> {
        let used = self.slices.used.get(&budget().bucket.key)?;
        used.slice.as_ref().map(|slice| slice.lease.available)
    }

    /// What the ledger hears: tokens used of the lease, tokens given back, and tokens charged.
    fn told(&mut self) -> (u64, u64, u64) {
        let identity = Identity { proxy: "p".into(), epoch: 1, worker: self.number };
        let call = self.reporter.next(&identity, NOW, true).cloned().unwrap();
        self.reporter.answered(wire::SyncResponse { sequence: call.sequence, ..Default::default() });
        let all = |of: fn(&wire::Settlement) -> u64| call.settlements.iter().map(of).sum();
        (all(|one| one.from_lease), all(|one| one.released), all(|one| one.charged))
    }
}

/// Another worker always changes the record first.
struct Rival<'s>(&'s FakeShared);

impl Shared for Rival<'_> {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.0.get(key)
    }

    fn set(&self, _: &str, _: &[u8], _: Option<Version>) -> Result<(), Conflict> {
        Err(Conflict)
    }
}

fn budget() -> Budget {
    let limit = Limit {
        id: "default/p/daily".into(),
        scope: vec![ScopePart::Consumer],
        count: Weights { constant: 0.0, input: 1.0, output: 1.0, cached: 0.0, reasoning: 0.0 },
        mode: Mode::Enforce(WithoutLedger::Deny),
        on_early_end: EarlyEnd::Estimate,
    };
    let labels = tollgate_proto::Map::default();
    Budget::new(&Rc::new(limit), &Scope { consumer: "app", model: "", route: "", labels: &labels, claims: &labels })
}

/// A lease that was granted so many tokens. The ledger has so many more.
fn leased(granted: u64, remaining: u64) -> FakeShared {
    let shared = FakeShared::default();
    grant(&shared, granted, remaining, NOW);
    shared
}

fn grant(shared: &FakeShared, granted: u64, remaining: u64, now: u64) {
    let (window_start, window_end) = WINDOW;
    let grant = wire::Grant { window_start, window_end, granted, limit: LIMIT, remaining, ..Default::default() };
    change(shared, now, |lease| lease.grant(&grant, granted, now, now, HOLDER).0);
}

fn change(shared: &FakeShared, now: u64, mut change: impl FnMut(Lease) -> Lease) {
    update(shared, &budget().bucket.key, now, |record| (Some(change(Lease::decode(record)).encode()), ())).unwrap();
}

fn lease(shared: &FakeShared) -> Lease {
    shared.get(&budget().bucket.key).map(|(record, _)| Lease::decode(&record)).unwrap_or_default()
}

fn version(shared: &FakeShared) -> Version {
    shared.get(&budget().bucket.key).unwrap().1
}

/// Buries a worker; what it had taken.
fn bury(shared: &FakeShared, worker: u64) -> u64 {
    let mut buried: Vec<Release> = Vec::new();
    change(shared, NOW, |mut lease| {
        buried = lease.bury(worker);
        lease
    });
    buried.iter().map(|release| release.amount).sum()
}

/// Worker 1, after two requests.
fn with_slice(shared: &FakeShared) -> Worker<'_> {
    let mut worker = Worker::new(shared, 1);
    worker.reserve(10, NOW);
    worker.reserve(10, NOW);
    worker
}

#[test]
fn requests_one_after_another_need_no_shared_record() {
    let shared = leased(GRANTED, 50_000);
    let mut worker = Worker::new(&shared, 1);
    let first = worker.reserve(10, NOW);
    assert_eq!((worker.slice(), lease(&shared).available), (None, GRANTED - 10), "the first cuts none");
    let second = worker.reserve(10, NOW + 1);
    assert_eq!((worker.slice(), lease(&shared).available), (Some(320), GRANTED - 20 - 320));
    let before = version(&shared);
    let drawn = worker.draw(10, NOW + 2).outcome;
    let Reserve::Taken { reservation: third, low: None } = drawn else { panic!("a slice asks for no more: {drawn:?}") };
    worker.settle(&first, 4, NOW + 3);
    worker.settle(&second, 10, NOW + 3);
    worker.settle(&third, 25, NOW + 3);
    assert_eq!(version(&shared), before);
    // Each is settled with the slice, whether it was reserved before it or from it.
    assert_eq!(worker.slice(), Some(320 - 10 + 6 - 15));
    worker.tick(NOW + 4);
    let lease = lease(&shared);
    assert_eq!((worker.slice(), lease.available), (None, GRANTED - 39));
    assert_eq!(worker.told(), (39, 0, 39));
    assert_eq!(bury(&shared, 1), 39, "until the ledger has heard of them");
}

#[test]
fn a_slice_is_for_32_requests_and_an_eighth_of_the_lease_at_most() {
    for (granted, amount, size) in [
        (GRANTED, 10, Some(320)),
        (GRANTED, 62, Some(1984)),
        (GRANTED, 63, Some((GRANTED - 126) / 8)),
        (1616, 100, None),
        (1616 + 184, 100, Some(200)),
    ] {
        let shared = leased(granted, 50_000);
        let mut worker = Worker::new(&shared, 1);
        worker.reserve(amount, NOW);
        worker.reserve(amount, NOW);
        assert_eq!(worker.slice(), size, "{granted} {amount}");
    }
}

#[test]
fn none_is_cut_for_a_bucket_that_is_used_now_and_then() {
    for (pause, cut) in [(BUSY_MS - 1, true), (BUSY_MS, false)] {
        let shared = leased(GRANTED, 50_000);
        let mut worker = Worker::new(&shared, 1);
        worker.reserve(10, NOW);
        worker.reserve(10, NOW + pause);
        assert_eq!(worker.slice().is_some(), cut, "{pause}");
    }
    let shared = leased(GRANTED, 50_000);
    let mut worker = Worker::new(&shared, 1);
    worker.reserve(10, NOW);
    worker.tick(NOW + BUSY_MS - 1);
    assert_eq!(worker.slices.used.len(), 1);
    worker.tick(NOW + BUSY_MS);
    assert_eq!(worker.slices.used.len(), 0, "it is forgotten");
}

#[test]
fn none_is_cut_that_nobody_would_put_back_or_when_each_token_counts() {
    let shared = leased(GRANTED, 50_000);
    let mut worker = Worker::new(&shared, 1);
    worker.slices.are_put_back = false;
    worker.reserve(10, NOW);
    worker.reserve(10, NOW);
    assert_eq!(worker.slice(), None);
    let shared = leased(GRANTED, 0);
    let mut worker = Worker::new(&shared, 1);
    worker.reserve(10, NOW);
    worker.reserve(10, NOW);
    assert_eq!(worker.slice(), None, "the ledger has no more");
}

#[test]
fn answers_tell_the_same_rate_with_a_slice_as_without() {
    let shared = leased(GRANTED, 50_000);
    let (mut with, without) = (Worker::new(&shared, 1), leased(GRANTED, 50_000));
    for _ in 0..5 {
        let rate = with.draw(10, NOW).rate.unwrap();
        assert_eq!(Some(rate), Worker::new(&without, 1).draw(10, NOW).rate);
        assert_eq!((rate.limit, rate.reset_s), (LIMIT, Some(9000 - NOW / 1000)));
    }
    assert!(with.slice().is_some());
}

/// A slice that must not be used any more goes back, and the request is served from the lease.
#[test]
fn a_slice_is_good_for_a_while() {
    for (now, good) in [(NOW, true), (NOW + GOOD_MS - 1, true), (NOW + GOOD_MS, false), (NOW - 1, false)] {
        let shared = leased(GRANTED, 50_000);
        let mut worker = with_slice(&shared);
        let before = version(&shared);
        let reserved = worker.reserve(10, now);
        assert_eq!(version(&shared) == before, good, "{now}");
        worker.settle(&reserved, 0, now);
        assert_eq!(version(&shared) == before, good, "{now}");
        worker.tick(now);
        assert_eq!(lease(&shared).available, GRANTED - 20, "{now}");
    }
    // The time of the leases is over.
    let shared = leased(GRANTED, 50_000);
    let mut worker = with_slice(&shared);
    worker.holder = Holder { expires_at: NOW + 5, ..HOLDER };
    assert!(matches!(worker.draw(10, NOW + 4).outcome, Reserve::Taken { .. }));
    assert!(matches!(worker.draw(10, NOW + 5).outcome, Reserve::Ask { .. }));
    worker.tick(NOW + 6);
    let (used, released, _) = worker.told();
    assert_eq!((used, released + lease(&shared).available), (0, GRANTED - 30), "all but what runs goes back");
    // The leases were void meanwhile.
    let shared = leased(GRANTED, 50_000);
    let mut worker = with_slice(&shared);
    let before = version(&shared);
    worker.holder = Holder { valid_since: NOW + 1, ..HOLDER };
    assert!(matches!(worker.draw(10, NOW + 4).outcome, Reserve::Ask { .. }));
    assert_ne!(version(&shared), before);
    // The window is over.
    let shared = leased(GRANTED, 50_000);
    let mut worker = with_slice(&shared);
    worker.holder = Holder { ahead_ms: 8_000_000, ..HOLDER };
    assert!(matches!(worker.draw(10, NOW + 1).outcome, Reserve::Ask { .. }));
    let (_, released, _) = worker.told();
    assert_eq!(released, GRANTED - 20);
}

#[test]
fn a_slice_that_is_too_small_goes_back_and_another_is_cut() {
    let shared = leased(GRANTED, 50_000);
    let mut worker = with_slice(&shared);
    worker.reserve(320, NOW);
    assert_eq!(worker.slice(), Some(0), "the last token of it is used");
    worker.reserve(10, NOW);
    assert_eq!(worker.slice(), Some(320));
    worker.reserve(321, NOW);
    let cut = (GRANTED - 350 - 321) / 8;
    assert_eq!((worker.slice(), lease(&shared).available), (Some(cut), GRANTED - 350 - 321 - cut));
}

#[test]
fn what_a_slice_cannot_pay_the_lease_does() {
    let shared = leased(GRANTED, 50_000);
    let mut worker = Worker::new(&shared, 1);
    let (first, second) = (worker.reserve(10, NOW), worker.reserve(10, NOW));
    worker.settle(&first, 10 + 320, NOW);
    assert_eq!((worker.slice(), lease(&shared).available), (Some(0), GRANTED - 20 - 320));
    worker.settle(&second, 11, NOW);
    assert_eq!((worker.slice(), lease(&shared).available), (Some(0), GRANTED - 20 - 321));
    assert_eq!(worker.told(), (341, 0, 341), "no debt");
}

#[test]
fn what_comes_back_makes_no_slice_larger_than_it_was_cut() {
    let shared = leased(GRANTED, 50_000);
    let mut worker = Worker::new(&shared, 1);
    let (large, small) = (worker.reserve(9_000, NOW), worker.reserve(10, NOW));
    assert_eq!(worker.slice(), Some(320));
    worker.settle(&large, 0, NOW);
    assert_eq!((worker.slice(), lease(&shared).available), (Some(320), GRANTED - 10 - 320));
    let drawn = worker.reserve(10, NOW);
    worker.settle(&small, 0, NOW);
    assert_eq!((worker.slice(), lease(&shared).available), (Some(320), GRANTED - 10 - 320), "just as large");
    worker.settle(&drawn, 0, NOW);
    assert_eq!((worker.slice(), lease(&shared).available), (Some(320), GRANTED - 320));
}

#[test]
fn what_a_slice_took_and_did_not_use_is_no_rate() {
    let shared = leased(GRANTED, 50_000);
    let mut worker = Worker::new(&shared, 1);
    for tick in 0..10 {
        worker.reserve(10, NOW + tick * 90);
        worker.reserve(10, NOW + tick * 90 + 1);
        worker.tick(NOW + tick * 90 + 2);
    }
    // 200 tokens within the first second that the rate counts.
    match worker.draw(u64::from(u32::MAX), NOW + 902).outcome {
        Reserve::Ask { wish } => assert_eq!(wish, 4 * u64::from(u32::MAX)),
        other => panic!("{other:?}"),
    }
    change(&shared, NOW, |lease| lease.reserve(15_000, 2, NOW + 903, HOLDER).lease);
    let lease = lease(&shared).reserve(1000, 1, NOW + 904, HOLDER);
    assert_eq!(lease.outcome, Reserve::Ask { wish: (200 + 15_000) * 30 });
}

/// A worker that slept was taken for dead, and its slice was charged. It must not give out or put back those tokens.
#[test]
fn a_slice_that_was_charged_is_gone() {
    let shared = leased(GRANTED, 50_000);
    let mut worker = Worker::new(&shared, 1);
    worker.reserve(10, NOW);
    let running = worker.reserve(10, NOW);
    assert_eq!(bury(&shared, 1), 20 + 320);
    let left = lease(&shared).available;
    worker.tick(NOW + 20_000);
    assert_eq!((worker.slice(), lease(&shared).available), (None, left));
    worker.settle(&running, 12, NOW + 20_000);
    assert_eq!(worker.told(), (0, 0, 2), "what it used beyond the charge");
}

#[test]
fn a_record_that_cannot_be_changed_keeps_its_slice() {
    let shared = leased(GRANTED, 50_000);
    let rival = Rival(&shared);
    let mut worker = with_slice(&shared);
    worker.shared = &rival;
    worker.tick(NOW + 1000);
    assert_eq!(worker.slice(), Some(320));
    worker.shared = &shared;
    worker.tick(NOW + 1100);
    assert_eq!((worker.slice(), lease(&shared).available), (None, GRANTED - 20));
}

proptest! {
    /// granted = in the lease + in slices + reserved + used + released + buried, whatever happens in which order, and the
    /// lease notes under each worker exactly what it answers for.
    #[test]
    fn tokens_are_conserved(
        steps in prop::collection::vec((0u8..12, 0usize..2, 1u64..200, 0u64..300, 0u64..80), 1..120)
    ) {
        let shared = leased(GRANTED, 50_000);
        let mut workers = [Worker::new(&shared, 1), Worker::new(&shared, 2)];
        let mut running: [Vec<Reservation>; 2] = [Vec::new(), Vec::new()];
        let (mut granted, mut used, mut released, mut buried, mut charged, mut cost) = (GRANTED, 0, 0, 0, 0, 0);
        // What a buried worker's requests cost was charged by the burial, as far as it was reserved.
        let mut unheard = [0, 0];
        let mut now = NOW;
        for (kind, at, amount, truth, pause) in steps {
            now += pause;
            let worker = &mut workers[at];
            match kind {
                0..=4 => if let Reserve::Taken { reservation, .. } = worker.draw(amount, now).outcome {
                    running[at].push(reservation);
                },
                5..=7 => if let Some(reservation) = running[at].pop() {
                    worker.settle(&reservation, truth, now);
                    cost += truth;
                },
                8 => worker.tick(now),
                9 => {
                    grant(&shared, amount, 50_000, now);
                    granted += amount;
                }
                10 => {
                    // The worker's VM is gone, and with it whatever it had not told.
                    buried += bury(&shared, worker.number);
                    buried -= std::mem::take(&mut unheard[at]);
                    running[at].clear();
                    *worker = Worker::new(&shared, worker.number);
                }
                _ => now += 200,
            }
            for (worker, unheard) in workers.iter_mut().zip(&mut unheard) {
                let told = worker.told();
                used += told.0;
                released += told.1;
                charged += told.2;
                *unheard += told.0;
            }
            let sliced: Vec<u64> = workers.iter().map(|worker| worker.slice().unwrap_or(0)).collect();
            let reserved: Vec<u64> =
                running.iter().map(|running| running.iter().map(|one| one.amount).sum()).collect();
            let lease = lease(&shared);
            let all = lease.available + sliced.iter().sum::<u64>() + reserved.iter().sum::<u64>();
            prop_assert_eq!(granted, all + used + released + buried);
            for (at, worker) in workers.iter().enumerate() {
                let mut copy = lease.clone();
                let noted: u64 = copy.bury(worker.number).iter().map(|release| release.amount).sum();
                prop_assert_eq!(noted, sliced[at] + reserved[at] + unheard[at]);
            }
            prop_assert_eq!(charged, cost, "each request is charged what it cost");
        }
    }
}
