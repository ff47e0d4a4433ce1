//! What kubelets and scrapers are told of a proxy.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::envoy::admin::{EnvoyAdmin, EnvoyAdminError};

/// Where the proxy is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Without a certificate there is no Envoy.
    Starting,
    Serving,
    /// It takes no new connections soon.
    Ending,
}

#[derive(Debug)]
pub struct Status {
    pub life: watch::Receiver<Life>,
    pub admin: EnvoyAdmin,
    /// Set once Envoy has had all that it needs. It goes on with that, whatever it lacks of what comes later.
    pub began: OnceLock<()>,
}

// === impl Status ===

impl Status {
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(self))
    }

    /// Why it takes no requests. Nobody must be sent to a proxy that does not know yet what to do with a request.
    async fn waits_for(&self) -> Option<String> {
        match *self.life.borrow() {
            Life::Starting => return Some("there is no certificate yet".to_owned()),
            Life::Ending => return Some("it ends".to_owned()),
            Life::Serving => {}
        }
        match self.admin.is_ready().await {
            Ok(true) => {}
            Ok(false) => return Some("Envoy has not got all of its configuration yet".to_owned()),
            Err(error) => return Some(error.to_string()),
        }
        if self.began.get().is_some() {
            return None;
        }
        let lacks = match self.lacks().await {
            Ok(lacks) => lacks.map(str::to_owned),
            Err(error) => Some(error.to_string()),
        };
        if lacks.is_none() {
            let _ = self.began.set(());
        }
        lacks
    }

    async fn lacks(&self) -> Result<Option<&'static str>, EnvoyAdminError> {
        if !self.admin.has_filters().await? {
            return Ok(Some("Envoy has not got all filters yet"));
        }
        Ok((!self.admin.has_keys().await?).then_some("the filter has no keys yet"))
    }
}

async fn ready(State(status): State<Arc<Status>>) -> (StatusCode, String) {
    match status.waits_for().await {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(status): State<Arc<Status>>) -> Response {
    match status.admin.metrics().await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}
