//! What is told to a collector of OpenTelemetry (OTLP over gRPC): usage, as log records (`docs/metrics.md`).
//!
//! ```text
//! ledger -> Events::record -> a queue with bounds -> exporter.rs -> the collector, until it has taken a batch
//! ```
//! The ledger waits for nobody. What a full queue has no room for is dropped and counted: the ledger is the truth.
//! OpenTelemetry's own exporters drop a batch that the collector does not take at once, so the way is ours, and messages and
//! client are theirs.

mod collector;
mod events;
mod exporter;
mod record;

#[cfg(test)]
mod exporter_test;

pub use collector::{Authorities, Collector, HEADERS, InvalidCollector, headers};
pub use events::Events;
pub use exporter::Exporter;
pub use record::Usage;
