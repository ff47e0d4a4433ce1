//! The ledger of one control plane. Its state is in memory, and one thread makes what changes durable in a file.
//!
//! ```text
//! sync -> queue -> writer thread: core::ledger::apply on the state in memory -> one commit for all -> answers
//!                                                                                 |
//!                                      usage, series, budgets <- read transactions
//! ```
//! Nobody else writes to the file. So the state in memory is what a call touches, a commit cannot find that anything
//! has changed, and the time is this process's.

pub(super) mod clock;
pub(super) mod copies;
pub(super) mod disk;
pub(super) mod file;
mod rows;
pub(super) mod tables;
mod writer;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Semaphore, oneshot, watch};
use tollgate_core::ledger::usage::second_of;
use tollgate_core::ledger::{Call, Configured, Rules, State};
use tollgate_proto::v1::{SyncRequest, SyncResponse};

use self::clock::{Clock, SystemClock};
use self::disk::Disk;
use self::file::{File, Redb};
use self::writer::{Books, Job, NotApplied, Waiting, Writer};
use super::metrics::{CallLabels, CallOutcome};
use super::minutes::Minutes;
use super::query::{self, BudgetRow, Listed, Page, UsageQuery, UsageRow};
use super::series::{self, SeriesQuery, SeriesRow};
use super::{Ledger, Metrics, News, StoreError, SyncError};

/// The most calls that may wait. Every worker of every proxy has at most one under way.
const QUEUE: usize = 4096;

/// A handle to the ledger. Clones are the same ledger.
#[derive(Debug, Clone)]
pub struct Embedded {
    jobs: SyncSender<Job>,
    file: Arc<File>,
    configured: watch::Receiver<Arc<Configured>>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// Whose turn it is to make a plot.
    plots: Arc<Semaphore>,
}

// === impl Embedded ===

impl Embedded {
    /// Opens the ledger in `dir`, or makes it. It follows the configuration as that changes.
    ///
    /// # Errors
    /// When another process has it, or the file is not usable; the message says what to do.
    pub fn open(
        dir: &Path,
        configured: watch::Receiver<Arc<Configured>>,
        lease_ttl: Duration,
        metrics: Metrics,
    ) -> Result<Self, StoreError> {
        let disk = Redb::new(dir)?;
        Self::start(Box::new(disk), Arc::new(SystemClock::new()), configured, lease_ttl, metrics)
    }

    pub(super) fn start(
        mut disk: Box<dyn Disk>,
        clock: Arc<dyn Clock>,
        mut configured: watch::Receiver<Arc<Configured>>,
        lease_ttl: Duration,
        metrics: Metrics,
    ) -> Result<Self, StoreError> {
        let now = clock.now();
        let state = State::new(disk.load()?, lease_ttl, now);
        let (jobs, queue) = sync_channel(QUEUE);
        let file = disk.file();
        for (consumer, minute) in file.last_used()? {
            metrics.last_used().used(&consumer, second_of(minute));
        }
        let midnight = midnight_before(now.wall);
        metrics.spent_today().begin();
        for (consumer, tokens) in file.spent_since(midnight)? {
            metrics.spent_today().settled(&consumer, midnight, tokens);
        }
        let rules = Rules::new(&configured.borrow_and_update(), lease_ttl);
        let inbox = Arc::default();
        for crossing in state.untold(&rules, now) {
            metrics.crossings().tell(crossing, News::Again, &inbox);
        }
        metrics.budgets().configured(rules.limits());
        let handle = Self {
            jobs,
            file,
            configured: configured.clone(),
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
            plots: Arc::new(Semaphore::new(1)),
        };
        let writer = Writer {
            disk,
            books: Books::Open(Box::new(state)),
            configured,
            rules,
            clock,
            metrics,
            pruned: now.steady,
            looked: None,
            inbox,
            minutes: Minutes::default(),
            warned: BTreeSet::new(),
        };
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|source| StoreError::Unusable { path: "the ledger's thread".into(), source })?;
        Ok(handle)
    }

    /// Answers what is queued, then closes the file. Later calls are refused as unavailable.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        let jobs = self.jobs.clone();
        // If the queue is full, this waits until the writer has made room.
        let sent = tokio::task::spawn_blocking(move || jobs.send(Job::Close(done))).await;
        if matches!(sent, Ok(Ok(()))) {
            // An error means that the thread has ended, and then the file is closed.
            let _ = closed.await;
        }
    }
}

#[tonic::async_trait]
impl Ledger for Embedded {
    async fn sync(&self, identity: &str, request: SyncRequest) -> Result<SyncResponse, SyncError> {
        let call = Call::new(identity.to_owned(), request).inspect_err(|_| {
            self.metrics.calls.get_or_create(&CallLabels { outcome: CallOutcome::Refused }).inc();
        })?;
        let (answer, answered) = oneshot::channel();
        let job = Job::Call(Box::new(Waiting { call, arrived: self.clock.now(), answer }));
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => SyncError::Busy,
            TrySendError::Disconnected(_) => SyncError::Closed,
        })?;
        match answered.await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(NotApplied::Past(past))) => Err(SyncError::Past(past)),
            Ok(Err(NotApplied::Store(error))) => Err(SyncError::Store(error)),
            Err(_) => Err(SyncError::Closed),
        }
    }

    async fn usage(&self, query: UsageQuery) -> Result<Listed<UsageRow>, StoreError> {
        let (file, now) = (Arc::clone(&self.file), self.clock.now().wall);
        blocking(move || query::usage(query, now, |asked| file.usage(asked))).await
    }

    async fn backup(&self) -> Result<std::fs::File, StoreError> {
        let file = Arc::clone(&self.file);
        blocking(move || file.backup()).await
    }

    async fn series(&self, query: SeriesQuery) -> Result<Vec<SeriesRow>, StoreError> {
        let (file, now) = (Arc::clone(&self.file), self.clock.now().wall);
        // Of a long time it reads very many rows, so one plot is made after the other.
        let turn = Arc::clone(&self.plots).acquire_owned().await.map_err(|_closed| StoreError::Closed)?;
        blocking(move || {
            let found = series::series(query, now, |asked, take| file.minutes(asked, take));
            drop(turn);
            found
        })
        .await
    }

    async fn budgets(&self, page: Page) -> Result<Listed<BudgetRow>, StoreError> {
        let (file, now) = (Arc::clone(&self.file), self.clock.now().wall);
        let configured = self.configured.borrow().clone();
        blocking(move || query::budgets(&configured.limits, page, now, |asked| file.buckets(asked))).await
    }
}

/// Reads on a thread of its own, because a large table would hold up a thread that serves others.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed))
}

/// In minutes since the epoch. Days are those of UTC.
fn midnight_before(time: Timestamp) -> u64 {
    u64::try_from(time.as_second().div_euclid(86_400)).unwrap_or_default().saturating_mul(1440)
}
