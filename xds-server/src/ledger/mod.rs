//! The ledger: the only truth about budgets. `core::ledger` decides. This module makes the decisions durable and serves
//! them.
//!
//! ```text
//! grpc -> queue -> writer thread: core::ledger::apply on the state in memory -> one commit for all -> answers
//!                                                                                 |
//!                                        admin (query: usage, budgets) <- read transactions
//! ```

mod clock;
mod embedded;
mod grpc;
mod metrics;
pub mod query;
mod rows;
mod store;
mod tables;
mod writer;

#[cfg(test)]
mod durable_test;
#[cfg(test)]
pub(crate) mod tests;

pub use metrics::Consumers;
pub use store::StoreError as OpenError;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::{oneshot, watch};
use tollgate_core::ledger::{Call, Configured, InvalidCall, Rules, State};
use tollgate_proto::v1::{MAX_CALL_BYTES, SyncRequest, SyncResponse, ledger_server::LedgerServer};

use self::clock::{Clock, SystemClock};
use self::metrics::{CallLabels, CallOutcome, Metrics};
use self::store::{Reader, Store, StoreError};
use self::writer::{Books, Job, NotApplied, Waiting, Writer};
use crate::serve::identity::Identity;

/// The most calls that may wait. Every worker of every proxy has at most one under way.
const QUEUE: usize = 4096;

/// A handle to the ledger. Clones are the same ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    jobs: SyncSender<Job>,
    reader: Arc<dyn Reader>,
    configured: watch::Receiver<Arc<Configured>>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error(transparent)]
    Invalid(#[from] InvalidCall),
    #[error(transparent)]
    Past(tollgate_core::ledger::Past),
    #[error(transparent)]
    Store(Arc<StoreError>),
    #[error("{QUEUE} calls are waiting for the ledger's disk; send the same call again later")]
    Busy,
    #[error("the ledger is closed; send the same call again when it is back")]
    Closed,
}

// === impl Ledger ===

impl Ledger {
    /// Opens the ledger in `dir`, or makes it. It follows the configuration as that changes.
    ///
    /// # Errors
    /// When another process has it, or the file is not usable; the message says what to do.
    pub fn open(
        dir: &Path,
        configured: watch::Receiver<Arc<Configured>>,
        lease_ttl: Duration,
    ) -> Result<Self, OpenError> {
        let store = embedded::Embedded::new(dir)?;
        Self::start(Box::new(store), Arc::new(SystemClock::new()), configured, lease_ttl)
    }

    fn start(
        mut store: Box<dyn Store>,
        clock: Arc<dyn Clock>,
        mut configured: watch::Receiver<Arc<Configured>>,
        lease_ttl: Duration,
    ) -> Result<Self, OpenError> {
        let now = clock.now();
        let state = State::new(store.load()?, lease_ttl, now);
        let (jobs, queue) = sync_channel(QUEUE);
        let (reader, metrics) = (store.reader(), Metrics::new());
        let rules = Rules::new(&configured.borrow_and_update(), lease_ttl);
        let handle =
            Self { jobs, reader, configured: configured.clone(), clock: Arc::clone(&clock), metrics: metrics.clone() };
        let writer = Writer {
            store,
            books: Books::Open(Box::new(state)),
            configured,
            rules,
            clock,
            metrics,
            pruned: now.steady,
            warned: BTreeSet::new(),
        };
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|source| StoreError::Unusable { path: "the ledger's thread".into(), source })?;
        Ok(handle)
    }

    /// The gRPC service `tollgate.v1.Ledger`. It finds the caller in the extensions of the request, as an [`Identity`].
    pub fn grpc(&self) -> LedgerServer<grpc::Service> {
        LedgerServer::new(grpc::Service::new(self.clone())).max_decoding_message_size(MAX_CALL_BYTES)
    }

    /// Applies one call of a worker of the proxy with this identity. When this returns `Ok`, all of it is durable.
    ///
    /// # Errors
    /// When the call did not count, or when nobody knows whether it did. Sending the same call again is always safe.
    pub async fn sync(&self, identity: &Identity, request: SyncRequest) -> Result<SyncResponse, SyncError> {
        let call = Call::new(identity.to_string(), request).inspect_err(|_| self.refused())?;
        let (answer, answered) = oneshot::channel();
        let job = Job::Call(Waiting { call, arrived: self.clock.now(), answer });
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

    /// Adds the ledger's metrics to those that are served.
    pub fn register_metrics(&self, registry: &mut Registry, consumers: Consumers) {
        self.metrics.register(registry, consumers);
    }

    fn refused(&self) {
        self.metrics.calls.get_or_create(&CallLabels { outcome: CallOutcome::Refused }).inc();
    }
}
