//! For the tests: a store in memory, and a ledger on it that can be killed at any point.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tollgate_proto::v1::{self, CountWeights, SyncRequest, SyncResponse};

use super::*;
use crate::ir::{Limit, Mode, OnEarlyEnd, OnLedgerUnavailable, ScopePart, Thresholds, Window};
use crate::status::Origin;

/// The identity of the callers that the Gateway of the tests has.
pub const OURS: &str = "gateway/ours";
pub const TTL: Duration = Duration::from_secs(30);
/// A multiple of a day, so that windows begin with it.
pub const BEGIN: i64 = 1_795_305_600;

/// What is durable.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Disk {
    pub records: Records,
    pub usage: BTreeMap<(u64, usage::UsageKey), usage::Totals>,
}

pub struct TestLedger {
    pub disk: Disk,
    pub state: State,
    pub rules: Rules,
    /// Seconds since `BEGIN`.
    pub second: u64,
}

/// When a call's ledger dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    Never,
    BeforeCommit,
    AfterCommit,
}

pub type Buckets = BTreeMap<BucketKey, Bucket>;
pub type Leases = BTreeMap<(HolderKey, BucketKey), Lease>;

/// A ledger as the model sees it.
pub trait Books {
    fn call(&mut self, request: &SyncRequest, death: Death) -> Result<Outcome, Past>;
    /// Two calls, neither of which waits for the other.
    fn both(&mut self, requests: &[SyncRequest; 2]) -> [Result<Outcome, Past>; 2];
    fn pass(&mut self, seconds: u64);
    fn restart(&mut self);
    fn configure(&mut self, configured: &Configured);
    fn books(&self) -> (&Buckets, &Leases);
    fn used(&self) -> usage::Totals;
}

pub fn limit(id: &str, tokens: u64, window: Duration) -> Limit {
    Limit {
        origin: Origin::new("TokenPolicy", "default", "p"),
        id: id.to_owned(),
        policy: "p".to_owned(),
        name: id.to_owned(),
        tokens,
        window: Window::Fixed(window),
        scope: vec![ScopePart::Consumer],
        count: CountWeights::default(),
        mode: Mode::Enforce,
        on_ledger_unavailable: OnLedgerUnavailable::Deny,
        on_early_end: OnEarlyEnd::Estimate,
        warn_at: Thresholds::default(),
    }
}

/// One Gateway that serves these limits, and the consumers and the route of the tests.
pub fn configured(limits: &[Limit]) -> Configured {
    let others = [Thing::consumer("app"), Thing::consumer("other"), Thing::route("chat")];
    let served = limits.iter().map(|limit| Thing::limit(&limit.id)).chain(others).collect();
    Configured { limits: limits.to_vec(), served: [(OURS.to_owned(), vec![served])].into(), ..Configured::default() }
}

/// So many seconds after the beginning.
pub fn now(second: u64) -> Now {
    let wall = Timestamp::from_second(BEGIN + i64::try_from(second).unwrap()).unwrap();
    Now { wall, steady: Duration::from_secs(second) }
}

pub fn sum(usage: &BTreeMap<(u64, usage::UsageKey), usage::Totals>) -> usage::Totals {
    let mut sum = usage::Totals::default();
    usage.values().for_each(|totals| sum += *totals);
    sum
}

/// What was granted is within the limit at that moment.
pub fn within_limits(outcome: &Result<Outcome, Past>, buckets: &Buckets) {
    let Ok(Outcome::Applied(answer)) = outcome else { return };
    for grant in answer.grants.iter().filter(|grant| grant.granted > 0) {
        let v1::Bucket { limit, scope } = grant.bucket.clone().unwrap();
        let bucket = buckets[&BucketKey { limit, scope, window_start: grant.window_start }];
        assert!(bucket.spent + bucket.leased <= grant.limit, "{bucket:?} after {grant:?}");
    }
}

/// One request.
pub fn used() -> v1::Usage {
    let (consumer, route, model) = ("app".into(), "chat".into(), "smol".into());
    v1::Usage { consumer, route, model, requests: 1, ..v1::Usage::default() }
}

pub fn bucket(limit: &str, consumer: &str) -> v1::Bucket {
    v1::Bucket { limit: limit.to_owned(), scope: vec![consumer.to_owned()] }
}

pub fn want(limit: &str, wish: u64, least: u64) -> v1::Want {
    v1::Want { bucket: Some(bucket(limit, "app")), wish, least }
}

// === impl Disk ===

impl Disk {
    pub fn commit(&mut self, changes: &Changes) {
        fn put<K: Ord + Clone, V: Clone>(records: &mut BTreeMap<K, V>, changes: &BTreeMap<K, Option<V>>) {
            for (key, value) in changes {
                match value {
                    Some(value) => records.insert(key.clone(), value.clone()),
                    None => records.remove(key),
                };
            }
        }
        put(&mut self.records.buckets, &changes.buckets);
        put(&mut self.records.leases, &changes.leases);
        let seen = changes.holders.iter().map(|(key, heard)| (key.clone(), heard.map(|heard| heard.seen))).collect();
        put(&mut self.records.holders, &seen);
        put(&mut self.records.workers, &changes.workers);
        if let Some(last) = changes.asked.last() {
            self.records.asked.extend(changes.asked.iter().cloned());
            self.records.asked.retain(|asked| asked.day == last.day);
        }
        for (key, totals) in &changes.usage {
            *self.usage.entry(key.clone()).or_default() += *totals;
        }
        if let Some(minute) = changes.forget_before {
            self.usage.retain(|(at, _), _| *at >= minute);
        }
    }
}

// === impl TestLedger ===

impl TestLedger {
    pub fn new(limits: &[Limit]) -> Self {
        Self { disk: Disk::default(), state: State::default(), rules: Rules::new(&configured(limits), TTL), second: 1 }
    }

    pub fn now(&self) -> Now {
        now(self.second)
    }

    /// From now on these are configured.
    pub fn configure(&mut self, configured: &Configured) {
        let now = self.now();
        self.rules.replace(configured, now);
    }

    /// What the ledger did, even if it died before it could say so; then it is up again.
    pub fn call(&mut self, request: &SyncRequest, death: Death) -> Result<Outcome, Past> {
        self.call_of(OURS, request, death)
    }

    /// The same of a caller with another certificate.
    pub fn call_of(&mut self, identity: &str, request: &SyncRequest, death: Death) -> Result<Outcome, Past> {
        let call = Call::new(identity.to_owned(), request.clone()).unwrap();
        let (rules, now) = (self.rules.clone(), self.now());
        let outcome = apply(&mut self.state, &rules, call, now);
        if death == Death::BeforeCommit {
            self.restart();
            return outcome;
        }
        self.tick();
        if death == Death::AfterCommit {
            self.restart();
        }
        outcome
    }

    pub fn sync(&mut self, request: &SyncRequest) -> SyncResponse {
        match self.call(request, Death::Never) {
            Ok(Outcome::Applied(answer) | Outcome::Repeated(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub fn tick(&mut self) {
        let now = self.now();
        self.state.expire(now);
        let changes = self.state.take_changes();
        self.disk.commit(&changes);
        self.check();
    }

    pub fn prune(&mut self) {
        let now = self.now();
        self.state.prune(now);
        self.tick();
    }

    pub fn restart(&mut self) {
        self.state = State::new(self.disk.records.clone(), TTL, self.now());
        self.check();
    }

    pub fn bucket(&self, limit: &str) -> Bucket {
        let (_, bucket) = self.disk.records.buckets.iter().rfind(|(key, _)| key.limit == limit).unwrap();
        *bucket
    }

    pub fn used(&self) -> usage::Totals {
        sum(&self.disk.usage)
    }

    /// What is leased is what holders have; what is in memory is what is on the disk.
    fn check(&self) {
        let mut leased: BTreeMap<&BucketKey, u64> = BTreeMap::new();
        for ((_, key), lease) in &self.disk.records.leases {
            *leased.entry(key).or_default() += lease.outstanding;
        }
        for (key, bucket) in &self.disk.records.buckets {
            assert_eq!(bucket.leased, leased.get(key).copied().unwrap_or(0), "{key:?}");
        }
        for (key, bucket) in &self.state.buckets {
            let stored = self.disk.records.buckets.get(key).copied().unwrap_or_default();
            assert_eq!(stored, *bucket, "{key:?}");
        }
    }
}

impl Books for TestLedger {
    fn call(&mut self, request: &SyncRequest, death: Death) -> Result<Outcome, Past> {
        let outcome = Self::call(self, request, death);
        if death != Death::BeforeCommit {
            within_limits(&outcome, &self.disk.records.buckets);
        }
        outcome
    }

    fn both(&mut self, requests: &[SyncRequest; 2]) -> [Result<Outcome, Past>; 2] {
        requests.each_ref().map(|request| Books::call(self, request, Death::Never))
    }

    fn pass(&mut self, seconds: u64) {
        self.second += seconds;
        self.tick();
    }

    fn restart(&mut self) {
        Self::restart(self);
    }

    fn configure(&mut self, configured: &Configured) {
        Self::configure(self, configured);
    }

    fn books(&self) -> (&Buckets, &Leases) {
        (&self.disk.records.buckets, &self.disk.records.leases)
    }

    fn used(&self) -> usage::Totals {
        Self::used(self)
    }
}
