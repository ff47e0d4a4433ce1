//! The admin API of our Envoy: for a clean stop, and for what a Pod tells of it.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// An Envoy whose admin API does not answer in this time is not worth waiting for.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct EnvoyAdmin {
    client: reqwest::Client,
}

#[derive(Debug, thiserror::Error)]
pub enum EnvoyAdminError {
    #[error("Envoy's admin does not answer: {0}")]
    NoAnswer(#[from] reqwest::Error),
}

// === impl EnvoyAdmin ===

impl EnvoyAdmin {
    /// # Errors
    /// When there can be no client.
    pub fn at(socket: &Path) -> Result<Self, EnvoyAdminError> {
        Ok(Self { client: reqwest::Client::builder().timeout(TIMEOUT).unix_socket(socket).build()? })
    }

    /// Makes Envoy take no new connections, and end the open ones with their next answer (`connection: close`, GOAWAY).
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn drain(&self) -> Result<(), EnvoyAdminError> {
        for path in ["/drain_listeners?graceful", "/drain_listeners"] {
            self.client.post(url(path)).send().await?.error_for_status()?;
        }
        Ok(())
    }

    /// Makes Envoy open the files that it logs to again, by their names.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn reopen_logs(&self) -> Result<(), EnvoyAdminError> {
        self.client.post(url("/reopen_logs")).send().await?.error_for_status()?;
        Ok(())
    }

    /// Whether Envoy has got all of its configuration and serves.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn is_ready(&self) -> Result<bool, EnvoyAdminError> {
        Ok(self.client.get(url("/ready")).send().await?.status().is_success())
    }

    /// Whether each filter that Envoy has to discover is there. It serves without one that it refused, and answers 500 then;
    /// at a start it refuses those whose code it has not fetched yet.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn has_filters(&self) -> Result<bool, EnvoyAdminError> {
        let taken = self.counts(r"^extension_config_discovery\..*\.update_success$").await?;
        Ok(taken.into_iter().all(|(_, count)| count > 0))
    }

    /// Whether the filter, if there is one, has been told of keys.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn has_keys(&self) -> Result<bool, EnvoyAdminError> {
        let taken = self.counts("wasmcustom.tollgate.keys_taken").await?;
        Ok(taken.into_iter().all(|(_, count)| count > 0))
    }

    /// Whether the filter, if there is one, has ever called the ledger.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn has_called_the_ledger(&self) -> Result<bool, EnvoyAdminError> {
        let calls = self.counts(r"tollgate\.ledger_calls$").await?;
        Ok(calls.into_iter().any(|(_, count)| count > 0))
    }

    /// All of Envoy's metrics, in the text format of Prometheus.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn metrics(&self) -> Result<String, EnvoyAdminError> {
        self.text("/stats/prometheus").await
    }

    async fn text(&self, path: &str) -> Result<String, EnvoyAdminError> {
        Ok(self.client.get(url(path)).send().await?.error_for_status()?.text().await?)
    }

    /// Waits until no request of a client is in flight. Returns false if the time was over first.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn rest(&self, at_most: Duration) -> Result<bool, EnvoyAdminError> {
        let until = Instant::now() + at_most;
        while self.requests_in_flight().await? > 0 {
            if Instant::now() > until {
                return Ok(false);
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(true)
    }

    async fn requests_in_flight(&self) -> Result<u64, EnvoyAdminError> {
        let active = self.counts(r"http\..*downstream_rq_active$").await?;
        // The request to the admin API is one of them itself.
        Ok(active.iter().filter(|(name, _)| !name.starts_with("http.admin.")).map(|(_, count)| count).sum())
    }

    /// The counters and gauges whose names match.
    async fn counts(&self, names: &str) -> Result<Vec<(String, u64)>, EnvoyAdminError> {
        let stats = self.client.get(url("/stats")).query(&[("filter", names)]).send().await?;
        let text = stats.error_for_status()?.text().await?;
        let count = |line: &str| {
            let (name, count) = line.rsplit_once(": ")?;
            Some((name.to_owned(), count.trim().parse().ok()?))
        };
        Ok(text.lines().filter_map(count).collect())
    }
}

/// The host in the URL is no address, because all requests go through the socket.
fn url(path: &str) -> String {
    format!("http://envoy{path}")
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use tokio::net::UnixListener;

    use super::*;

    /// The admin API of an Envoy that says this, whatever it is asked.
    fn saying(stats: &'static str) -> (tempfile::TempDir, EnvoyAdmin) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let router = Router::new().fallback(async move || stats);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let admin = EnvoyAdmin::at(&socket).unwrap();
        (dir, admin)
    }

    #[tokio::test]
    async fn counters_say_what_the_filter_has_done() {
        for (stats, has_called, has_all) in [
            ("", false, true),
            ("tollgate.a: 0\ntollgate.b: 0\n", false, false),
            ("tollgate.a: 0\ntollgate.b: 2\n", true, false),
            ("tollgate.a: 1\ntollgate.b: 2\nno number: x\n", true, true),
        ] {
            let (_dir, admin) = saying(stats);
            assert_eq!(admin.has_called_the_ledger().await.unwrap(), has_called, "{stats}");
            assert_eq!(admin.has_keys().await.unwrap(), has_all, "{stats}");
            assert_eq!(admin.has_filters().await.unwrap(), has_all, "{stats}");
        }
    }

    #[tokio::test]
    async fn only_requests_of_clients_are_waited_for() {
        let (_dir, idle) = saying("http.admin.downstream_rq_active: 1\nhttp.llm.downstream_rq_active: 0\n");
        assert!(idle.rest(Duration::ZERO).await.unwrap());
        let (_dir, busy) = saying("http.llm.downstream_rq_active: 1\n");
        assert!(!busy.rest(Duration::from_millis(150)).await.unwrap());
    }
}
