//! What the writer counts.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use crate::report::Metrics;

/// Clones count the same.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    writes: Family<Labels, Counter>,
    leader: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: Written,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Written {
    Written,
    Failed,
}

// === impl Counts ===

impl Counts {
    pub fn new(metrics: &Metrics) -> Self {
        let counts = Self::default();
        // Both series exist before the first write.
        for result in [Written::Written, Written::Failed] {
            drop(counts.writes.get_or_create(&Labels { result }));
        }
        let shared = counts.clone();
        metrics.add(move |registry, _| {
            let help = "Statuses written into a cluster, and attempts that failed";
            registry.register("status_writes", help, shared.writes.clone());
            registry.register("leader", "1 while this control plane writes statuses", shared.leader.clone());
        });
        counts
    }

    pub fn written(&self) {
        self.writes.get_or_create(&Labels { result: Written::Written }).inc();
    }

    pub fn failed(&self) {
        self.writes.get_or_create(&Labels { result: Written::Failed }).inc();
    }

    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }
}
