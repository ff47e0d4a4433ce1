//! The admin port: usage, budgets and status for tools and people, probes, metrics. Answers, changes nothing.
//!
//! ```text
//! guard (names that cannot be ours are refused) -> api | page | probes | metrics
//! ```

mod api;
mod guard;
mod metrics;
mod page;
#[cfg(test)]
mod preview_test;
mod since;
mod status;
#[cfg(test)]
mod tests;

pub use metrics::{Certificate, Metrics};
pub use status::{Gateway, Listener, Proxy, Refused, Status};

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware, routing::get};
use tokio::sync::watch;

use crate::ledger::Ledger;

/// What the handlers answer from.
#[derive(Clone)]
struct Admin {
    ledger: Ledger,
    status: watch::Receiver<Arc<Status>>,
    metrics: Metrics,
}

/// Everything the admin port answers.
pub fn router(ledger: Ledger, status: watch::Receiver<Arc<Status>>, metrics: Metrics) -> Router {
    metrics.add(&ledger);
    let for_people = Router::new()
        .route("/", get(page::page))
        .route("/api/usage", get(api::usage))
        .route("/api/budgets", get(api::budgets))
        .route("/api/status", get(api::status))
        .layer(middleware::from_fn(guard::guard));
    for_people
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(serve_metrics))
        .fallback(async || api::Problem::not_found())
        .layer(middleware::map_response(guard::harden))
        .with_state(Admin { ledger, status, metrics })
}

/// 200, or 503 with one reason a line.
async fn readyz(State(admin): State<Admin>) -> Response {
    let status = admin.status.borrow().clone();
    if status.ready {
        return "ready\n".into_response();
    }
    let reasons = if status.waiting_for.is_empty() { "not ready".to_owned() } else { status.waiting_for.join("\n") };
    (StatusCode::SERVICE_UNAVAILABLE, reasons + "\n").into_response()
}

async fn serve_metrics(State(admin): State<Admin>) -> Response {
    let status = admin.status.borrow().clone();
    match admin.metrics.text(&status) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
