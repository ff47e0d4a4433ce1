//! Two control planes at one store. Each loads, decides and commits for itself, and the other one is always in between.

use std::collections::BTreeMap;
use std::time::Duration;

use tollgate_proto::v1::SyncRequest;

use super::test_support::*;
use super::*;
use crate::ir::Limit;

type Outcomes = Step<Vec<Result<Outcome, Past>>>;

/// So few records does upkeep take at once.
const FEW: usize = 2;

pub struct SharedLedger {
    store: Reference,
    /// Of each control plane.
    rules: [Rules; 2],
    /// Seconds since the beginning, by the store's clock.
    second: u64,
    /// How many commits found that something had changed.
    changed: usize,
}

// === impl SharedLedger ===

impl SharedLedger {
    pub fn new(limits: &[Limit]) -> Self {
        let rules = Rules::new(&configured(limits), TTL);
        Self { store: Reference::default(), rules: [rules.clone(), rules], second: 1, changed: 0 }
    }

    /// Which control plane a worker calls. The workers of one proxy call both.
    fn rules(&self, request: &SyncRequest) -> Rules {
        self.rules[usize::from(request.worker % 2 == 1)].clone()
    }

    /// The clocks of control planes are wrong. The store's is not asked before the first load.
    fn begin(&self, request: &SyncRequest) -> Batch {
        let call = Call::new(OURS.to_owned(), request.clone()).unwrap();
        Batch::new(vec![call], &self.rules(request), now(self.second + 90 * (request.worker % 2)))
    }

    fn decide(&self, batch: &mut Batch, rules: &Rules) -> Result<Outcomes, Contended> {
        loop {
            let excerpt = self.store.load(batch.load()?);
            if let Some(step) = batch.run(excerpt, rules, now(self.second)) {
                return Ok(step);
            }
        }
    }

    fn commit(&mut self, step: &Outcomes) -> Option<Result<Outcome, Past>> {
        if self.store.commit(step) == Committed::Changed {
            self.changed += 1;
            return None;
        }
        within_limits(&step.result[0], &self.store.records.buckets);
        Some(step.result[0].clone())
    }

    fn finish(&mut self, mut batch: Batch, rules: &Rules, first: Outcomes) -> Result<Outcome, Past> {
        let mut step = first;
        loop {
            if let Some(outcome) = self.commit(&step) {
                return outcome;
            }
            step = self.decide(&mut batch, rules).unwrap();
        }
    }

    fn expire(&self) -> Option<Step<()>> {
        let now = now(self.second);
        let due = self.store.due(Upkeep::Expire, now, FEW);
        (due != Touched::default()).then(|| self.store.load(&due).run(|state| state.keep_up(Upkeep::Expire, now)))
    }

    /// Tokens are leased once, and those that holders have are those that are leased.
    fn check(&self) {
        let mut leased: BTreeMap<&BucketKey, u64> = BTreeMap::new();
        for ((_, key), lease) in &self.store.records.leases {
            *leased.entry(key).or_default() += lease.outstanding;
        }
        for (key, bucket) in &self.store.records.buckets {
            assert_eq!(bucket.leased, leased.get(key).copied().unwrap_or(0), "{key:?}");
        }
    }
}

impl Books for SharedLedger {
    fn call(&mut self, request: &SyncRequest, death: Death) -> Result<Outcome, Past> {
        let (mut batch, rules) = (self.begin(request), self.rules(request));
        let step = self.decide(&mut batch, &rules).unwrap();
        if death == Death::BeforeCommit {
            return step.result[0].clone();
        }
        let outcome = self.finish(batch, &rules, step);
        self.check();
        outcome
    }

    /// Both decide, and both charge who is silent, before either commits.
    fn both(&mut self, requests: &[SyncRequest; 2]) -> [Result<Outcome, Past>; 2] {
        let rules = requests.each_ref().map(|request| self.rules(request));
        let mut batches = requests.each_ref().map(|request| self.begin(request));
        let [one, other] = &mut batches;
        let decided = [self.decide(one, &rules[0]).unwrap(), self.decide(other, &rules[1]).unwrap()];
        let upkeep = self.expire();
        let [one, other] = batches;
        let [first, second] = decided;
        let first = self.finish(one, &rules[0], first);
        if let Some(step) = upkeep {
            self.store.commit(&step);
        }
        let second = self.finish(other, &rules[1], second);
        self.check();
        [first, second]
    }

    fn pass(&mut self, seconds: u64) {
        self.second += seconds;
        while let Some(step) = self.expire() {
            assert_eq!(self.store.commit(&step), Committed::Yes);
        }
        self.check();
    }

    /// A control plane keeps nothing that counts.
    fn restart(&mut self) {}

    fn configure(&mut self, configured: &Configured) {
        let now = now(self.second);
        self.rules.iter_mut().for_each(|rules| rules.replace(configured, now));
    }

    fn books(&self) -> (&Buckets, &Leases) {
        (&self.store.records.buckets, &self.store.records.leases)
    }

    fn used(&self) -> usage::Totals {
        sum(&self.store.usage)
    }
}

const DAY: Duration = Duration::from_secs(86_400);

fn request(worker: u64, sequence: u64, tokens: u64) -> SyncRequest {
    let wants = vec![want("day", tokens, tokens)];
    SyncRequest { proxy: "envoy".into(), epoch: 1, worker, sequence, wants, ..Default::default() }
}

fn granted(outcome: &Result<Outcome, Past>) -> u64 {
    match outcome {
        Ok(Outcome::Applied(answer) | Outcome::Repeated(answer)) => answer.grants[0].granted,
        Err(past) => panic!("{past}"),
    }
}

#[test]
fn who_comes_second_gets_what_is_left() {
    let mut ledger = SharedLedger::new(&[limit("day", 100, DAY)]);
    let outcomes = ledger.both(&[request(1, 1, 80), request(2, 1, 80)]);
    assert_eq!(outcomes.each_ref().map(granted), [80, 20]);
    assert_eq!(ledger.changed, 1);
}

#[test]
fn the_same_call_at_both_control_planes_counts_once() {
    let mut ledger = SharedLedger::new(&[limit("day", 100, DAY)]);
    let call = SyncRequest { usage: vec![used()], ..request(1, 1, 30) };
    let outcomes = ledger.both(&[call.clone(), call]);
    assert!(matches!(outcomes, [Ok(Outcome::Applied(_)), Ok(Outcome::Repeated(_))]), "{outcomes:?}");
    assert_eq!(outcomes.each_ref().map(granted), [30, 30]);
    assert_eq!((ledger.books().0.values().map(|bucket| bucket.leased).sum::<u64>(), ledger.used().requests), (30, 1));
}

#[test]
fn who_calls_while_it_is_charged_keeps_what_it_has_or_loses_all_of_it() {
    let mut ledger = SharedLedger::new(&[limit("day", 100, DAY)]);
    ledger.call(&request(1, 1, 30), Death::Never).unwrap();
    ledger.second += 31;
    let upkeep = ledger.expire().unwrap();
    ledger.call(&request(1, 2, 5), Death::Never).unwrap();
    assert_eq!(ledger.store.commit(&upkeep), Committed::Changed);
    let books: Vec<_> = ledger.books().0.values().map(|bucket| (bucket.spent, bucket.leased)).collect();
    assert_eq!(books, [(30, 5)]);
}

#[test]
fn after_many_conflicts_the_caller_is_to_ask_again() {
    let mut ledger = SharedLedger::new(&[limit("day", 100, DAY)]);
    let call = request(1, 1, 30);
    let (mut batch, rules) = (ledger.begin(&call), ledger.rules(&call));
    let mut sequence = 0;
    let contended = loop {
        let step = match ledger.decide(&mut batch, &rules) {
            Ok(step) => step,
            Err(contended) => break contended,
        };
        sequence += 1;
        ledger.call(&request(2, sequence, 1), Death::Never).unwrap();
        assert_eq!(ledger.commit(&step), None);
    };
    assert_eq!(contended, Contended);
    assert_eq!(ledger.books().0.values().map(|bucket| bucket.leased).sum::<u64>(), sequence);
    assert_eq!(granted(&ledger.call(&call, Death::Never)), 30, "asked again");
}
