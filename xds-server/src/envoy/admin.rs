//! The admin API of our Envoy, for the two things that a clean stop needs.

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
        let path = "/stats?filter=http\\..*downstream_rq_active$";
        let text = self.client.get(url(path)).send().await?.error_for_status()?.text().await?;
        // The request to the admin API is one of them itself.
        let lines = text.lines().filter(|line| !line.starts_with("http.admin."));
        Ok(lines.filter_map(|line| line.rsplit_once(": ")?.1.trim().parse::<u64>().ok()).sum())
    }
}

/// The host in the URL is no address, because all requests go through the socket.
fn url(path: &str) -> String {
    format!("http://envoy{path}")
}
