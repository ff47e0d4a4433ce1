//! Rows as metrics have them: how requests ended and how long they took, and what of it is in the books.

use std::collections::BTreeMap;

use tollgate_proto::measures::Measure;
use tollgate_proto::v1::{Operation, SyncRequest, Usage};

use super::measures::{Ending, Group, Metered};
use super::test_support::*;
use super::*;

fn request(sequence: u64) -> SyncRequest {
    SyncRequest { proxy: "envoy".into(), epoch: 1, worker: 1, sequence, ..Default::default() }
}

/// What a call leaves for metrics, before anything is taken away.
fn metered(ledger: &mut TestLedger, usage: Vec<Usage>, sequence: u64) -> BTreeMap<Group, Metered> {
    let call = Call::new(OURS.into(), SyncRequest { usage, ..request(sequence) }).unwrap();
    let (rules, now) = (ledger.rules.clone(), ledger.now());
    apply(&mut ledger.state, &rules, call, now).unwrap();
    let changes = ledger.state.take_changes();
    ledger.disk.commit(&changes);
    changes.metered
}

/// Requests that took so long, all in the bucket of that.
fn took(usage: Usage, count: u32, each_ms: u64) -> Usage {
    let bucket = u32::try_from(Measure::Duration.bucket(each_ms)).unwrap();
    Usage { duration_ms: u64::from(count) * each_ms, spread: vec![bucket, count], ..usage }
}

#[test]
fn what_ended_with_an_error_and_cost_nothing_is_in_metrics_alone_and_once() {
    let mut ledger = TestLedger::new(&[]);
    let refused = took(Usage { requests: 0, error_status: 503, asked_model: "made-up".into(), ..used() }, 3, 40);
    let foreign = Usage { consumer: "stranger".into(), ..refused.clone() };
    let broken = took(Usage { error_status: 499, output_tokens: 7, ..used() }, 1, 80);
    let usage = vec![refused.clone(), foreign, broken.clone()];
    let metered = metered(&mut ledger, usage.clone(), 1);
    let said: Vec<_> = metered
        .iter()
        .map(|(group, metered)| (group.ending, metered.totals.output_tokens, metered.measures.duration_ms()))
        .collect();
    assert_eq!(said, [(Ending::Error(499), 7, 80), (Ending::Error(503), 0, 120)]);
    let rows: Vec<_> = ledger.disk.usage.values().map(|totals| (totals.requests, totals.output_tokens)).collect();
    assert_eq!(rows, [(1, 7)], "what broke off has cost something");
    let foreign = RefusedEntry { identity: OURS.into(), entry: Entry::Usage, reason: Reason::Foreign };
    assert_eq!(ledger.state.take_refused(), [(foreign, 1)].into());
    // The same call again, also after a restart: one that has nothing else in it counts once, too.
    assert_eq!(self::metered(&mut ledger, usage, 1), BTreeMap::new());
    assert_eq!(self::metered(&mut ledger, vec![refused.clone()], 2).len(), 1);
    ledger.restart();
    assert_eq!(self::metered(&mut ledger, vec![refused], 2), BTreeMap::new());
}

#[test]
fn an_error_alone_is_no_use_of_a_consumer() {
    let mut ledger = TestLedger::new(&[]);
    let refused = took(Usage { requests: 0, error_status: 429, ..used() }, 1, 5);
    let call = Call::new(OURS.into(), SyncRequest { usage: vec![refused], ..request(1) }).unwrap();
    let (rules, now) = (ledger.rules.clone(), ledger.now());
    apply(&mut ledger.state, &rules, call, now).unwrap();
    let changes = ledger.state.take_changes();
    assert_eq!((changes.last_used().count(), changes.spent().count(), changes.usage.len()), (0, 0, 0));
    assert_eq!(changes.metered.len(), 1);
    // Nothing was said to have gone wrong with this one, so it is a row as it always was.
    let empty = Usage { requests: 0, ..used() };
    metered(&mut ledger, vec![empty], 2);
    assert_eq!(ledger.disk.usage.len(), 1);
}

#[test]
fn measures_that_make_no_sense_lose_no_token() {
    let mut ledger = TestLedger::new(&[]);
    let of = |model: &str| Usage { model: model.into(), input_tokens: 5, operation: Operation::Chat.into(), ..used() };
    let usage = vec![
        Usage { spread: vec![1], ..of("odd") },
        Usage { duration_ms: 1, ..of("sum") },
        Usage { error_status: 7, ..took(of("status"), 1, 10) },
        took(of("good"), 1, 10),
    ];
    let metered = metered(&mut ledger, usage, 1);
    let said: Vec<_> = metered
        .iter()
        .map(|(group, of)| (group.key.model.as_str(), of.totals.input_tokens, of.measures.duration_ms()))
        .collect();
    assert_eq!(said, [("good", 5, 10), ("odd", 5, 0), ("status", 5, 0), ("sum", 5, 0)]);
    assert!(metered.keys().all(|group| (group.operation, group.ending) == (Operation::Chat, Ending::Good)));
    assert_eq!(ledger.used().input_tokens, 20);
    let refusal = RefusedEntry { identity: OURS.into(), entry: Entry::Measures, reason: Reason::Nonsense };
    assert_eq!(ledger.state.take_refused(), [(refusal, 3)].into());
}

#[test]
fn the_times_of_one_groups_rows_are_added_up() {
    let mut ledger = TestLedger::new(&[]);
    let streamed = |first_token_ms: u32, per_token_us: u32| {
        let bucket = |measure: Measure, value: u32| u32::try_from(measure.bucket(value.into())).unwrap();
        let spread = vec![bucket(Measure::FirstToken, first_token_ms), 1, bucket(Measure::PerToken, per_token_us), 1];
        Usage { first_token_ms: first_token_ms.into(), per_token_us: per_token_us.into(), spread, ..used() }
    };
    let metered = metered(&mut ledger, vec![streamed(30, 9_000), streamed(200, 20_000)], 1);
    let said: Vec<_> = metered.values().map(|of| (of.measures.first_token_ms(), of.measures.per_token_us())).collect();
    assert_eq!(said, [(230, 29_000)]);
    let of = &metered.values().next().unwrap().measures;
    assert_eq!([of.count(Measure::FirstToken), of.count(Measure::PerToken), of.count(Measure::Duration)], [2, 2, 0]);
}
