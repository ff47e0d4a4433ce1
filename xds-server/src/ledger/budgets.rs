//! How full budgets are, by limit: of each the fullest bucket, so that no consumer is named and there are as many series
//! as limits.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;
use tollgate_core::ir::Limit;
use tollgate_core::ledger::Crossing;

/// The most limits that have series of their own, the first by name. Each series costs memory here and at each scraper.
const MAX_LIMITS: usize = 1000;

/// Clones count the same.
#[derive(Debug, Clone, Default)]
pub struct Budgets {
    spent: Family<LimitLabels, Gauge<f64, AtomicU64>>,
    crossed: Family<ThresholdLabels, Counter>,
    /// The limits with series, by id, and their thresholds.
    known: Arc<Mutex<Known>>,
}

type Known = BTreeMap<String, (LimitLabels, Vec<u16>)>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    policy: String,
    limit: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ThresholdLabels {
    policy: String,
    limit: String,
    threshold: u16,
}

// === impl Budgets ===

impl Budgets {
    pub fn register(&self, registry: &mut Registry) {
        let spent = "What the fullest budget of a limit has spent of its tokens in its window; 1 is all";
        let crossed = "Budgets that have come to a threshold (warnAt), each once in its window";
        registry.register("budget_spent_ratio", spent, self.spent.clone());
        registry.register("budget_thresholds", crossed, self.crossed.clone());
    }

    /// These are the limits now. Their series exist before the first event, and those of others are gone.
    pub fn configured<'a>(&self, limits: impl Iterator<Item = &'a Limit>) {
        let next: Known = limits.take(MAX_LIMITS).map(|limit| (limit.id.clone(), known(limit))).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, (labels, thresholds)) in &*known {
            let next = next.get(id);
            if next.is_none() {
                self.spent.remove(labels);
            }
            let is_gone = |threshold: &&u16| next.is_none_or(|(_, thresholds)| !thresholds.contains(threshold));
            for threshold in thresholds.iter().filter(is_gone) {
                self.crossed.remove(&labels.at(*threshold));
            }
        }
        for (labels, thresholds) in next.values() {
            drop(self.spent.get_or_create(labels));
            thresholds.iter().for_each(|threshold| drop(self.crossed.get_or_create(&labels.at(*threshold))));
        }
        *known = next;
    }

    /// How full the fullest bucket of each limit is.
    pub fn spent<'a>(&self, ratios: impl Iterator<Item = (&'a Limit, f64)>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (limit, ratio) in ratios {
            if let Some((labels, _)) = known.get(&limit.id) {
                self.spent.get_or_create(labels).set(ratio);
            }
        }
    }

    pub fn crossed(&self, crossing: &Crossing) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((labels, _)) = known.get(&crossing.key.limit) {
            self.crossed.get_or_create(&labels.at(crossing.threshold)).inc();
        }
    }
}

// === impl LimitLabels ===

impl LimitLabels {
    fn at(&self, threshold: u16) -> ThresholdLabels {
        ThresholdLabels { policy: self.policy.clone(), limit: self.limit.clone(), threshold }
    }
}

fn known(limit: &Limit) -> (LimitLabels, Vec<u16>) {
    let policy = format!("{}/{}", limit.origin.namespace, limit.origin.name);
    (LimitLabels { policy, limit: limit.name.clone() }, limit.warn_at.iter().collect())
}
