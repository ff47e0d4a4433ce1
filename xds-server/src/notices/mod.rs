//! Who is told that a budget has come to a threshold, besides the log and the metrics: a webhook, and those who look at the
//! TokenPolicy in a cluster.
//!
//! ```text
//! ledger::Crossings -> webhook.rs (POST, until it is taken) -> receipt -> the ledger
//!                   -> events.rs  (an Event about the TokenPolicy)
//! ```
//! Crossings come from the ledger that is open here. So of several replicas only the leader tells. Nobody here holds up the
//! ledger: who is too slow misses the oldest crossings, and those without a receipt are told again when the ledger is opened
//! next.

mod cloud_event;
mod events;
mod webhook;
#[cfg(test)]
mod webhook_test;

pub use events::tell as tell_events;
pub use webhook::{InvalidWebhook, Place, Webhook};
