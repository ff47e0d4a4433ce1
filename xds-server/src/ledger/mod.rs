//! The ledger: the only truth about budgets. `core::ledger` decides. This module makes the decisions durable and serves
//! them.
//!
//! ```text
//! grpc  ────────┐
//!               ├─▶ Ledger::{sync, usage, series, budgets}   the seam: all that others know of a ledger
//! admin ────────┘      │
//!                      ├─ embedded: one process, one file (redb)
//!                      └─ replicas::Remote: the embedded one of another replica (`replicas/`)
//! ```
//! A store that several control planes share is to be the next one. It has no decisions of its own either: see
//! `core::ledger::Batch` and `docs/adr/0001-ledger.md`.

mod budgets;
mod crossings;
mod embedded;
mod error;
mod gen_ai;
mod grpc;
mod histograms;
mod metrics;
mod minutes;
pub mod query;
pub mod series;

#[cfg(test)]
mod durable_test;
#[cfg(test)]
mod shared_test;
#[cfg(test)]
pub(crate) mod tests;

pub use crossings::{Crossings, News, Notice, Receipts};
pub use embedded::Embedded;
pub use embedded::copies::{Restored, restore};
pub use error::{StoreError, SyncError};
pub use grpc::Service;
pub use metrics::Metrics;

use std::fmt::Debug;
use std::sync::Arc;

use tollgate_proto::v1::{MAX_CALL_BYTES, SyncRequest, SyncResponse, ledger_server::LedgerServer};

use self::query::{BudgetRow, Listed, Page, UsageQuery, UsageRow};
use self::series::{SeriesQuery, SeriesRow};

/// A ledger, wherever it keeps its books.
#[tonic::async_trait]
pub trait Ledger: Debug + Send + Sync {
    /// Applies one call of a worker of the proxy with this identity. When this returns `Ok`, all of it is durable.
    ///
    /// # Errors
    /// When the call did not count, or when nobody knows whether it did. Sending the same call again is always safe.
    async fn sync(&self, identity: &str, request: SyncRequest) -> Result<SyncResponse, SyncError>;

    /// What was used, sorted by consumer, route, model, backend.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn usage(&self, query: UsageQuery) -> Result<Listed<UsageRow>, StoreError>;

    /// What was used by hour or by day: a series for each of the names that used most, and then one for all others.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn series(&self, query: SeriesQuery) -> Result<Vec<SeriesRow>, StoreError>;

    /// The current windows of the limits that are configured, sorted by limit and scope.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn budgets(&self, page: Page) -> Result<Listed<BudgetRow>, StoreError>;

    /// A copy of the books as they are at this moment.
    ///
    /// # Errors
    /// When the books are not here, or there is no room for a copy beside them.
    async fn backup(&self) -> Result<std::fs::File, StoreError>;
}

/// The gRPC service `tollgate.v1.Ledger`. It finds the caller in the extensions of the request, as an
/// [`Identity`](crate::identity::Identity).
pub fn service(ledger: Arc<dyn Ledger>) -> LedgerServer<Service> {
    LedgerServer::new(Service::new(ledger)).max_decoding_message_size(MAX_CALL_BYTES)
}
