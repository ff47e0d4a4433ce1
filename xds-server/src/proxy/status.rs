//! What kubelets and scrapers are told of a proxy.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::envoy::admin::{EnvoyAdmin, EnvoyAdminError};
use crate::report::Certificates;

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
    /// How long the proxy's own certificate counts.
    pub certificates: Certificates,
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
    match (status.admin.metrics().await, status.certificates.lines()) {
        (Ok(text), Ok(lines)) => {
            let text = format!("{}\n{lines}", text.trim_end());
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
        }
        (Err(error), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
        (_, Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, UnixListener};

    use super::*;
    use crate::report::Certificate;

    #[tokio::test]
    async fn a_proxy_says_beside_its_envoys_metrics_when_its_certificate_ends() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let envoy = Router::new().route("/stats/prometheus", get(async || "# TYPE envoy_x counter\nenvoy_x{} 1\n\n"));
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move { axum::serve(listener, envoy).await });
        let certificates = Certificates::default();
        let (_life, life) = watch::channel(Life::Serving);
        let admin = EnvoyAdmin::at(&socket).unwrap();
        let status = Status { life, admin, certificates: certificates.clone(), began: OnceLock::new() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, status.router()).await });
        let said = async || reqwest::get(&url).await.unwrap().error_for_status().unwrap().text().await.unwrap();
        assert!(said().await.starts_with("# TYPE envoy_x counter\nenvoy_x{} 1\n"));
        let count = |from: &str, until: &str| {
            certificates.count(Certificate::Proxy, from.parse().unwrap(), until.parse().unwrap());
        };
        // It is renewed.
        count("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        count("2026-01-01T16:00:00Z", "2026-01-02T16:00:00Z");
        let text = said().await;
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            values,
            [
                "envoy_x{} 1",
                r#"tollgate_certificate_expiry_seconds{certificate="proxy"} 1767369600"#,
                r#"tollgate_certificate_lifetime_seconds{certificate="proxy"} 86400"#,
            ]
        );
        // This text format has no end.
        assert!(!text.contains("EOF") && text.ends_with('\n'), "{text}");
    }
}
