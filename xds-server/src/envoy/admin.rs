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
