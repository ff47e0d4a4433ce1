//! What a caller can do to others, and with names and figures that it makes up.

use std::collections::BTreeSet;
use std::time::Duration;

use tollgate_proto::v1::{self, MAX_ROW_REQUESTS, MAX_TOKENS, Settlement, SyncRequest, Usage};

use super::test_support::*;
use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const THEIRS: &str = "gateway/theirs";

/// Ours has `day`; theirs has `day` too, with another consumer and route, and `own`.
fn ledger() -> TestLedger {
    TestLedger { rules: Rules::new(&both(), TTL), ..TestLedger::new(&[]) }
}

fn both() -> Configured {
    let mut both = configured(&[limit("day", 1000, DAY), limit("secret", 1000, DAY)]);
    let theirs = [Thing::limit("day"), Thing::limit("own"), Thing::consumer("stranger"), Thing::route("theirs")];
    both.limits.push(limit("own", 1000, DAY));
    both.served.insert(THEIRS.into(), vec![theirs.into_iter().collect()]);
    both
}

fn request(sequence: u64) -> SyncRequest {
    SyncRequest { proxy: "envoy".into(), epoch: 1, worker: 1, sequence, ..Default::default() }
}

fn answer(outcome: Result<Outcome, Past>) -> v1::SyncResponse {
    match outcome {
        Ok(Outcome::Applied(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_touches_the_holder_of_another_whatever_name_he_takes() {
    let mut ledger = ledger();
    let lease = ledger.sync(&SyncRequest { wants: vec![want("day", 100, 100)], ..request(1) }).grants.remove(0);
    // Same node, epoch and worker, and a number that would make every later call of ours a stray copy.
    let settlement = Settlement {
        bucket: Some(bucket("day", "app")),
        window_start: lease.window_start,
        from_lease: 100,
        charged: 0,
        released: 0,
    };
    let attack = SyncRequest { settlements: vec![settlement.clone()], ..request(u64::MAX) };
    answer(ledger.call_of(THEIRS, &attack, Death::Never));
    assert_eq!((ledger.bucket("day").leased, ledger.bucket("day").spent), (100, 0));
    // A replay of our call tells nothing of our answer.
    let replayed = SyncRequest { wants: vec![want("day", 100, 100)], ..request(1) };
    assert!(ledger.call_of(THEIRS, &replayed, Death::Never).is_err(), "it is behind the attacker's own number");

    let report = SyncRequest {
        settlements: vec![Settlement { charged: 90, ..settlement }],
        usage: vec![Usage { input_tokens: 90, ..used() }],
        ..request(2)
    };
    ledger.sync(&report);
    assert_eq!((ledger.bucket("day").leased, ledger.bucket("day").spent), (0, 90));
    assert_eq!(ledger.used().input_tokens, 90);
}

#[test]
fn a_caller_keeps_nobody_elses_lease_alive() {
    let mut ledger = ledger();
    ledger.sync(&SyncRequest { wants: vec![want("day", 100, 100)], ..request(1) });
    ledger.second += 29;
    answer(ledger.call_of(THEIRS, &request(1), Death::Never));
    ledger.second += 2;
    ledger.tick();
    assert_eq!((ledger.bucket("day").leased, ledger.bucket("day").spent), (0, 100), "charged at its expiry");
}

#[test]
fn what_a_gateway_does_not_serve_is_refused_in_its_spot_and_the_rest_counts() {
    let mut ledger = ledger();
    let debt = |bucket| Settlement { bucket: Some(bucket), charged: 1000, ..Default::default() };
    let stranger = Usage { consumer: "stranger".into(), route: "theirs".into(), input_tokens: 7, ..used() };
    let attack = SyncRequest {
        usage: vec![
            used(),
            Usage { route: "theirs".into(), ..used() },
            Usage { consumer: "stranger".into(), ..used() },
            stranger,
        ],
        settlements: vec![debt(bucket("secret", "stranger")), debt(bucket("day", "app")), debt(bucket("own", "app"))],
        wants: vec![
            want("secret", 1000, 1000),
            want("day", 1000, 1000),
            want("nothing", 1, 1),
            v1::Want { bucket: Some(bucket("own", "stranger")), wish: 10, least: 10 },
        ],
        ..request(1)
    };
    let answer = answer(ledger.call_of(THEIRS, &attack, Death::Never));
    let told: Vec<_> = answer.grants.iter().map(|grant| (grant.granted, grant.limit, grant.unknown)).collect();
    assert_eq!(told, [(0, 0, false), (0, 0, false), (0, 0, true), (10, 1000, false)]);
    assert_eq!((ledger.used().requests, ledger.used().input_tokens), (1, 7));
    assert!(ledger.disk.records.buckets.keys().all(|key| key.limit == "own"), "{:?}", ledger.disk.records.buckets);
    let refused = |entry| RefusedEntry { identity: THEIRS.into(), entry, reason: Reason::Foreign };
    let expected = [(refused(Entry::Usage), 3), (refused(Entry::Settlement), 3), (refused(Entry::Want), 2)];
    assert_eq!(ledger.state.take_refused(), expected.into());
}

#[test]
fn an_unknown_identity_may_nothing() {
    let mut ledger = ledger();
    let call = SyncRequest { wants: vec![want("day", 10, 10)], usage: vec![used()], ..request(1) };
    assert_eq!(answer(ledger.call_of("gateway/deleted", &call, Death::Never)).grants[0].granted, 0);
    assert_eq!(ledger.disk.usage.len(), 0);
}

#[test]
fn a_report_of_what_was_served_a_moment_ago_counts() {
    let mut ledger = ledger();
    let lease = ledger.sync(&SyncRequest { wants: vec![want("day", 100, 100)], ..request(1) }).grants.remove(0);
    // The route goes, with its limit and its consumer, and then the whole Gateway.
    ledger.configure(&Configured { served: [(OURS.to_owned(), Vec::new())].into(), ..both() });
    ledger.second += 60;
    ledger.configure(&Configured::default());
    let settlement = Settlement {
        bucket: Some(bucket("day", "app")),
        window_start: lease.window_start,
        from_lease: 100,
        charged: 30,
        released: 0,
    };
    let late = |sequence| SyncRequest {
        settlements: vec![settlement.clone()],
        usage: vec![Usage { input_tokens: 30, ..used() }],
        ..request(sequence)
    };
    ledger.sync(&late(2));
    assert_eq!((ledger.bucket("day").spent, ledger.used().input_tokens), (30, 30), "what had expired is given back");
    ledger.second += SERVED_BEFORE.as_secs();
    ledger.sync(&late(3));
    assert_eq!(ledger.used().input_tokens, 30, "not for ever");
}

/// 1,100 requests below `gpt-*`, each with a name of its own.
fn made_up(ledger: &mut TestLedger, sequence: u64, day: u64) {
    let usage = (0..1100).map(|n| Usage {
        model: "gpt-*".into(),
        asked_model: format!("gpt-{day}-{sequence}-{n}"),
        input_tokens: 1,
        ..used()
    });
    ledger.sync(&SyncRequest { usage: usage.collect(), ..request(sequence) });
}

fn models(ledger: &TestLedger) -> BTreeSet<String> {
    ledger.disk.usage.keys().map(|(_, key)| key.model.clone()).collect()
}

#[test]
fn names_that_clients_make_up_are_bounded_for_each_consumer_and_day_also_over_restarts() {
    let mut ledger = ledger();
    made_up(&mut ledger, 1, 1);
    assert_eq!(models(&ledger).len(), ASKED_NAMES + 1);
    ledger.restart();
    made_up(&mut ledger, 2, 1);
    assert_eq!(models(&ledger).len(), ASKED_NAMES + 1);
    assert_eq!(ledger.used().requests, 2200, "all of them count");
    // A name that has its row keeps it; another consumer has names of its own.
    let again = Usage { model: "gpt-*".into(), asked_model: "gpt-1-1-0".into(), output_tokens: 5, ..used() };
    let other = Usage { consumer: "other".into(), asked_model: "gpt-mine".into(), ..again.clone() };
    ledger.sync(&SyncRequest { usage: vec![again, other], ..request(3) });
    let row = ledger.disk.usage.iter().find(|((_, key), _)| key.model == "gpt-1-1-0").unwrap();
    assert_eq!(row.1.output_tokens, 5);
    assert!(models(&ledger).contains("gpt-mine"));
    ledger.second += 86_400;
    made_up(&mut ledger, 4, 2);
    assert_eq!(models(&ledger).len(), 2 * ASKED_NAMES + 2, "a new day");
    assert_eq!(ledger.disk.records.asked.len(), ASKED_NAMES, "the names of yesterday are forgotten");
}

#[test]
fn metrics_go_by_the_pools_own_names() {
    let mut ledger = ledger();
    let usage = Usage { model: "gpt-*".into(), asked_model: "gpt-5".into(), input_tokens: 3, ..used() };
    let call = Call::new(OURS.into(), SyncRequest { usage: vec![usage, used()], ..request(1) }).unwrap();
    let (rules, now) = (ledger.rules.clone(), ledger.now());
    apply(&mut ledger.state, &rules, call, now).unwrap();
    let metered = ledger.state.take_changes().metered;
    let models: Vec<_> = metered.keys().map(|group| group.key.model.as_str()).collect();
    assert_eq!(models, ["gpt-*", "smol"]);
}

#[test]
fn a_further_attempt_has_tokens_and_is_no_request() {
    let mut ledger = ledger();
    let attempt = Usage { requests: 0, estimated_requests: 1, input_tokens: 5, output_tokens: 16, ..used() };
    ledger.sync(&SyncRequest { usage: vec![attempt, Usage { input_tokens: 5, ..used() }], ..request(1) });
    let used = ledger.used();
    assert_eq!((used.requests, used.estimated_requests, used.input_tokens, used.output_tokens), (1, 1, 10, 16));
}

#[test]
fn a_row_of_many_requests_counts_whole() {
    let mut ledger = ledger();
    // The most that a filter puts into a row: each request has its limit of tokens, and so has each other attempt.
    let attempts = 2 * MAX_ROW_REQUESTS;
    let full = Usage {
        requests: MAX_ROW_REQUESTS,
        estimated_requests: MAX_ROW_REQUESTS,
        output_tokens: attempts * MAX_TOKENS,
        ..used()
    };
    let attempts_only = Usage { requests: 0, estimated_requests: 3, input_tokens: 3 * MAX_TOKENS, ..used() };
    ledger.sync(&SyncRequest { usage: vec![full, attempts_only], ..request(1) });
    let used = ledger.used();
    assert_eq!((used.requests, used.estimated_requests), (MAX_ROW_REQUESTS, MAX_ROW_REQUESTS + 3));
    assert_eq!((used.input_tokens, used.output_tokens), (3 * MAX_TOKENS, attempts * MAX_TOKENS));
    assert_eq!(ledger.state.take_refused(), [].into());
}

#[test]
fn more_requests_than_a_row_has_or_more_tokens_than_they_have_is_refused() {
    let mut ledger = ledger();
    let usage = vec![
        Usage { requests: MAX_ROW_REQUESTS + 1, ..used() },
        Usage { requests: u64::MAX, estimated_requests: u64::MAX, input_tokens: u64::MAX, ..used() },
        Usage { estimated_requests: MAX_ROW_REQUESTS + 1, ..used() },
        Usage { requests: 7, output_tokens: 7 * MAX_TOKENS + 1, ..used() },
        Usage { requests: 7, estimated_requests: 2, cached_input_tokens: 9 * MAX_TOKENS + 1, ..used() },
        Usage { requests: 0, input_tokens: MAX_TOKENS + 1, ..used() },
        Usage { requests: 2, ..used() },
    ];
    ledger.sync(&SyncRequest { usage, ..request(1) });
    assert_eq!(ledger.used(), usage::Totals { requests: 2, ..Default::default() });
    let refusal = RefusedEntry { identity: OURS.into(), entry: Entry::Usage, reason: Reason::TooLarge };
    assert_eq!(ledger.state.take_refused(), [(refusal, 6)].into());
}

#[test]
fn a_figure_that_no_answer_has_is_refused_and_sums_end_at_the_top() {
    let mut ledger = ledger();
    let usage = vec![
        Usage { input_tokens: MAX_TOKENS, ..used() },
        Usage { reasoning_tokens: MAX_TOKENS + 1, ..used() },
        Usage { output_tokens: u64::MAX, ..used() },
    ];
    ledger.sync(&SyncRequest { usage, ..request(1) });
    assert_eq!((ledger.used().requests, ledger.used().input_tokens), (1, MAX_TOKENS));
    let refusal = RefusedEntry { identity: OURS.into(), entry: Entry::Usage, reason: Reason::TooLarge };
    assert_eq!(ledger.state.take_refused(), [(refusal, 2)].into());
    let mut sum = usage::Totals { requests: u64::MAX, ..Default::default() };
    sum += usage::Totals { requests: 1, ..Default::default() };
    assert_eq!(sum.requests, u64::MAX);
}
