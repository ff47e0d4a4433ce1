//! What the ledger counts about itself and about tokens.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::{Registry, Unit};
use tollgate_core::ledger::usage::Totals;
use tollgate_core::ledger::{Entry, Reason, Refusal};

/// Pairs of consumer and model with series of their own; later ones are counted together as `other`,
/// because clients can make up models where a pool allows a prefix.
const MAX_PAIRS: usize = 1000;

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    pub calls: Family<CallLabels, Counter>,
    pub call_seconds: Histogram,
    pub commit_seconds: Histogram,
    pub commit_calls: Histogram,
    pub writable: Gauge,
    pub holders: Gauge,
    pub leased: Gauge,
    refused: Family<RefusedLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    pairs: Arc<Mutex<BTreeSet<(String, String)>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CallLabels {
    pub outcome: CallOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum CallOutcome {
    Applied,
    Repeated,
    Refused,
    Unavailable,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    entry: EntryLabel,
    reason: ReasonLabel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum EntryLabel {
    Usage,
    Settlement,
    Want,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum ReasonLabel {
    Foreign,
    TooLarge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    consumer: String,
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    consumer: String,
    model: String,
    kind: TokenKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum TokenKind {
    Input,
    Output,
}

// === impl Metrics ===

impl Metrics {
    pub fn new() -> Self {
        let seconds = || Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5]);
        Self {
            calls: Family::default(),
            call_seconds: seconds(),
            commit_seconds: seconds(),
            commit_calls: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
            writable: Gauge::default(),
            holders: Gauge::default(),
            leased: Gauge::default(),
            refused: Family::default(),
            tokens: Family::default(),
            requests: Family::default(),
            pairs: Arc::default(),
        }
    }

    pub fn register(&self, registry: &mut Registry) {
        let ledger = registry.sub_registry_with_prefix("ledger");
        ledger.register("calls", "Calls of proxies, by outcome", self.calls.clone());
        ledger.register_with_unit(
            "call",
            "From a call's arrival to its durable answer",
            Unit::Seconds,
            self.call_seconds.clone(),
        );
        ledger.register_with_unit(
            "commit",
            "One write to the store, made durable",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        ledger.register("commit_calls", "Calls that one write made durable", self.commit_calls.clone());
        ledger.register("writable", "1 while the last write succeeded", self.writable.clone());
        ledger.register("lease_holders", "Proxies with tokens outstanding", self.holders.clone());
        ledger.register("leased_tokens", "Tokens leased and not yet accounted for", self.leased.clone());
        ledger.register(
            "refused_entries",
            "Entries of calls that did not count, each in its own spot",
            self.refused.clone(),
        );
        registry.register("tokens", "Tokens of finished requests, by consumer and model", self.tokens.clone());
        registry.register("requests", "Finished requests, by consumer and model", self.requests.clone());
    }

    pub fn refused(&self, refusal: &Refusal, count: u64) {
        let entry = match refusal.entry {
            Entry::Usage => EntryLabel::Usage,
            Entry::Settlement => EntryLabel::Settlement,
            Entry::Want => EntryLabel::Want,
        };
        let reason = match refusal.reason {
            Reason::Foreign => ReasonLabel::Foreign,
            Reason::TooLarge => ReasonLabel::TooLarge,
        };
        self.refused.get_or_create(&RefusedLabels { entry, reason }).inc_by(count);
    }

    /// Only what is durable is counted.
    pub fn used(&self, consumer: &str, model: &str, totals: &Totals) {
        let (consumer, model) = self.pair(consumer, model);
        let tokens = |kind, count| {
            let labels = TokenLabels { consumer: consumer.clone(), model: model.clone(), kind };
            self.tokens.get_or_create(&labels).inc_by(count);
        };
        tokens(TokenKind::Input, totals.input_tokens);
        tokens(TokenKind::Output, totals.output_tokens);
        self.requests.get_or_create(&RequestLabels { consumer, model }).inc_by(totals.requests);
    }

    fn pair(&self, consumer: &str, model: &str) -> (String, String) {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = (consumer.to_owned(), model.to_owned());
        if pairs.contains(&pair) {
            return pair;
        }
        if pairs.len() >= MAX_PAIRS {
            return ("other".to_owned(), "other".to_owned());
        }
        pairs.insert(pair.clone());
        pair
    }
}
