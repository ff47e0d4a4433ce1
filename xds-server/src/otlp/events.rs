//! Where stages record what the collector is to be told. They wait for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::{counter::Counter, family::Family};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::record::Usage;

/// So many records may wait for the collector.
pub const QUEUE: usize = 8192;

/// Clones record into the same queue. The default one records nothing.
#[derive(Debug, Clone, Default)]
pub struct Events {
    queue: Option<Sender<(u64, Usage)>>,
    /// How many were recorded, dropped ones included: a gap in the numbers is what is missing.
    recorded: Arc<AtomicU64>,
    records: Family<Labels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    Accepted,
    /// The collector could not take it, so it is sent again.
    Failed,
    /// The collector does not want it.
    Rejected,
    /// The queue was full.
    Dropped,
}

// === impl Events ===

impl Events {
    pub(super) fn new() -> (Self, Receiver<(u64, Usage)>) {
        let (queue, receiver) = channel(QUEUE);
        let records = Family::default();
        for result in [Outcome::Accepted, Outcome::Failed, Outcome::Rejected, Outcome::Dropped] {
            drop(records.get_or_create(&Labels { result }));
        }
        (Self { queue: Some(queue), recorded: Arc::default(), records }, receiver)
    }

    pub fn register(&self, registry: &mut Registry) {
        let help = "Records of usage for the collector (--otlp-endpoint), by what became of them";
        registry.register("otlp_records", help, self.records.clone());
    }

    /// Whether anybody is told what is recorded.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    pub fn record(&self, usage: Usage) {
        let Some(queue) = &self.queue else { return };
        let number = self.recorded.fetch_add(1, Ordering::Relaxed);
        if queue.try_send((number, usage)).is_err() {
            self.count(Outcome::Dropped, 1);
        }
    }

    pub(super) fn count(&self, result: Outcome, count: u64) {
        self.records.get_or_create(&Labels { result }).inc_by(count);
    }

    #[cfg(test)]
    pub(super) fn counted(&self, result: Outcome) -> u64 {
        self.records.get_or_create(&Labels { result }).get()
    }
}
