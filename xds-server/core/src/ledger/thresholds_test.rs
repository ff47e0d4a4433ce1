//! Thresholds of budgets: who is told of what, and how often.

use std::time::Duration;

use proptest::prelude::*;
use tollgate_proto::v1::{Settlement, SyncRequest};

use super::test_support::*;
use super::*;
use crate::ir::{Limit, Thresholds};

const DAY: Duration = Duration::from_secs(86_400);

struct Books {
    ledger: TestLedger,
    sequence: u64,
}

// === impl Books ===

impl Books {
    fn new(limits: &[Limit]) -> Self {
        Self { ledger: TestLedger::new(limits), sequence: 0 }
    }

    /// A holder owes so many tokens. Returns the thresholds that are crossed; a commit that fails comes to nothing.
    fn owes(&mut self, limit: &str, consumer: &str, tokens: u64, death: Death) -> Vec<u16> {
        self.sequence += 1;
        let bucket = Some(bucket(limit, consumer));
        let settlement = Settlement { bucket, window_start: 0, from_lease: 0, charged: tokens, released: 0 };
        let request = SyncRequest {
            proxy: "envoy".into(),
            epoch: 1,
            worker: 1,
            sequence: self.sequence,
            settlements: vec![settlement],
            ..SyncRequest::default()
        };
        let call = Call::new(OURS.to_owned(), request).unwrap();
        let (rules, now) = (self.ledger.rules.clone(), self.ledger.now());
        apply(&mut self.ledger.state, &rules, call, now).unwrap();
        let crossings = self.commit(death);
        if death != Death::Never {
            self.ledger.restart();
        }
        crossings
    }

    fn commit(&mut self, death: Death) -> Vec<u16> {
        let crossings = self.ledger.state.cross(&self.ledger.rules);
        let changes = self.ledger.state.take_changes();
        if death == Death::BeforeCommit {
            return Vec::new();
        }
        self.ledger.disk.commit(&changes);
        crossings.iter().map(|crossing| crossing.threshold).collect()
    }

    fn untold(&self) -> Vec<u16> {
        let untold = self.ledger.state.untold(&self.ledger.rules, self.ledger.now());
        untold.iter().map(|crossing| crossing.threshold).collect()
    }

    fn ratio(&self) -> Vec<f64> {
        self.ledger.state.spent_ratios(&self.ledger.rules, self.ledger.now()).map(|(_, ratio)| ratio).collect()
    }
}

fn day(tokens: u64, warn_at: &[i64]) -> Limit {
    Limit { warn_at: Thresholds::new(warn_at).unwrap(), ..limit("day", tokens, DAY) }
}

#[test]
fn each_threshold_is_crossed_once_by_each_budget_in_each_window() {
    let mut books = Books::new(&[limit("day", 100, DAY)]);
    let mut owes = |consumer, tokens| books.owes("day", consumer, tokens, Death::Never);
    assert_eq!(owes("app", 79), [0_u16; 0]);
    assert_eq!(owes("app", 1), [80]);
    assert_eq!(owes("app", 19), [0_u16; 0]);
    assert_eq!(owes("app", 1), [100]);
    assert_eq!(owes("app", 500), [0_u16; 0], "more than all is no threshold by default");
    assert_eq!(owes("other", 200), [80, 100], "lower ones first");
    books.ledger.second += 86_400;
    assert_eq!(books.owes("day", "app", 85, Death::Never), [80], "a new window");
}

#[test]
fn a_crossing_says_whose_budget_it_is_and_how_full() {
    let mut books = Books::new(&[day(1000, &[50])]);
    books.owes("day", "app", 700, Death::Never);
    let crossing = books.ledger.state.untold(&books.ledger.rules, books.ledger.now()).remove(0);
    assert_eq!((crossing.policy.to_string().as_str(), crossing.limit.as_str()), ("default/p", "day"));
    assert_eq!((crossing.threshold, crossing.spent, crossing.tokens), (50, 700, 1000));
    assert_eq!((crossing.key.window_start, crossing.window_end), (BEGIN, BEGIN + 86_400));
    assert_eq!(crossing.key.scope, ["app"]);
}

#[test]
fn what_is_given_back_and_spent_again_is_told_of_once() {
    let mut books = Books::new(&[limit("day", 100, DAY)]);
    let wants = vec![want("day", 90, 90)];
    books.ledger.sync(&SyncRequest {
        proxy: "late".into(),
        epoch: 1,
        worker: 1,
        sequence: 1,
        wants,
        ..Default::default()
    });
    books.ledger.second += 60;
    let now = books.ledger.now();
    books.ledger.state.expire(now);
    assert_eq!(books.commit(Death::Never), [80], "the lease of a silent holder is charged");
    let back =
        Settlement { bucket: Some(bucket("day", "app")), window_start: BEGIN, from_lease: 0, charged: 0, released: 90 };
    let settlements = vec![back];
    books.ledger.sync(&SyncRequest {
        proxy: "late".into(),
        epoch: 1,
        worker: 1,
        sequence: 2,
        settlements,
        ..Default::default()
    });
    assert_eq!(books.ledger.bucket("day").spent, 0);
    assert_eq!(books.owes("day", "app", 90, Death::Never), [0_u16; 0]);
    assert_eq!(books.owes("day", "app", 10, Death::Never), [100]);
}

#[test]
fn a_crossing_is_as_durable_as_the_tokens_that_made_it() {
    let mut books = Books::new(&[limit("day", 100, DAY)]);
    assert_eq!(books.owes("day", "app", 85, Death::BeforeCommit), [0_u16; 0]);
    assert_eq!((books.ledger.disk.records.buckets.len(), books.untold()), (0, vec![]), "nothing of it has happened");
    books.sequence -= 1;
    assert_eq!(books.owes("day", "app", 85, Death::AfterCommit), [80]);
    assert_eq!(books.untold(), [80], "nobody has said that it was told");
    assert_eq!(books.owes("day", "app", 1, Death::Never), [0_u16; 0], "it is not crossed again");
    let key = books.ledger.disk.records.buckets.keys().next().unwrap().clone();
    books.ledger.state.told(&key, 80);
    books.commit(Death::Never);
    books.ledger.restart();
    assert_eq!(books.untold(), [0_u16; 0]);
    assert_eq!(books.owes("day", "app", 20, Death::AfterCommit), [100]);
    assert_eq!(books.untold(), [100]);
    books.ledger.second += 86_400;
    assert_eq!(books.untold(), [0_u16; 0], "the window is over");
}

#[test]
fn a_limit_may_have_no_thresholds_others_or_no_tokens() {
    let mut books = Books::new(&[day(100, &[])]);
    assert_eq!(books.owes("day", "app", 500, Death::Never), [0_u16; 0]);
    let mut books = Books::new(&[day(0, &[1, 100])]);
    assert_eq!(books.owes("day", "app", 5, Death::Never), [0_u16; 0]);
    assert_eq!(books.ratio(), [0.0; 0]);
    let mut books = Books::new(&[day(100, &[150, 10])]);
    assert_eq!(books.owes("day", "app", 149, Death::Never), [10]);
    assert_eq!(books.owes("day", "app", 1, Death::Never), [150]);
    // One that is added below what was told of is no news.
    books.ledger.configure(&configured(&[day(100, &[150, 120, 160])]));
    assert_eq!(books.owes("day", "app", 10, Death::Never), [160]);
}

#[test]
fn the_fullest_budget_is_that_of_the_present_window() {
    let mut books = Books::new(&[limit("day", 100, DAY), limit("other", 1000, DAY)]);
    assert_eq!(books.ratio(), [0.0, 0.0]);
    books.owes("day", "app", 30, Death::Never);
    books.owes("day", "other", 120, Death::Never);
    assert_eq!(books.ratio(), [1.2, 0.0]);
    books.ledger.restart();
    assert_eq!(books.ratio(), [1.2, 0.0]);
    books.ledger.second += 86_400;
    assert_eq!(books.ratio(), [0.0, 0.0], "the window is over");
    books.owes("day", "app", 10, Death::Never);
    assert_eq!(books.ratio(), [0.1, 0.0]);
}

proptest! {
    /// Whatever buckets do, the fullest one is what a look at all of them finds.
    #[test]
    fn the_fullest_one_is_found_without_a_look_at_all(
        changes in prop::collection::vec((0..3_usize, 0..3_usize, 0..3_i64, prop::option::of(0..100_u64)), 1..40)
    ) {
        let mut state = State::default();
        let limits = ["a", "b", "c"].map(|id| Limit { warn_at: Thresholds::default(), ..limit(id, 50, DAY) });
        let rules = Rules::new(&configured(&limits), TTL);
        for (limit, scope, window, spent) in changes {
            let id = ["a", "b", "c"][limit].to_owned();
            let key = BucketKey { limit: id, scope: vec![["x", "y", "z"][scope].to_owned()], window_start: window };
            let bucket = spent.map(|spent| Bucket { spent, ..Bucket::default() });
            match bucket {
                Some(bucket) => state.buckets.insert(key.clone(), bucket),
                None => state.buckets.remove(&key),
            };
            state.changes.buckets.insert(key, bucket);
            state.cross(&rules);
            state.take_changes();
            let found: Vec<f64> = state.spent_ratios(&rules, now(0)).map(|(_, ratio)| ratio).collect();
            let newest = |id: &str| state.buckets.keys().filter(|key| key.limit == id).map(|key| key.window_start).max();
            let of = |id: &str| {
                let newest = state.buckets.iter().filter(|(key, _)| key.limit == id && Some(key.window_start) == newest(id));
                newest.map(|(_, bucket)| bucket.spent).max().unwrap_or(0) as f64 / 50.0
            };
            prop_assert_eq!(found, vec![of("a"), of("b"), of("c")]);
        }
    }
}
