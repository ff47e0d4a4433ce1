//! The one thread that writes. It puts all waiting calls into one commit, and answers them after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tollgate_core::ir::Schema;
use tollgate_core::ledger::{
    Call, Configured, Crossing, Now, Outcome, Past, Reason, RefusedEntry, Rules, State, apply,
};
use tollgate_proto::v1::SyncResponse;

use super::clock::Clock;
use super::disk::Disk;
use crate::audit::{Audit, Event};
use crate::ledger::crossings::Inbox;
use crate::ledger::metrics::{CallLabels, CallOutcome, Metrics};
use crate::ledger::minutes::Minutes;
use crate::ledger::{News, Receipts, StoreError};

/// The most calls in one commit.
const MAX_BATCH: usize = 512;
/// How often the thread looks at the clock while nobody calls. Leases last for thirty times as long.
const TICK: Duration = Duration::from_secs(1);
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Windows end although nothing changes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The pause before the store is loaded again. Loading reads the whole file.
const LOAD_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Job {
    /// In a box, because the queue has room for all that may wait from the start.
    Call(Box<Waiting>),
    Close(oneshot::Sender<()>),
}

/// A call, when it came, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub call: Call,
    pub arrived: Now,
    pub answer: oneshot::Sender<Result<SyncResponse, NotApplied>>,
}

/// Why a call got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NotApplied {
    #[error(transparent)]
    Past(#[from] Past),
    /// The call may have counted or not. Sending the same call again finds out.
    #[error("the ledger cannot write: {0}")]
    Store(Arc<StoreError>),
}

/// Whether the state in memory matches the store.
#[derive(Debug)]
pub(super) enum Books {
    Open(Box<State>),
    /// A commit failed. Until the store is loaded again, nobody knows how much of it was written.
    Failed {
        error: Arc<StoreError>,
        at: Duration,
    },
}

#[derive(Debug)]
pub(super) struct Writer {
    pub disk: Box<dyn Disk>,
    pub books: Books,
    pub configured: watch::Receiver<Arc<Configured>>,
    pub rules: Rules,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
    pub pruned: Duration,
    /// Usage that neither the audit log nor a collector has heard of yet.
    pub minutes: Minutes,
    /// When the ratios of budgets were looked at, if nothing has changed since.
    pub looked: Option<Duration>,
    /// What others say of crossings that they were told.
    pub inbox: Arc<Inbox>,
    /// Refused entries that the log has named already. The log names each once, the metrics count all.
    pub warned: BTreeSet<RefusedEntry>,
}

// === impl Writer ===

impl Writer {
    /// Runs until it is told to close, or until nobody is left who could send it a job.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let mut waiting = Vec::new();
            let mut close = None;
            match jobs.recv_timeout(TICK) {
                Ok(Job::Call(call)) => waiting.push(*call),
                Ok(Job::Close(done)) => close = Some(done),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while close.is_none() && waiting.len() < MAX_BATCH {
                match jobs.try_recv() {
                    Ok(Job::Call(call)) => waiting.push(*call),
                    Ok(Job::Close(done)) => close = Some(done),
                    Err(_) => break,
                }
            }
            self.batch(waiting);
            if let Some(done) = close {
                self.tell_minutes(i64::MAX);
                // Another replica may have the ledger next, and what we know of it grows old.
                self.metrics.budgets().configured(std::iter::empty());
                self.metrics.writable.set(0);
                drop(self);
                // If nobody waits for this, nothing is wrong: the store is closed.
                let _ = done.send(());
                return;
            }
        }
    }

    fn batch(&mut self, waiting: Vec<Waiting>) {
        if self.configured.has_changed().unwrap_or(false) {
            self.rules.replace(&self.configured.borrow_and_update(), self.clock.now());
            self.metrics.budgets().configured(self.rules.limits());
            self.looked = None;
        }
        let mut answers = Vec::with_capacity(waiting.len());
        let mut waiters = Vec::with_capacity(waiting.len());
        for Waiting { call, arrived, answer } in waiting {
            waiters.push((answer, arrived));
            answers.push((call, arrived));
        }
        match self.apply_and_commit(answers) {
            Ok(outcomes) => {
                for ((answer, arrived), outcome) in waiters.into_iter().zip(outcomes) {
                    self.count(&outcome, arrived);
                    let result = outcome.map(|(Outcome::Applied(answer) | Outcome::Repeated(answer))| answer);
                    // A caller that left sends the same call again, under the same number.
                    let _ = answer.send(result.map_err(NotApplied::from));
                }
            }
            Err(error) => {
                self.outcome(CallOutcome::Unavailable, waiters.len());
                for (answer, _) in waiters {
                    let _ = answer.send(Err(NotApplied::Store(Arc::clone(&error))));
                }
            }
        }
    }

    fn apply_and_commit(&mut self, calls: Vec<(Call, Now)>) -> Result<Vec<Result<Outcome, Past>>, Arc<StoreError>> {
        let now = self.clock.now();
        let result = match &self.books {
            Books::Failed { error, at } if now.steady < at.saturating_add(LOAD_AGAIN_AFTER) => {
                return Err(Arc::clone(error));
            }
            Books::Failed { .. } => self.load(now),
            Books::Open(_) => Ok(()),
        };
        let result = result.and_then(|()| self.commit(calls, now)).map_err(Arc::new);
        if let Err(error) = &result {
            tracing::error!(%error, "the ledger cannot write; calls are refused until it can");
            self.books = Books::Failed { error: Arc::clone(error), at: now.steady };
        }
        self.metrics.writable.set(i64::from(result.is_ok()));
        result
    }

    fn load(&mut self, now: Now) -> Result<(), StoreError> {
        self.books = Books::Open(Box::new(State::new(self.disk.load()?, self.rules.lease_ttl, now)));
        tracing::info!("the ledger can write again");
        Ok(())
    }

    /// Calls are applied before leases expire. A holder that has called in time is not silent, however long the disk
    /// took.
    fn commit(&mut self, calls: Vec<(Call, Now)>, now: Now) -> Result<Vec<Result<Outcome, Past>>, StoreError> {
        let Books::Open(state) = &mut self.books else {
            return Err(StoreError::Closed);
        };
        let count = u32::try_from(calls.len()).unwrap_or(u32::MAX);
        let outcomes = calls.into_iter().map(|(call, arrived)| apply(state, &self.rules, call, arrived)).collect();
        for (refusal, count) in state.take_refused() {
            self.metrics.refused(&refusal, count);
            if self.warned.insert(refusal.clone()) {
                warn(&refusal);
            }
        }
        state.expire(now);
        if now.steady.saturating_sub(self.pruned) >= PRUNE_EVERY {
            state.prune(now);
            self.pruned = now.steady;
        }
        let crossings = state.cross(&self.rules);
        for (key, threshold) in self.inbox.take() {
            state.told(&key, threshold);
        }
        if self.metrics.crossings().receipts() == Receipts::None {
            crossings.iter().for_each(|crossing| state.told(&crossing.key, crossing.threshold));
        }
        let changes = state.take_changes();
        if !changes.is_empty() {
            let started = Instant::now();
            self.disk.commit(&changes)?;
            self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
            self.metrics.commit_calls.observe(f64::from(count));
            changes.last_used().for_each(|(consumer, ended)| self.metrics.last_used().used(consumer, ended));
            let spent_today = self.metrics.spent_today();
            changes.spent().for_each(|(consumer, minute, tokens)| spent_today.settled(consumer, minute, tokens));
            let schemas = schemas(&self.configured);
            for (group, metered) in &changes.metered {
                self.metrics.used(group, metered, schemas.get(&group.key.backend).copied());
            }
            if self.metrics.audit().is_on() || self.metrics.events().is_on() {
                self.minutes.add(&changes);
            }
            let (holders, tokens) = state.leased();
            self.metrics.holders.set(i64::try_from(holders).unwrap_or(i64::MAX));
            self.metrics.leased.set(i64::try_from(tokens).unwrap_or(i64::MAX));
            self.looked = None;
        }
        if self.looked.is_none_or(|looked| now.steady.saturating_sub(looked) >= LOOK_EVERY) {
            self.metrics.budgets().spent(state.spent_ratios(&self.rules, now));
            self.looked = Some(now.steady);
        }
        self.tell_minutes(now.wall.as_second());
        for crossing in crossings {
            tell(&crossing, self.metrics.audit());
            self.metrics.budgets().crossed(&crossing);
            self.metrics.crossings().tell(crossing, News::New, &self.inbox);
        }
        Ok(outcomes)
    }

    /// Tells of usage in the minutes that are over at this second.
    fn tell_minutes(&mut self, second: i64) {
        let schemas = schemas(&self.configured);
        self.minutes.tell(second, self.metrics.audit(), self.metrics.events(), &schemas);
    }

    fn count(&self, outcome: &Result<Outcome, Past>, arrived: Now) {
        let taken = self.clock.now().steady.saturating_sub(arrived.steady);
        self.metrics.call_seconds.observe(taken.as_secs_f64());
        let outcome = match outcome {
            Ok(Outcome::Applied(_)) => CallOutcome::Applied,
            Ok(Outcome::Repeated(_)) => CallOutcome::Repeated,
            Err(Past { .. }) => CallOutcome::Refused,
        };
        self.outcome(outcome, 1);
    }

    fn outcome(&self, outcome: CallOutcome, count: usize) {
        self.metrics.calls.get_or_create(&CallLabels { outcome }).inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

/// What backends speak, by their display names.
fn schemas(configured: &watch::Receiver<Arc<Configured>>) -> Arc<BTreeMap<String, Schema>> {
    Arc::clone(&configured.borrow().schemas)
}

fn warn(refusal: &RefusedEntry) {
    let why = match refusal.reason {
        Reason::Foreign => "it names what its Gateway does not serve",
        Reason::TooLarge => "no answers have so many tokens, or no row so many requests",
        Reason::Nonsense => "no requests end so, or take so long",
    };
    let RefusedEntry { identity, entry, .. } = refusal;
    tracing::warn!(%identity, ?entry, "an entry of a proxy's call does not count: {why}; later ones are only in the metrics");
}

fn tell(crossing: &Crossing, audit: &Audit) {
    let Crossing { policy, limit, threshold, spent, tokens, .. } = crossing;
    audit.record(Event::BudgetThreshold {
        policy: &policy.to_string(),
        limit,
        scope: &crossing.key.scope,
        threshold: *threshold,
        spent: *spent,
        tokens: *tokens,
    });
    let scope = crossing.key.scope.join(", ");
    tracing::warn!(%policy, %limit, scope, threshold, spent, tokens, "a budget has come to {threshold} % of its tokens");
}
