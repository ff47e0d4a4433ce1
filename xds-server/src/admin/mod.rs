//! The admin API: usage, budgets and status for tools and people, probes, metrics.

mod metrics;
mod status;

pub use metrics::Metrics;
pub use status::{Gateway, Listener, Proxy, Refused, Status};

use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;

use crate::ledger::Ledger;

/// Everything the admin port answers.
pub fn router(_ledger: Ledger, _status: watch::Receiver<Arc<Status>>, _metrics: Metrics) -> Router {
    Router::new()
}
