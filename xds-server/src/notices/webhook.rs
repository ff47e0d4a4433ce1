//! Posts crossings to a URL, one after the other, until each is taken.
//!
//! One that the receiver cannot take now is tried again until it can, with pauses that grow. One that it will never take
//! (400, 413, 415, 422) is given up, and so is one whose window has ended an hour ago. Meanwhile others wait in a queue with
//! bounds.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::{counter::Counter, family::Family};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, StatusCode, Url};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::sleep;
use tollgate_core::ledger::Crossing;

use super::cloud_event;
use crate::causes::{self, SaidOnce};
use crate::ledger::Notice;
use crate::report::Metrics;

/// A receiver that does not answer in this time has not taken it.
const ANSWERS: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After the end of its window nobody can do anything about it. In seconds.
const STALE: i64 = 3600;
/// The most bytes of a token.
const MAX_TOKEN: usize = 16 << 10;

/// Where crossings are posted to.
#[derive(Debug, Clone)]
pub struct Place {
    url: Url,
    /// The file of a bearer token. It is read for each request, because tokens change.
    token: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum InvalidWebhook {
    #[error("--webhook is not a URL: {0}")]
    NoUrl(String),
    #[error("--webhook is for http and https")]
    Scheme,
    #[error(
        "--webhook has a user or a password in it, which everybody sees who lists processes (--webhook-token-file names a file with a token)"
    )]
    Credential,
    #[error("the client of the webhook cannot be made: {0}")]
    Client(#[from] reqwest::Error),
}

pub struct Webhook {
    place: Place,
    client: Client,
    deliveries: Family<Labels, Counter>,
    first_pause: Duration,
    /// What went wrong last. The log says it once.
    said: SaidOnce,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: Delivery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Delivery {
    Delivered,
    /// It is tried again.
    Failed,
    GivenUp,
    /// The queue was full.
    Missed,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    NoAnswer(String),
    #[error("it answers {0}")]
    Refuses(StatusCode),
    #[error("the file of its token cannot be read: {0}")]
    NoToken(std::io::Error),
    #[error("the file of its token has no token")]
    Token,
}

// === impl Place ===

impl Place {
    /// # Errors
    /// When that is no URL to post to, or says a secret.
    pub fn new(url: &str, token: Option<PathBuf>) -> Result<Self, InvalidWebhook> {
        let url = Url::parse(url).map_err(|error| InvalidWebhook::NoUrl(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidWebhook::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidWebhook::Credential);
        }
        Ok(Self { url, token })
    }
}

// === impl Webhook ===

impl Webhook {
    /// # Errors
    /// When there can be no client.
    pub fn new(place: Place, metrics: &Metrics) -> Result<Self, InvalidWebhook> {
        // A redirect would take the token to where nobody meant it to go.
        let client = Client::builder().timeout(ANSWERS).redirect(reqwest::redirect::Policy::none()).build()?;
        let deliveries = Family::default();
        for result in [Delivery::Delivered, Delivery::Failed, Delivery::GivenUp, Delivery::Missed] {
            drop(deliveries.get_or_create(&Labels { result }));
        }
        let counted = deliveries.clone();
        let help = "Thresholds of budgets told to the webhook, by what became of it";
        metrics.add(move |registry, _| registry.register("webhook_deliveries", help, counted.clone()));
        Ok(Self { place, client, deliveries, first_pause: FIRST_PAUSE, said: SaidOnce::default() })
    }

    #[cfg(test)]
    pub(super) fn trying_again_after(self, first_pause: Duration) -> Self {
        Self { first_pause, ..self }
    }

    /// Posts what is told, for as long as there is somebody who tells.
    pub async fn run(mut self, mut notices: broadcast::Receiver<Notice>) {
        loop {
            match notices.recv().await {
                Ok(notice) => self.deliver(&notice).await,
                Err(RecvError::Lagged(missed)) => {
                    self.count(Delivery::Missed, missed);
                    tracing::warn!(
                        missed,
                        "the webhook is too slow; what it misses is told when the ledger is opened next"
                    );
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn deliver(&mut self, notice: &Notice) {
        let mut pause = self.first_pause;
        while notice.is_wanted() {
            let now = Timestamp::now();
            if is_stale(&notice.crossing, now) {
                return self.count(Delivery::GivenUp, 1);
            }
            match self.post(cloud_event::of(&notice.crossing, now).to_string()).await {
                Ok(()) => {
                    self.count(Delivery::Delivered, 1);
                    self.said.forget();
                    return notice.give_receipt();
                }
                Err(trouble) if trouble.is_for_ever() => {
                    self.count(Delivery::GivenUp, 1);
                    self.tell(&format!("the webhook does not take it: {trouble}; it is not sent again"));
                    return notice.give_receipt();
                }
                Err(trouble) => {
                    self.count(Delivery::Failed, 1);
                    self.tell(&format!("the webhook does not take it: {trouble}; it is tried again"));
                }
            }
            // Several control planes of one fleet that was cut off do not come back at the same moment.
            sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn post(&self, body: String) -> Result<(), Trouble> {
        let mut request =
            self.client.post(self.place.url.clone()).header(CONTENT_TYPE, cloud_event::MEDIA_TYPE).body(body);
        if let Some(path) = &self.place.token {
            let token = tokio::fs::read_to_string(path).await.map_err(Trouble::NoToken)?;
            let token = token.trim();
            if token.is_empty() || token.len() > MAX_TOKEN {
                return Err(Trouble::Token);
            }
            let mut value: reqwest::header::HeaderValue =
                format!("Bearer {token}").parse().map_err(|_| Trouble::Token)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        // A URL may have a secret in its path or query.
        let answer = request.send().await.map_err(|error| Trouble::NoAnswer(causes::of(&error.without_url())))?;
        if answer.status().is_success() { Ok(()) } else { Err(Trouble::Refuses(answer.status())) }
    }

    fn count(&self, result: Delivery, count: u64) {
        self.deliveries.get_or_create(&Labels { result }).inc_by(count);
    }

    /// Says it once.
    fn tell(&mut self, text: &str) {
        if self.said.is_new(text) {
            tracing::warn!("{text}");
        }
    }
}

// === impl Trouble ===

impl Trouble {
    /// Whether the same request will not be taken later either.
    fn is_for_ever(&self) -> bool {
        matches!(self, Self::Refuses(status) if matches!(status.as_u16(), 400 | 413 | 415 | 422))
    }
}

fn is_stale(crossing: &Crossing, now: Timestamp) -> bool {
    crossing.window_end != 0 && crossing.window_end.saturating_add(STALE) < now.as_second()
}
