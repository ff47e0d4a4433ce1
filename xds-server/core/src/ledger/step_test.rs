//! Single steps of the ledger, by example.

use std::time::Duration;

use tollgate_proto::v1::{Settlement, SyncRequest, Usage};

use super::test_support::*;
use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn ledger(tokens: u64) -> TestLedger {
    TestLedger::new(&[limit("day", tokens, DAY)])
}

fn request(epoch: u64, sequence: u64) -> SyncRequest {
    SyncRequest { proxy: "envoy".into(), epoch, worker: 1, sequence, ..Default::default() }
}

fn settlement(window_start: i64, from_lease: u64, charged: u64) -> Settlement {
    Settlement { bucket: Some(bucket("day", "app")), window_start, from_lease, charged, released: 0 }
}

fn lease(ledger: &mut TestLedger, epoch: u64, sequence: u64, tokens: u64) -> tollgate_proto::v1::Grant {
    let wants = vec![want("day", tokens, tokens)];
    ledger.sync(&SyncRequest { wants, ..request(epoch, sequence) }).grants.remove(0)
}

#[test]
fn a_repeated_call_counts_once_and_gets_its_answer_again_even_after_a_restart() {
    let mut ledger = ledger(1000);
    let start = lease(&mut ledger, 1, 1, 100).window_start;
    let call = SyncRequest {
        settlements: vec![settlement(start, 60, 60)],
        usage: vec![Usage { input_tokens: 60, ..used() }],
        wants: vec![want("day", 50, 50)],
        ..request(1, 2)
    };
    let first = ledger.sync(&call);
    assert_eq!(first.grants[0].granted, 50);
    let disk = ledger.disk.clone();
    assert_eq!(ledger.sync(&call), first);
    ledger.restart();
    assert_eq!(ledger.sync(&call), first);
    assert_eq!(ledger.disk, disk);
    assert_eq!((ledger.bucket("day").spent, ledger.bucket("day").leased, ledger.used().requests), (60, 90, 1));
}

#[test]
fn an_answer_says_the_ledgers_time_also_when_it_is_given_again() {
    let mut ledger = ledger(1000);
    let call = SyncRequest { wants: vec![want("day", 50, 50)], ..request(1, 1) };
    let first = ledger.sync(&call);
    assert_eq!(first.now, ledger.now().wall.as_millisecond());
    ledger.second += 5;
    let again = ledger.sync(&call);
    assert_eq!((again.now - first.now, &again.grants), (5000, &first.grants));
}

#[test]
fn a_stray_copy_is_refused_and_a_jump_is_taken() {
    let mut ledger = ledger(1000);
    lease(&mut ledger, 1, 1, 10);
    lease(&mut ledger, 1, 7, 10);
    let stray = ledger.call(&SyncRequest { wants: vec![want("day", 10, 10)], ..request(1, 1) }, Death::Never);
    assert_eq!(stray, Err(Past { sequence: 1, last: 7 }));
    assert_eq!(ledger.bucket("day").leased, 20);
}

#[test]
fn a_changed_limit_acts_on_the_next_call() {
    let mut ledger = ledger(100);
    assert_eq!(lease(&mut ledger, 1, 1, 80).granted, 80);
    ledger.configure(&configured(&[limit("day", 50, DAY)]));
    let lowered = lease(&mut ledger, 1, 2, 10);
    assert_eq!((lowered.granted, lowered.limit, lowered.remaining, lowered.exhausted), (0, 50, 0, false));
    ledger.configure(&configured(&[limit("day", 200, DAY)]));
    let raised = lease(&mut ledger, 1, 3, 10);
    assert_eq!((raised.granted, raised.limit, raised.remaining), (10, 200, 110));
    ledger.configure(&configured(&[]));
    let gone = lease(&mut ledger, 1, 4, 10);
    assert!(gone.unknown && gone.granted == 0, "{gone:?}");
}

#[test]
fn a_scope_that_is_not_the_limits_is_refused() {
    let mut ledger = ledger(100);
    let mut odd = want("day", 10, 10);
    odd.bucket.as_mut().unwrap().scope.push("smol".into());
    let answer = ledger.sync(&SyncRequest { wants: vec![odd, want("day", 10, 10)], ..request(1, 1) });
    assert_eq!(answer.grants.iter().map(|grant| grant.granted).collect::<Vec<_>>(), [0, 10]);
    assert!(!answer.grants[0].unknown, "it does hold the request back");
}

#[test]
fn a_spent_budget_says_so() {
    let mut ledger = ledger(100);
    let first = lease(&mut ledger, 1, 1, 500);
    assert_eq!((first.granted, first.remaining, first.exhausted), (100, 0, false));
    let call = SyncRequest { settlements: vec![settlement(first.window_start, 100, 130)], ..request(1, 2) };
    ledger.sync(&call);
    let after = lease(&mut ledger, 1, 3, 10);
    assert_eq!((after.granted, after.remaining, after.exhausted), (0, 0, true));
    assert_eq!(after.window_end - after.window_start, 86_400);
}

#[test]
fn a_silent_holder_is_charged_and_a_late_report_takes_from_that() {
    let mut ledger = ledger(1000);
    let start = lease(&mut ledger, 1, 1, 100).window_start;
    ledger.second += 29;
    ledger.sync(&request(1, 2));
    ledger.second += 29;
    ledger.tick();
    assert_eq!(ledger.bucket("day").leased, 100, "the heartbeat kept it");
    ledger.second += 1;
    ledger.tick();
    assert_eq!((ledger.bucket("day").spent, ledger.bucket("day").leased), (100, 0));
    ledger.restart();
    ledger.sync(&SyncRequest { settlements: vec![settlement(start, 70, 70)], ..request(1, 3) });
    assert_eq!(ledger.bucket("day").spent, 100);
    let released = Settlement { released: 30, ..settlement(start, 0, 0) };
    ledger.sync(&SyncRequest { settlements: vec![released], ..request(1, 4) });
    assert_eq!(ledger.bucket("day").spent, 70);
}

#[test]
fn a_call_after_the_time_to_live_does_not_bring_the_lease_back() {
    let mut ledger = ledger(1000);
    lease(&mut ledger, 1, 1, 100);
    ledger.second += 31;
    ledger.sync(&request(1, 2));
    assert_eq!((ledger.bucket("day").spent, ledger.bucket("day").leased), (100, 0));
}

#[test]
fn a_restart_gives_every_holder_time_to_come_back() {
    let mut ledger = ledger(1000);
    lease(&mut ledger, 1, 1, 100);
    ledger.second += 3600;
    ledger.restart();
    ledger.second += 29;
    ledger.tick();
    assert_eq!((ledger.bucket("day").spent, ledger.bucket("day").leased), (0, 100));
    ledger.second += 1;
    ledger.tick();
    assert_eq!((ledger.bucket("day").spent, ledger.bucket("day").leased), (100, 0));
}

#[test]
fn a_debt_counts_in_its_window_or_now_but_not_in_a_forgotten_one() {
    let mut ledger = ledger(1000);
    let start = lease(&mut ledger, 1, 1, 100).window_start;
    ledger.sync(&SyncRequest { settlements: vec![settlement(0, 0, 5)], ..request(2, 1) });
    assert_eq!(ledger.bucket("day").spent, 5, "no window named: now");
    ledger.second += 86_400;
    ledger.sync(&SyncRequest { settlements: vec![settlement(start, 100, 110)], ..request(1, 2) });
    assert_eq!(ledger.bucket("day").spent, 115, "the window that it was granted in");
    ledger.second += 3600;
    ledger.prune();
    assert!(ledger.disk.records.buckets.is_empty());
    ledger.sync(&SyncRequest { settlements: vec![settlement(start, 0, 7)], ..request(1, 3) });
    assert!(ledger.disk.records.buckets.is_empty());
    ledger.sync(&SyncRequest { settlements: vec![settlement(start + 1, 0, 7)], ..request(1, 4) });
    assert_eq!(ledger.bucket("day").spent, 7, "not a window at all: now");
}

#[test]
fn old_records_go() {
    let mut ledger = ledger(1000);
    lease(&mut ledger, 1, 1, 100);
    let usage = vec![Usage { ended_at: i64::MAX, input_tokens: 1, ..used() }];
    ledger.sync(&SyncRequest { usage, ..request(1, 2) });
    let minute = ledger.disk.usage.keys().next().unwrap().0;
    assert_eq!(minute, u64::try_from(ledger.now().wall.as_second()).unwrap() / 60, "a wrong clock counts now");
    ledger.second += 2 * 86_400;
    ledger.prune();
    ledger.prune();
    assert_eq!(ledger.disk.records, Records::default());
    assert_eq!(ledger.used().requests, 1);
    ledger.second += 90 * 86_400;
    ledger.prune();
    assert_eq!(ledger.used().requests, 0);
}

#[test]
fn nothing_is_written_for_heartbeats_and_refusals() {
    let mut ledger = ledger(0);
    lease(&mut ledger, 1, 1, 10);
    let disk = ledger.disk.clone();
    lease(&mut ledger, 1, 2, 10);
    ledger.sync(&request(1, 3));
    assert_eq!(ledger.disk, disk);
}
