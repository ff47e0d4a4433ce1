//! Any traffic, any order of lost, repeated and stray calls, any moment of death: the books are right.
//!
//! Proxies that keep to the protocol run against the ledger; beside it stands a reference that only
//! knows which calls have counted, and adds up. The ledger is one that keeps its state in memory, or two control planes
//! at one store that both write to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use tollgate_proto::v1::{self, Settlement, SyncRequest, Usage};

use super::shared_test::SharedLedger;
use super::test_support::*;
use super::*;
use crate::ir::Limit;

const LIMITS: [&str; 2] = ["minute", "life"];
const PROXIES: usize = 3;
const WORKERS: usize = 2;

#[derive(Debug, Clone)]
enum Op {
    Reserve { proxy: usize, limit: usize, tokens: u64 },
    Finish { proxy: usize, tokens: u64 },
    Release { proxy: usize, limit: usize },
    Send { proxy: usize, worker: usize, fate: Fate },
    SendBoth { calls: [(usize, usize); 2] },
    Stray { of: usize },
    Wait { seconds: u64 },
    KillProxy { proxy: usize },
    RestartLedger,
    Resize { limit: usize, tokens: u64 },
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered,
    Lost,
    AnswerLost,
    Died(Death),
}

#[derive(Default)]
struct Local {
    window_start: i64,
    available: u64,
}

#[derive(Default)]
struct Proxy {
    epoch: u64,
    leases: [Local; 2],
    /// Limit, window, tokens.
    running: Vec<(usize, i64, u64)>,
    pending: SyncRequest,
    workers: [(u64, Option<SyncRequest>); WORKERS],
}

struct World<L> {
    ledger: L,
    tokens: [u64; 2],
    proxies: Vec<Proxy>,
    sent: Vec<SyncRequest>,
    /// Calls that had an effect which lasted.
    counted: BTreeSet<(String, u64, u64, u64)>,
    charged: BTreeMap<(String, i64), u64>,
    requests: u64,
}

fn op() -> impl Strategy<Value = Op> {
    let (proxy, limit) = (0..PROXIES, 0..2usize);
    let call = (0..PROXIES, 0..WORKERS);
    let fate = prop_oneof![
        4 => Just(Fate::Answered), 1 => Just(Fate::Lost), 1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Died(Death::BeforeCommit)), 1 => Just(Fate::Died(Death::AfterCommit)),
    ];
    prop_oneof![
        6 => (proxy.clone(), limit.clone(), 1..400u64).prop_map(|(proxy, limit, tokens)| Op::Reserve { proxy, limit, tokens }),
        5 => (proxy.clone(), 0..500u64).prop_map(|(proxy, tokens)| Op::Finish { proxy, tokens }),
        1 => (proxy.clone(), limit.clone()).prop_map(|(proxy, limit)| Op::Release { proxy, limit }),
        8 => (proxy.clone(), 0..WORKERS, fate).prop_map(|(proxy, worker, fate)| Op::Send { proxy, worker, fate }),
        3 => (call.clone(), call).prop_map(|(one, other)| Op::SendBoth { calls: [one, other] }),
        1 => (0..1000usize).prop_map(|of| Op::Stray { of }),
        2 => (1..40u64).prop_map(|seconds| Op::Wait { seconds }),
        1 => proxy.prop_map(|proxy| Op::KillProxy { proxy }),
        1 => Just(Op::RestartLedger),
        1 => (limit, 0..3000u64).prop_map(|(limit, tokens)| Op::Resize { limit, tokens }),
    ]
}

impl<L: Books> World<L> {
    fn new(ledger: impl FnOnce(&[Limit]) -> L) -> Self {
        let tokens = [800, 2500];
        let proxies = (0..PROXIES).map(|_| Proxy { epoch: 1, ..Proxy::default() }).collect();
        let ledger = ledger(&Self::limits(tokens));
        Self { ledger, tokens, proxies, sent: vec![], counted: BTreeSet::new(), charged: BTreeMap::new(), requests: 0 }
    }

    fn limits(tokens: [u64; 2]) -> [Limit; 2] {
        [limit("minute", tokens[0], Duration::from_secs(60)), limit("life", tokens[1], Duration::ZERO)]
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Reserve { proxy, limit, tokens } => self.reserve(proxy, limit, tokens),
            Op::Finish { proxy, tokens } => self.finish(proxy, tokens),
            Op::Release { proxy, limit } => {
                let proxy = &mut self.proxies[proxy];
                let local = &mut proxy.leases[limit];
                let (window_start, released) = (local.window_start, std::mem::take(&mut local.available));
                let bucket = Some(bucket(LIMITS[limit], "app"));
                proxy.pending.settlements.push(Settlement { bucket, window_start, released, ..Default::default() });
            }
            Op::Send { proxy, worker, fate } => self.send(proxy, worker, fate),
            Op::SendBoth { calls } => self.send_both(calls),
            Op::Stray { of } => {
                if let Some(request) = self.sent.get(of % self.sent.len().max(1)).cloned() {
                    self.deliver(&request, Death::Never);
                }
            }
            Op::Wait { seconds } => self.ledger.pass(seconds),
            Op::KillProxy { proxy } => {
                let epoch = self.proxies[proxy].epoch + 1;
                self.proxies[proxy] = Proxy { epoch, ..Proxy::default() };
            }
            Op::RestartLedger => self.ledger.restart(),
            Op::Resize { limit, tokens } => {
                self.tokens[limit] = tokens;
                self.ledger.configure(&configured(&Self::limits(self.tokens)));
            }
        }
        self.check();
    }

    fn reserve(&mut self, proxy: usize, limit: usize, tokens: u64) {
        let proxy = &mut self.proxies[proxy];
        let local = &mut proxy.leases[limit];
        if local.available >= tokens {
            local.available -= tokens;
            proxy.running.push((limit, local.window_start, tokens));
        } else {
            proxy.pending.wants.push(want(LIMITS[limit], 3 * tokens, tokens));
        }
    }

    /// The true usage replaces the reservation: a refund or a debt.
    fn finish(&mut self, proxy: usize, charged: u64) {
        let proxy = &mut self.proxies[proxy];
        let Some((limit, window_start, reserved)) = proxy.running.pop() else {
            return;
        };
        let local = &mut proxy.leases[limit];
        let from_lease = if local.window_start == window_start {
            let before = local.available + reserved;
            local.available = before.saturating_sub(charged);
            before - local.available
        } else {
            reserved
        };
        let bucket = Some(bucket(LIMITS[limit], "app"));
        proxy.pending.settlements.push(Settlement { bucket, window_start, from_lease, charged, released: 0 });
        proxy.pending.usage.push(Usage { output_tokens: charged, ..used() });
    }

    /// The call that this worker has under way.
    fn under_way(&mut self, index: usize, worker: usize) -> SyncRequest {
        let proxy = &mut self.proxies[index];
        let (epoch, (sequence, in_flight)) = (proxy.epoch, &mut proxy.workers[worker]);
        let request = in_flight.get_or_insert_with(|| {
            *sequence += 1;
            SyncRequest {
                proxy: format!("envoy-{index}"),
                epoch,
                worker: worker as u64,
                sequence: *sequence,
                ..std::mem::take(&mut proxy.pending)
            }
        });
        let request = request.clone();
        self.sent.push(request.clone());
        request
    }

    fn send(&mut self, index: usize, worker: usize, fate: Fate) {
        let request = self.under_way(index, worker);
        let answer = match fate {
            Fate::Lost => None,
            Fate::AnswerLost => self.deliver(&request, Death::Never).and(None),
            Fate::Answered => self.deliver(&request, Death::Never),
            Fate::Died(death) => self.deliver(&request, death),
        };
        if let Some(answer) = answer {
            self.answered(index, worker, answer);
        }
    }

    /// Two calls at the same time, or the same one twice.
    fn send_both(&mut self, calls: [(usize, usize); 2]) {
        let requests = calls.map(|(index, worker)| self.under_way(index, worker));
        let outcomes = self.ledger.both(&requests);
        requests.iter().zip(&outcomes).for_each(|(request, outcome)| self.account(request, outcome));
        for ((index, worker), outcome) in calls.into_iter().zip(outcomes) {
            if let Ok(Outcome::Applied(answer) | Outcome::Repeated(answer)) = outcome
                && self.proxies[index].workers[worker].1.is_some()
            {
                self.answered(index, worker, answer);
            }
        }
    }

    fn answered(&mut self, index: usize, worker: usize, answer: v1::SyncResponse) {
        let proxy = &mut self.proxies[index];
        proxy.workers[worker].1 = None;
        for grant in answer.grants {
            let limit = LIMITS.iter().position(|id| *id == grant.bucket.as_ref().unwrap().limit).unwrap();
            let local = &mut proxy.leases[limit];
            if grant.window_start > local.window_start {
                *local = Local { window_start: grant.window_start, available: 0 };
            }
            if grant.window_start == local.window_start {
                local.available += grant.granted;
            }
        }
    }

    /// One copy of a call reaches the ledger.
    fn deliver(&mut self, request: &SyncRequest, death: Death) -> Option<v1::SyncResponse> {
        let outcome = self.ledger.call(request, death);
        if death != Death::BeforeCommit {
            self.account(request, &outcome);
        }
        match outcome {
            Ok(Outcome::Applied(answer) | Outcome::Repeated(answer)) if death == Death::Never => Some(answer),
            _ => None,
        }
    }

    /// The reference counts a call if it is the first that lasted.
    fn account(&mut self, request: &SyncRequest, outcome: &Result<Outcome, Past>) {
        let Ok(Outcome::Applied(answer)) = outcome else { return };
        let name = (request.proxy.clone(), request.epoch, request.worker, request.sequence);
        let granted = answer.grants.iter().any(|grant| grant.granted > 0);
        if granted || !request.settlements.is_empty() {
            assert!(self.counted.insert(name), "{request:?} counts twice");
        }
        self.requests += request.usage.iter().map(|row| row.requests).sum::<u64>();
        for settlement in &request.settlements {
            let key = (settlement.bucket.as_ref().unwrap().limit.clone(), settlement.window_start);
            *self.charged.entry(key).or_default() += settlement.charged;
        }
    }

    fn check(&self) {
        let (buckets, leases) = self.ledger.books();
        assert_eq!(self.ledger.used().requests, self.requests);
        assert_eq!(self.ledger.used().output_tokens, self.charged.values().sum::<u64>());
        for (key, bucket) in buckets {
            let expired: u64 = leases.iter().filter(|((_, of), _)| of == key).map(|(_, lease)| lease.expired).sum();
            let charged = self.charged.get(&(key.limit.clone(), key.window_start)).copied().unwrap_or(0);
            assert_eq!(bucket.spent, charged + expired, "{key:?}");
        }
        // What a proxy may still use is covered: nobody else can be granted it.
        for (index, proxy) in self.proxies.iter().enumerate() {
            for (limit, local) in proxy.leases.iter().enumerate() {
                let running =
                    proxy.running.iter().filter(|(of, window, _)| (*of, *window) == (limit, local.window_start));
                let held = local.available + running.map(|(_, _, tokens)| tokens).sum::<u64>();
                let holder = HolderKey { identity: OURS.into(), proxy: format!("envoy-{index}"), epoch: proxy.epoch };
                let window_start = local.window_start;
                let key = BucketKey { limit: LIMITS[limit].into(), scope: vec!["app".into()], window_start };
                let lease = leases.get(&(holder, key)).copied().unwrap_or_default();
                assert!(held <= lease.outstanding + lease.expired, "envoy-{index} holds {held} of {lease:?}");
            }
        }
    }
}

fn run<L: Books>(mut world: World<L>, ops: Vec<Op>) {
    ops.into_iter().for_each(|op| world.run(op));
    // In the end every report arrives, whatever was lost on the way.
    for proxy in 0..PROXIES {
        for worker in (0..WORKERS).chain([0]) {
            world.send(proxy, worker, Fate::Answered);
            assert!(world.proxies[proxy].workers[worker].1.is_none());
        }
        assert_eq!(world.proxies[proxy].pending, SyncRequest::default());
    }
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn the_books_are_right(ops in prop::collection::vec(op(), 1..120)) {
        run(World::new(TestLedger::new), ops);
    }

    #[test]
    fn the_books_are_right_where_two_control_planes_write(ops in prop::collection::vec(op(), 1..120)) {
        run(World::new(SharedLedger::new), ops);
    }
}
