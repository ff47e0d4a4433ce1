//! A step on what it touches does what it does on all there is, and changes nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tollgate_proto::v1::{self, Settlement, SyncRequest, Usage, Want};

use super::test_support::*;
use super::*;
use crate::ir::ScopePart;

const THEIRS: &str = "gateway/theirs";
const LIMITS: [&str; 6] = ["minute", "day", "life", "wide", "secret", "nothing"];
const CONSUMERS: [&str; 4] = ["app", "other", "stranger", ""];
const UPKEEP: [Upkeep; 3] = [Upkeep::Expire, Upkeep::ForgetWindows, Upkeep::ForgetHolders];

#[derive(Debug, Clone)]
enum Op {
    Call {
        theirs: bool,
        request: SyncRequest,
    },
    /// Calls that arrive together.
    Calls(Vec<SyncRequest>),
    Wait(u64),
    KeepUp(Upkeep),
    Resize(u64),
}

/// Everything in memory, and beside it a store from which only excerpts are taken.
struct Both {
    whole: State,
    usage: BTreeMap<(u64, usage::UsageKey), usage::Totals>,
    store: Reference,
    rules: Rules,
    second: u64,
}

fn rules(tokens: u64) -> Configured {
    let mut wide = limit("wide", tokens, Duration::from_secs(600));
    wide.scope.push(ScopePart::Model);
    let day = Duration::from_secs(86_400);
    let served = [limit("minute", tokens, Duration::from_secs(60)), limit("day", tokens, day), wide];
    let mut configured = configured(&served);
    configured.limits.push(limit("secret", tokens, day));
    configured.limits.push(limit("life", tokens, Duration::ZERO));
    let theirs = [Thing::limit("life"), Thing::limit("day"), Thing::consumer("stranger"), Thing::route("chat")];
    configured.served.insert(THEIRS.into(), vec![theirs.into_iter().collect()]);
    configured
}

fn named() -> impl Strategy<Value = Option<v1::Bucket>> {
    let scope = prop::collection::vec(prop::sample::select(&CONSUMERS[..]).prop_map(str::to_owned), 0..3);
    let bucket = (prop::sample::select(&LIMITS[..]), scope);
    prop_oneof![
        6 => prop::sample::select(&LIMITS[..3]).prop_map(|limit| Some(bucket_of(limit, vec!["app".into()]))),
        2 => bucket.prop_map(|(limit, scope)| Some(bucket_of(limit, scope))),
        1 => Just(None),
    ]
}

fn bucket_of(limit: &str, scope: Vec<String>) -> v1::Bucket {
    v1::Bucket { limit: limit.to_owned(), scope }
}

fn request() -> impl Strategy<Value = SyncRequest> {
    let usage =
        (prop::sample::select(&CONSUMERS[..]), 0..60u64, 0..100u64).prop_map(|(consumer, name, tokens)| Usage {
            consumer: consumer.into(),
            asked_model: if name < 40 { format!("gpt-{name}") } else { String::new() },
            ended_at: i64::MAX,
            input_tokens: tokens,
            ..used()
        });
    // Windows of the minute, of the day, and odd ones.
    let window =
        prop_oneof![(0..5i64).prop_map(|n| BEGIN + 60 * n), Just(BEGIN), Just(BEGIN + 86_400), Just(0), 0..BEGIN,];
    let settlement = (named(), window, 0..50u64, 0..80u64, 0..10u64).prop_map(
        |(bucket, window_start, from_lease, charged, released)| Settlement {
            bucket,
            window_start,
            from_lease,
            charged,
            released,
        },
    );
    let want = (named(), 0..200u64, 0..60u64).prop_map(|(bucket, wish, least)| Want { bucket, wish, least });
    let entries = (
        prop::collection::vec(usage, 0..4),
        prop::collection::vec(settlement, 0..4),
        prop::collection::vec(want, 0..4),
    );
    (0..2u64, 0..2u64, 1..12u64, entries).prop_map(|(epoch, worker, sequence, (usage, settlements, wants))| {
        SyncRequest { proxy: "envoy".into(), epoch, worker, sequence, usage, settlements, wants }
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (any::<bool>(), request()).prop_map(|(theirs, request)| Op::Call { theirs, request }),
        4 => prop::collection::vec(request(), 2..5).prop_map(Op::Calls),
        2 => prop_oneof![1..40u64, Just(3700), Just(90_000)].prop_map(Op::Wait),
        2 => prop::sample::select(&UPKEEP[..]).prop_map(Op::KeepUp),
        1 => (0..500u64).prop_map(Op::Resize),
    ]
}

impl Both {
    fn new() -> Self {
        let rules = Rules::new(&rules(400), TTL);
        Self { whole: State::default(), usage: BTreeMap::new(), store: Reference::default(), rules, second: 1 }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Call { theirs, request } => self.calls(if theirs { THEIRS } else { OURS }, vec![request]),
            Op::Calls(requests) => self.calls(OURS, requests),
            Op::Wait(seconds) => self.second += seconds,
            Op::KeepUp(upkeep) => self.keep_up(upkeep),
            Op::Resize(tokens) => self.rules.replace(&rules(tokens), now(self.second)),
        }
        self.take();
        let all = self.whole.records();
        let stored = &self.store.records;
        assert_eq!((&all.buckets, &all.leases), (&stored.buckets, &stored.leases));
        assert_eq!((&all.holders, &all.workers), (&stored.holders, &stored.workers));
        assert_eq!(self.usage, self.store.usage);
    }

    fn calls(&mut self, identity: &str, requests: Vec<SyncRequest>) {
        let calls: Vec<Call> =
            requests.into_iter().map(|request| Call::new(identity.to_owned(), request).unwrap()).collect();
        let (now, rules) = (now(self.second), self.rules.clone());
        let mut batch = Batch::new(calls.clone(), &rules, now);
        let outcomes: Vec<_> = calls.into_iter().map(|call| apply(&mut self.whole, &rules, call, now)).collect();
        let step = loop {
            let excerpt = self.store.load(batch.load().unwrap());
            if let Some(step) = batch.run(excerpt, &rules, now) {
                break step;
            }
        };
        assert_eq!(step.result, outcomes);
        assert_eq!(step.refused, self.whole.take_refused());
        assert_eq!(self.store.commit(&step), Committed::Yes);
    }

    fn keep_up(&mut self, upkeep: Upkeep) {
        let now = now(self.second);
        self.whole.keep_up(upkeep, now);
        loop {
            let due = self.store.due(upkeep, now, 2);
            let step = self.store.load(&due).run(|state| state.keep_up(upkeep, now));
            assert_eq!(self.store.commit(&step), Committed::Yes);
            if due == Touched::default() {
                return;
            }
        }
    }

    fn take(&mut self) {
        let changes = self.whole.take_changes();
        for (key, totals) in changes.usage {
            *self.usage.entry(key).or_default() += totals;
        }
        if let Some(minute) = changes.forget_before {
            self.usage.retain(|(at, _), _| *at >= minute);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn a_step_on_what_it_touches_does_what_it_does_on_everything(ops in prop::collection::vec(op(), 1..60)) {
        let mut both = Both::new();
        ops.into_iter().for_each(|op| both.run(op));
    }
}
