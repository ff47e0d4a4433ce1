//! The ledger: the only truth about budgets. `core::ledger` decides, this makes it durable and serves it.
//!
//! ```text
//! grpc -> queue -> writer thread: core::ledger::apply on the state in memory -> one commit for all -> answers
//!                                                                                 |
//!                                          admin (usage, budgets) <- read transactions
//! ```

mod grpc;

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::watch;
use tollgate_core::ir::Limit;
use tollgate_proto::v1::ledger_server::LedgerServer;

/// A handle to the ledger; clones are the same ledger.
#[derive(Debug, Clone)]
pub struct Ledger {}

/// The ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {}

// === impl Ledger ===

impl Ledger {
    /// Opens (or makes) the ledger in `dir`. Follows `limits` as they change.
    ///
    /// # Errors
    /// When another process has it, or the file is not usable; the message says what to do.
    pub fn open(
        _dir: &Path,
        _limits: watch::Receiver<Arc<Vec<Limit>>>,
        _lease_ttl: Duration,
    ) -> Result<Self, OpenError> {
        Ok(Self {})
    }

    /// The gRPC service `tollgate.v1.Ledger`.
    pub fn grpc(&self) -> LedgerServer<grpc::Service> {
        LedgerServer::new(grpc::Service::new(self.clone()))
    }

    /// Answers what is queued, then closes the file. Later calls are refused as unavailable.
    pub async fn close(&self) {}
}
