//! The admin port: usage, budgets and status for tools and people, probes, metrics. It answers and changes nothing.
//!
//! ```text
//! web.rs (connections in bounds) -> entrance (a token; without one, names that cannot be ours are refused)
//!                                -> api | page | probes | metrics
//! ```
//! `serve` has separate ports for metrics (scrapers) and for probes (kubelets). Nothing else is on them, and they
//! answer to any name.

mod api;
mod entrance;
mod guard;
mod page;
mod paging;
mod series;
mod since;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{FromRef, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware, routing::get};
use tokio::sync::watch;

pub use self::entrance::{Entrance, TokenFile};
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
#[derive(Clone)]
pub struct Routers {
    admin: Admin,
    /// Whether the separate port for metrics names consumers. The admin port always does.
    for_scrapers: Consumers,
}

// === impl Routers ===

impl Routers {
    pub fn new(
        ledger: Arc<dyn Ledger>,
        status: watch::Receiver<Arc<Status>>,
        objects: Arc<dyn Objects>,
        metrics: Metrics,
        for_scrapers: Consumers,
    ) -> Self {
        Self { admin: Admin { ledger, status, objects, metrics }, for_scrapers }
    }

    /// The admin port: everything.
    pub fn all(&self, entrance: Entrance) -> Router {
        let for_people = match &entrance {
            Entrance::Open => Router::new().route("/", get(page::for_anybody)),
            Entrance::Token(guarded) => entrance::router(Arc::clone(guarded)).route("/", get(page::for_session)),
        };
        let for_tools = Router::new()
            .route("/api/usage", get(api::usage))
            .route("/api/usage/series", get(series::series))
            .route("/api/budgets", get(api::budgets))
            .route("/api/status", get(api::status))
            .route("/api/ledger/backup", get(api::backup));
        let all = for_people.merge(for_tools).merge(metrics(Consumers::Named)).merge(for_probes());
        let all = all.fallback(async || api::Problem::not_found());
        // Unknown paths are guarded as well, so that whoever is not let in learns nothing of them.
        self.finish(all.layer(middleware::from_fn_with_state(entrance, entrance::admit)))
    }

    pub fn metrics(&self) -> Router {
        self.finish(metrics(self.for_scrapers).fallback(async || api::Problem::not_found()))
    }

    fn finish(&self, router: Router<Admin>) -> Router {
        finish(router, self.admin.clone())
    }
}

// === impl Admin ===

impl FromRef<Admin> for watch::Receiver<Arc<Status>> {
    fn from_ref(admin: &Admin) -> Self {
        admin.status.clone()
    }
}

/// The port for probes alone. It needs nothing but the status, so it answers before there is anything to serve.
pub fn probes(status: watch::Receiver<Arc<Status>>) -> Router {
    finish(for_probes().fallback(async || api::Problem::not_found()), status)
}

fn finish<S: Clone + Send + Sync + 'static>(router: Router<S>, state: S) -> Router {
    router.layer(middleware::map_response(guard::harden)).with_state(state)
}

fn metrics(consumers: Consumers) -> Router<Admin> {
    let answer = async move |State(admin): State<Admin>| serve_metrics(&admin, consumers);
    Router::new().route("/metrics", get(answer))
}

fn for_probes<S: Clone + Send + Sync + 'static>() -> Router<S>
where
    watch::Receiver<Arc<Status>>: FromRef<S>,
{
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(readyz))
}

/// Answers 200, or 503 with one reason a line.
async fn readyz(State(status): State<watch::Receiver<Arc<Status>>>) -> Response {
    let status = status.borrow().clone();
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
