//! The admin port: usage, budgets and status for tools and people, probes, metrics. It answers and changes nothing.
//!
//! ```text
//! web.rs (connections in bounds) -> guard (names that cannot be ours are refused) -> api | page | probes | metrics
//! ```
//! `serve` has separate ports for metrics (scrapers) and for probes (kubelets). Nothing else is on them, and they
//! answer to any name.

mod api;
mod guard;
mod page;
mod paging;
mod series;
mod since;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware, routing::get};
use tokio::sync::watch;

use crate::ledger::Ledger;
use crate::report::{Consumers, Metrics, Objects, Status};

/// What the handlers need for their answers.
#[derive(Clone)]
struct Admin {
    ledger: Arc<dyn Ledger>,
    status: watch::Receiver<Arc<Status>>,
    objects: Arc<dyn Objects>,
    metrics: Metrics,
}

/// What each kind of port answers.
#[derive(Debug, Clone)]
pub struct Routers {
    /// The admin port: everything.
    pub all: Router,
    pub metrics: Router,
    pub probes: Router,
}

/// `for_scrapers` says whether the separate port for metrics names consumers. The admin port always does.
pub fn routers(
    ledger: Arc<dyn Ledger>,
    status: watch::Receiver<Arc<Status>>,
    objects: Arc<dyn Objects>,
    metrics: Metrics,
    for_scrapers: Consumers,
) -> Routers {
    let admin = Admin { ledger, status, objects, metrics };
    let for_people = Router::new()
        .route("/", get(page::page))
        .route("/api/usage", get(api::usage))
        .route("/api/usage/series", get(series::series))
        .route("/api/budgets", get(api::budgets))
        .route("/api/status", get(api::status))
        .route("/api/ledger/backup", get(api::backup));
    let metrics = |consumers| {
        let answer = async move |State(admin): State<Admin>| serve_metrics(&admin, consumers);
        Router::new().route("/metrics", get(answer))
    };
    let for_scrapers = metrics(for_scrapers);
    let for_probes = Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(readyz));
    let everything = for_people.merge(metrics(Consumers::Named)).merge(for_probes.clone());
    let [everything, for_scrapers, for_probes] =
        [everything, for_scrapers, for_probes].map(|router| router.fallback(async || api::Problem::not_found()));
    let finish =
        |router: Router<Admin>| router.layer(middleware::map_response(guard::harden)).with_state(admin.clone());
    Routers {
        // Unknown paths are guarded as well, so that every answer to a foreign name is the same.
        all: finish(everything.layer(middleware::from_fn(guard::guard))),
        metrics: finish(for_scrapers),
        probes: finish(for_probes),
    }
}

/// Answers 200, or 503 with one reason a line.
async fn readyz(State(admin): State<Admin>) -> Response {
    let status = admin.status.borrow().clone();
    if status.ready {
        return "ready\n".into_response();
    }
    let reasons = if status.waiting_for.is_empty() { "not ready".to_owned() } else { status.waiting_for.join("\n") };
    (StatusCode::SERVICE_UNAVAILABLE, reasons + "\n").into_response()
}

fn serve_metrics(admin: &Admin, consumers: Consumers) -> Response {
    let status = admin.status.borrow().clone();
    match admin.metrics.text(&status, consumers) {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
