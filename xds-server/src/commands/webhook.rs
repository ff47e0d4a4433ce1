//! Where it is told that a budget has come to a threshold.

use std::path::PathBuf;

use crate::notices::{InvalidWebhook, Place};

#[derive(Debug, clap::Args)]
pub struct WebhookArgs {
    /// URL that is told when a budget has come to a threshold (warnAt of a limit): a POST with a CloudEvent as JSON, until it
    /// is taken. Of several replicas only the leader tells
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// File with a bearer token for it. It is read for each request
    #[arg(long, requires = "webhook", value_name = "PATH")]
    webhook_token_file: Option<PathBuf>,
}

// === impl WebhookArgs ===

impl WebhookArgs {
    /// # Errors
    /// When that is no URL to post to.
    pub fn place(&self) -> Result<Option<Place>, InvalidWebhook> {
        self.webhook.as_deref().map(|url| Place::new(url, self.webhook_token_file.clone())).transpose()
    }
}
