//! What a worker remembers between requests, and what it tells the ledger of it.

use tollgate_proto::v1::API_KEY_TYPE;

use super::*;
use crate::{
    budget::{Reservation, Reserve},
    fixture,
    host::FakeShared,
    report::{Row, Want},
};

const NOW: u64 = 1_000_000;
/// What the ledger of these tests says.
const LEASES_LAST_MS: u32 = 60_000;
const WINDOW: i64 = 60;

struct NoBody;

impl RequestBody for NoBody {
    fn read(&self) -> Vec<u8> {
        Vec::new()
    }
}

fn bucket() -> Bucket {
    Bucket::new("default/p/daily".into(), vec!["app".to_owned()])
}

fn introduced(shared: &FakeShared, now: u64) -> Worker {
    let mut worker = Worker::default();
    worker.introduce(shared, || "node-1".to_owned(), now);
    worker
}

fn worker(shared: &FakeShared) -> Worker {
    introduced(shared, NOW)
}

fn lease(shared: &FakeShared) -> Lease {
    shared.get(&bucket().key).map(|(record, _)| Lease::decode(&record)).unwrap_or_default()
}

fn answer(sequence: u64, granted: Option<u64>) -> wire::SyncResponse {
    let grant = |granted| wire::Grant {
        window_start: WINDOW,
        window_end: 9000,
        granted,
        limit: 1000,
        remaining: 900,
        ..Default::default()
    };
    wire::SyncResponse {
        sequence,
        grants: granted.map(grant).into_iter().collect(),
        lease_ttl_ms: LEASES_LAST_MS,
        ..Default::default()
    }
}

/// A worker that was granted 100 tokens of the bucket by its first call.
fn with_tokens(shared: &FakeShared) -> Worker {
    let mut worker = worker(shared);
    let number = worker.reporter.hold(vec![Want { bucket: bucket(), wish: 100, least: 10 }]);
    worker.next_call(shared, NOW).cloned().unwrap();
    assert!(worker.ledger_answered(shared, answer(1, Some(100)), NOW));
    worker.reporter.let_go(number);
    worker
}

/// A worker that was granted tokens and will die, and one that lives.
fn two(shared: &FakeShared) -> (Worker, Worker) {
    let dead = with_tokens(shared);
    let mut living = worker(shared);
    living.refresh(shared);
    (dead, living)
}

/// Takes tokens of the bucket for a request of this worker.
fn reserve(shared: &FakeShared, worker: &Worker, amount: u64, now: u64) -> Reservation {
    let reserved = update(shared, &bucket().key, now, |record| {
        let reserved = Lease::decode(record).reserve(amount, worker.number, now, worker.holder);
        (Some(reserved.lease.encode()), reserved.outcome)
    });
    let Ok(Reserve::Taken { reservation, .. }) = reserved else { panic!("{reserved:?}") };
    reservation
}

/// The request has ended, and the ledger is to hear what it cost.
fn settle(shared: &FakeShared, worker: &mut Worker, reservation: Reservation, cost: u64, now: u64) {
    let settled = update(shared, &bucket().key, now, |record| {
        let (lease, settled) = Lease::decode(record).settle(&reservation, cost, now, worker.holder);
        (Some(lease.encode()), settled)
    })
    .unwrap();
    worker.reporter.settled(&bucket(), WINDOW, settled.from_lease, settled.charged);
}

// === who it is ===

#[test]
fn a_worker_takes_its_number_once() {
    let shared = fixture::shared();
    let mut one = Worker::default();
    assert_eq!(one.identity(&shared), None);
    assert_eq!(one.next_call(&shared, NOW), None);
    one.introduce(&shared, || "node-1".to_owned(), NOW);
    one.introduce(&shared, || "another name".to_owned(), NOW);
    assert_eq!(one.identity(&shared), Some(Identity { proxy: "node-1".into(), epoch: 7, worker: 1 }));
    assert_eq!(worker(&shared).identity(&shared).map(|identity| identity.worker), Some(2));
}

#[test]
fn nobody_is_anybody_before_the_process_has_an_epoch() {
    let shared = FakeShared::default();
    let worker = worker(&shared);
    assert_eq!((worker.number, worker.identity(&shared)), (1, None));
    prepare_records(&shared, 9);
    assert_eq!(worker.identity(&shared).map(|identity| (identity.epoch, identity.worker)), Some((9, 1)));
}

#[test]
fn records_that_are_there_stay() {
    let shared = fixture::shared();
    worker(&shared);
    prepare_records(&shared, 8);
    let identity = worker(&shared).identity(&shared).unwrap();
    assert_eq!((identity.epoch, identity.worker), (7, 2));
}

#[test]
fn workers_draw_differently() {
    let shared = fixture::shared();
    let later = fixture::shared();
    let elsewhere = FakeShared::default();
    prepare_records(&elsewhere, 1 << 40);
    let mut draws: Vec<u64> = [worker(&shared), worker(&shared), worker(&elsewhere), introduced(&later, NOW + 2)]
        .iter_mut()
        .map(|worker| worker.random.draw())
        .collect();
    draws.sort_unstable();
    draws.dedup();
    assert_eq!(draws.len(), 4, "by their numbers, the process and the time");
    assert_eq!(worker(&fixture::shared()).random.0, (7 ^ (1 << 32) ^ NOW) | 1);
}

#[test]
fn the_generator_is_marsaglias() {
    // The seed of "Xorshift RNGs" (2003); the states that big integers give for its shifts 13, 7, 17.
    let mut random = XorShift(88_172_645_463_325_252);
    for state in [8_748_534_153_485_358_512u64, 3_040_900_993_826_735_515] {
        assert_eq!(random.draw(), state.wrapping_mul(0x2545_f491_4f6c_dd1d));
    }
    assert_ne!(XorShift::default().draw(), 0);
    assert_ne!(XorShift::seeded(0).draw(), 0);
}

#[test]
fn every_number_below_a_bound_is_drawn() {
    let mut random = XorShift::seeded(5);
    let mut counts = [0u32; 7];
    for _ in 0..7000 {
        counts[usize::try_from(random.below(7)).unwrap()] += 1;
    }
    assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    assert_eq!(random.below(1), 0);
}

// === caches of shared records ===

#[test]
fn slow_records_are_looked_at_when_told() {
    let shared = fixture::shared();
    let mut worker = worker(&shared);
    let config = fixture::config(fixture::stage());
    let crate::config::Stage::Request(stage) = &config.stage else { panic!() };
    assert_eq!(worker.desk(stage, &shared, &NoBody, NOW).table, Table::Ready(1), "an empty one is looked at again");
    Table::Ready(2).write(&shared);
    let holder = Holder { expires_at: 5, valid_since: 3, ahead_ms: 0 };
    shared.set(Holder::RECORD, &holder.encode(), None).unwrap();
    let desk = worker.desk(stage, &shared, &NoBody, NOW);
    assert_eq!((desk.table, *desk.holder), (Table::Ready(1), Holder::default()), "the others are remembered");
    worker.refresh(&shared);
    let desk = worker.desk(stage, &shared, &NoBody, NOW);
    assert_eq!((desk.table, *desk.holder, desk.worker), (Table::Ready(2), holder, 1));
}

// === calls ===

#[test]
fn a_heartbeat_goes_out_a_third_of_the_time_to_live_after_the_last_call() {
    let shared = fixture::shared();
    let mut worker = with_tokens(&shared);
    let third = u64::from(LEASES_LAST_MS) / 3;
    assert_eq!(worker.next_call(&shared, NOW + third - 1), None);
    let heartbeat = worker.next_call(&shared, NOW + third).cloned().unwrap();
    assert!(heartbeat.wants.is_empty() && heartbeat.settlements.is_empty() && heartbeat.usage.is_empty());
    worker.ledger_answered(&shared, answer(2, None), NOW + third);
    assert_eq!(worker.next_call(&shared, NOW + 2 * third - 1), None, "the call counts from when it was sent");
    assert!(worker.next_call(&shared, NOW + 2 * third).is_some());
}

#[test]
fn leases_are_kept_alive_while_somebody_holds_tokens() {
    let shared = fixture::shared();
    let mut worker = worker(&shared);
    assert_eq!(worker.next_call(&shared, NOW), None, "it holds nothing");
    worker.holder.expires_at = NOW + TTL_MS;
    worker.open = 1;
    assert_eq!(worker.next_call(&shared, NOW + TTL_MS / 3 - 1), None);
    assert!(worker.next_call(&shared, NOW + TTL_MS / 3).is_some(), "before the ledger has said how long leases live");
}

#[test]
fn calls_and_rows_that_got_lost_are_counted() {
    let shared = fixture::shared();
    let mut worker = worker(&shared);
    worker.reporter.used(Row::default());
    worker.reporter.dropped = 3;
    worker.next_call(&shared, NOW).cloned().unwrap();
    assert_eq!(worker.next_call(&shared, NOW), None);
    assert_eq!((worker.counters.ledger_calls, worker.counters.dropped, worker.reporter.dropped), (1, 3, 0));
    worker.ledger_failed(3, NOW);
    worker.reporter.used(Row::default());
    worker.next_call(&shared, NOW).cloned().unwrap();
    assert_eq!((worker.counters.ledger_calls, worker.counters.dropped), (2, 4));
}

#[test]
fn some_statuses_are_for_ever() {
    let shared = fixture::shared();
    for status in 0..=16 {
        let mut worker = worker(&shared);
        worker.reporter.used(Row::default());
        let sent = worker.next_call(&shared, NOW).cloned();
        // INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE.
        let (taken, refused) = if [3, 9, 11].contains(&status) { (Taken::Never, 1) } else { (Taken::Later, 0) };
        assert_eq!(worker.ledger_failed(status, NOW), taken, "{status}");
        assert_eq!(worker.counters.calls_refused, refused);
        let again = worker.next_call(&shared, NOW + 5000).cloned();
        assert_eq!(again, if taken == Taken::Later { sent } else { None }, "{status}");
    }
}

// === answers ===

#[test]
fn grants_become_the_lease_of_all_workers() {
    let shared = fixture::shared();
    let one = with_tokens(&shared);
    assert_eq!((lease(&shared).available, lease(&shared).limit), (100, 1000));
    assert!(one.touched.contains_key(&bucket().key), "it is kept in sight");
    let holder = Holder { expires_at: NOW + u64::from(LEASES_LAST_MS), valid_since: NOW, ahead_ms: 0 };
    assert_eq!((one.holder, Holder::read(&shared)), (holder, holder));
    let other = worker(&shared);
    assert!(!other.touched.contains_key(&bucket().key));
}

#[test]
fn what_was_granted_for_a_lease_that_expired_is_given_back() {
    let shared = fixture::shared();
    let mut worker = with_tokens(&shared);
    let late = NOW + u64::from(LEASES_LAST_MS);
    worker.reporter.wish(&bucket(), 50);
    worker.next_call(&shared, late).cloned().unwrap();
    assert!(worker.ledger_answered(&shared, answer(2, Some(50)), late));
    assert_eq!(lease(&shared).available, 50);
    let call = worker.next_call(&shared, late).cloned().unwrap();
    let [settlement] = call.settlements.as_slice() else { panic!("{call:?}") };
    assert_eq!((settlement.released, settlement.charged), (100, 0));
}

#[test]
fn a_ledger_that_names_no_time_to_live_gets_the_usual_one() {
    let shared = fixture::shared();
    let mut worker = worker(&shared);
    worker.reporter.used(Row::default());
    worker.next_call(&shared, NOW).cloned().unwrap();
    let response = wire::SyncResponse { lease_ttl_ms: 0, ..answer(1, None) };
    assert!(!worker.ledger_answered(&shared, response, NOW + 10), "no grants came");
    assert_eq!(Holder::read(&shared).expires_at, NOW + TTL_MS, "since it was sent");
}

#[test]
fn an_answer_to_another_call_changes_nothing() {
    let shared = fixture::shared();
    let mut worker = worker(&shared);
    worker.reporter.wish(&bucket(), 50);
    worker.next_call(&shared, NOW).cloned().unwrap();
    assert!(!worker.ledger_answered(&shared, answer(2, Some(50)), NOW));
    assert_eq!((Holder::read(&shared), lease(&shared)), (Holder::default(), Lease::default()));
}

#[test]
fn the_ledgers_clock_is_told_to_all_workers() {
    let shared = fixture::shared();
    let mut worker = worker(&shared);
    for (sequence, ledger, ahead_ms) in [(1, NOW + 5010, 5000), (2, NOW + 4, 0), (3, NOW - 300, -300), (4, 0, 0)] {
        worker.reporter.used(Row::default());
        worker.next_call(&shared, NOW).cloned().unwrap();
        let response = wire::SyncResponse { now: ledger.cast_signed(), ..answer(sequence, None) };
        worker.ledger_answered(&shared, response, NOW + 10);
        assert_eq!(Holder::read(&shared).ahead_ms, ahead_ms, "{ledger}");
        assert_eq!(worker.holder.ahead_ms, ahead_ms);
    }
}

#[test]
fn what_the_ledger_has_heard_of_is_noted_under_nobody() {
    let shared = fixture::shared();
    let mut worker = with_tokens(&shared);
    let (ended, runs) = (reserve(&shared, &worker, 30, NOW), reserve(&shared, &worker, 5, NOW));
    settle(&shared, &mut worker, ended, 30, NOW);
    worker.next_call(&shared, NOW).cloned().unwrap();
    assert!(!worker.ledger_answered(&shared, answer(2, None), NOW));
    let mut left = lease(&shared);
    let noted = left.bury(worker.number);
    assert_eq!(noted.iter().map(|noted| noted.amount).collect::<Vec<_>>(), [runs.amount]);
}

// === sweeping ===

#[test]
fn a_dead_worker_is_charged_with_what_it_had_taken() {
    let shared = fixture::shared();
    let (mut dead, mut living) = two(&shared);
    reserve(&shared, &dead, 40, NOW);
    dead.sweep(&shared, NOW);
    living.sweep(&shared, NOW + 9999);
    assert_eq!(living.counters.workers_lost, 0);
    living.sweep(&shared, NOW + 10_999);
    assert_eq!(living.counters.workers_lost, 1);
    let call = living.next_call(&shared, NOW + 10_999).cloned().unwrap();
    let [settlement] = call.settlements.as_slice() else { panic!("{call:?}") };
    assert_eq!(
        (settlement.window_start, settlement.from_lease, settlement.charged, settlement.released),
        (WINDOW, 40, 40, 0),
        "what is left of the lease stays for the living"
    );
    assert_eq!(lease(&shared).workers().collect::<Vec<_>>(), [living.number], "it dies before the ledger has heard");
    assert!(living.touched.contains_key(&bucket().key));
    living.ledger_answered(&shared, answer(call.sequence, None), NOW + 10_999);
    assert_eq!(lease(&shared).workers().count(), 0);
    living.sweep(&shared, NOW + 30_000);
    assert_eq!(living.counters.workers_lost, 1);
}

/// The tokens of the dead were once struck off those that the living answered for, and its requests were free.
#[test]
fn what_a_dead_worker_took_is_not_taken_off_whoever_buries_it() {
    let shared = fixture::shared();
    let (mut dead, mut living) = two(&shared);
    reserve(&shared, &dead, 20, NOW);
    dead.sweep(&shared, NOW);
    let runs = reserve(&shared, &living, 30, NOW);
    living.sweep(&shared, NOW);
    living.sweep(&shared, NOW + 10_000);
    let told = living.next_call(&shared, NOW + 10_000).cloned().unwrap();
    living.ledger_answered(&shared, answer(told.sequence, None), NOW + 10_000);
    settle(&shared, &mut living, runs, 30, NOW + 10_001);
    let call = living.next_call(&shared, NOW + 10_001).cloned().unwrap();
    let settled: Vec<_> = call.settlements.iter().map(|one| (one.from_lease, one.charged)).collect();
    assert_eq!(settled, [(30, 30)]);
    living.ledger_answered(&shared, answer(call.sequence, None), NOW + 10_001);
    assert_eq!(lease(&shared).workers().count(), 0, "nothing stays noted");
}

#[test]
fn who_has_slept_cuts_no_slice_before_it_signs() {
    let shared = fixture::shared();
    let mut worker = worker(&shared);
    let config = fixture::config(fixture::stage());
    let crate::config::Stage::Request(stage) = &config.stage else { panic!() };
    let cuts = |worker: &mut Worker, now| worker.desk(stage, &shared, &NoBody, now).slices.are_put_back;
    worker.sweep(&shared, NOW);
    assert!(!cuts(&mut worker, NOW), "no root acts");
    worker.owner = Some(1);
    for (now, is_awake) in [(NOW, true), (NOW + 4999, true), (NOW + 5000, false), (NOW - 5000, false)] {
        assert_eq!(cuts(&mut worker, now), is_awake, "{now}");
    }
    worker.sweep(&shared, NOW + 15_000);
    assert!(cuts(&mut worker, NOW + 15_000));
}

/// Such a request takes from the lease once, and nobody else may use the lease meanwhile.
#[test]
fn a_dead_worker_is_charged_with_requests_that_ran_for_long() {
    let shared = fixture::shared();
    let (mut dead, mut living) = two(&shared);
    reserve(&shared, &dead, 40, NOW);
    let died = NOW + 30_000;
    for now in (NOW..=died).step_by(1000) {
        dead.sweep(&shared, now);
        living.sweep(&shared, now);
    }
    assert_eq!(lease(&shared).available, 0, "an idle lease goes back all the same");
    living.sweep(&shared, died + 10_000);
    assert_eq!(living.counters.workers_lost, 1);
    let call = living.next_call(&shared, died + 10_000).cloned().unwrap();
    let settled: Vec<_> = call.settlements.iter().map(|one| (one.window_start, one.from_lease, one.charged)).collect();
    assert_eq!(settled, [(WINDOW, 40, 40)]);
    living.ledger_answered(&shared, answer(call.sequence, None), died + 10_000);
    assert_eq!(lease(&shared).workers().count(), 0);
}

#[test]
fn a_bucket_is_listed_until_the_ledger_has_heard_of_what_was_taken() {
    let shared = fixture::shared();
    let mut worker = with_tokens(&shared);
    let reservation = reserve(&shared, &worker, 40, NOW);
    worker.sweep(&shared, NOW + 20_000);
    settle(&shared, &mut worker, reservation, 40, NOW + 20_000);
    worker.sweep(&shared, NOW + 40_000);
    assert!(worker.touched.contains_key(&bucket().key), "the request has ended, and nobody has been told");
    let told = worker.next_call(&shared, NOW + 40_000).cloned().unwrap();
    worker.ledger_answered(&shared, answer(told.sequence, None), NOW + 40_000);
    worker.sweep(&shared, NOW + 41_000);
    assert!(worker.touched.is_empty());
}

#[test]
fn every_tick_signs_and_each_second_sweeps() {
    let shared = fixture::shared();
    let (mut one, mut other) = (worker(&shared), worker(&shared));
    other.sweep(&shared, NOW);
    one.sweep(&shared, NOW + 9001);
    one.sweep(&shared, NOW + 10_000);
    assert_eq!(one.counters.workers_lost, 0, "it has swept less than a second ago");
    one.sweep(&shared, NOW + 10_001);
    assert_eq!(one.counters.workers_lost, 1);
    other.sweep(&shared, NOW + 19_999);
    assert_eq!(other.counters.workers_lost, 0, "the other one has signed at each tick");
}

#[test]
fn workers_share_the_connections_of_a_source() {
    const MOST: u32 = 3_000;
    let shared = fixture::shared();
    let admits = |worker: &mut Worker, most| {
        let source = crate::sources::Source::of(b"192.0.2.1:1");
        let admitted = (0..most).take_while(|_| worker.sources.admit(source, most)).count();
        (0..admitted).for_each(|_| worker.sources.left(source));
        admitted
    };
    let mut all: Vec<Worker> = (0..4).map(|_| worker(&shared)).collect();
    for worker in &mut all {
        worker.sweep(&shared, NOW);
        assert_eq!(admits(worker, MOST), 750, "in its first second it does not know the others");
    }
    for worker in &mut all {
        worker.sweep(&shared, NOW + 1000);
        assert_eq!(admits(worker, MOST), 1000, "one of the four is the main thread's");
    }
    let mut first = all.swap_remove(0);
    first.sweep(&shared, NOW + 10_999);
    assert_eq!(admits(&mut first, MOST), 1000);
    first.sweep(&shared, NOW + 12_000);
    assert_eq!(admits(&mut first, MOST), 3000, "it alone lives");
}

#[test]
fn a_lease_that_nobody_uses_goes_back() {
    let shared = fixture::shared();
    let mut worker = with_tokens(&shared);
    let reservation = reserve(&shared, &worker, 1, NOW);
    settle(&shared, &mut worker, reservation, 0, NOW);
    worker.sweep(&shared, NOW + 19_999);
    assert!(worker.touched.contains_key(&bucket().key) && lease(&shared).available == 100, "it is in use");
    worker.sweep(&shared, NOW + 21_000);
    assert!(worker.touched.is_empty());
    assert_eq!(lease(&shared).available, 0);
    let call = worker.next_call(&shared, NOW + 21_000).cloned().unwrap();
    assert_eq!(
        call.settlements.iter().map(|one| (one.window_start, one.released)).collect::<Vec<_>>(),
        [(WINDOW, 100)]
    );
}

// === keys ===

#[test]
fn a_worker_without_a_number_keeps_no_keys() {
    let shared = fixture::shared();
    assert_eq!(Worker::default().keep_keys(&shared, NOW), table::Step::Nothing);
    assert_eq!(worker(&shared).keep_keys(&shared, NOW), table::Step::Open, "nobody leads yet");
}

#[test]
fn keys_of_an_old_stream_do_not_count() {
    let shared = fixture::shared();
    let mut worker = worker(&shared);
    worker.keep_keys(&shared, NOW);
    worker.keeper.opened(5, "node-1");
    let response = || DeltaDiscoveryResponse { type_url: API_KEY_TYPE.into(), nonce: "n".into(), ..Default::default() };
    assert_eq!(worker.keys_came(&shared, 4, response()), None);
    assert_eq!(Table::read(&shared), Table::Ready(1));
    let ack = worker.keys_came(&shared, 5, response()).unwrap();
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("n", None));
    assert_eq!((worker.table, Table::read(&shared)), (Table::Ready(2), Table::Ready(2)), "seen at once");
}

#[test]
fn workers_open_the_stream_again_at_different_times() {
    let reopened: Vec<u64> = [NOW, NOW + 2, NOW + 4]
        .into_iter()
        .map(|introduced_at| {
            let shared = fixture::shared();
            let mut worker = introduced(&shared, introduced_at);
            worker.keep_keys(&shared, NOW);
            worker.keeper.opened(5, "node-1");
            worker.keys_closed(Some(5), NOW);
            assert_eq!(worker.keep_keys(&shared, NOW), table::Step::Nothing);
            (NOW..NOW + 1000).find(|now| worker.keep_keys(&shared, *now) == table::Step::Open).unwrap()
        })
        .collect();
    assert!(reopened.iter().any(|at| *at != reopened[0]), "{reopened:?}");
}
