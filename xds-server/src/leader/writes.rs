//! What is written into a cluster, counted.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::{counter::Counter, family::Family};

use crate::report::Metrics;

/// Clones count the same.
#[derive(Debug, Clone, Default)]
pub struct Writes(Family<Labels, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: Written,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Written {
    Written,
    Failed,
}

// === impl Writes ===

impl Writes {
    /// The names of what is written, and what is said of them.
    pub const STATUSES: [&str; 2] = ["status_writes", "Statuses written into a cluster, and attempts that failed"];
    pub const FLEET: [&str; 2] =
        ["fleet_writes", "Objects of proxies written into a cluster, and attempts that failed"];
    pub const SIDECARS: [&str; 2] =
        ["sidecar_writes", "EnvoyFilters and HTTPRoutes of sidecars written into a cluster, and attempts that failed"];

    /// Counts under this name.
    pub fn new(metrics: &Metrics, [name, help]: [&'static str; 2]) -> Self {
        let writes = Self::default();
        // Both series exist before the first write.
        for result in [Written::Written, Written::Failed] {
            drop(writes.0.get_or_create(&Labels { result }));
        }
        let shared = writes.clone();
        metrics.add(move |registry, _| registry.register(name, help, shared.0.clone()));
        writes
    }

    pub fn count(&self, is_written: bool) {
        let result = if is_written { Written::Written } else { Written::Failed };
        self.0.get_or_create(&Labels { result }).inc();
    }
}
