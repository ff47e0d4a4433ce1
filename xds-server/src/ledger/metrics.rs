//! What the ledger counts about itself and about tokens.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::{Registry, Unit};
use tollgate_core::ir::Schema;
use tollgate_core::ledger::measures::{Group, Metered};
use tollgate_core::ledger::usage::Totals;
use tollgate_core::ledger::{Entry, Reason, RefusedEntry};

use super::Crossings;
use super::budgets::Budgets;
use super::gen_ai::GenAi;
use crate::audit::{Audit, Event};
use crate::otlp::Events;
use crate::report::{Consumers, LastUsed, SpentToday};

/// The most pairs of consumer and model that have series of their own. Later pairs are counted together as `other`,
/// because each series costs memory here and at each scraper.
const MAX_PAIRS: usize = 1000;

/// Clones count the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) calls: Family<CallLabels, Counter>,
    pub(super) call_seconds: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) commit_calls: Histogram,
    pub(super) writable: Gauge,
    pub(super) holders: Gauge,
    pub(super) leased: Gauge,
    refused: Family<RefusedLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    estimated: Family<RequestLabels, Counter>,
    of_models: OfModels,
    gen_ai: GenAi,
    pairs: Arc<Mutex<BTreeSet<(String, String)>>>,
    last_used: LastUsed,
    spent_today: SpentToday,
    crossings: Crossings,
    budgets: Budgets,
    audit: Audit,
    events: Events,
}

/// The same figures by model alone.
#[derive(Debug, Clone, Default)]
struct OfModels {
    tokens: Family<ModelTokenLabels, Counter>,
    requests: Family<ModelLabels, Counter>,
    estimated: Family<ModelLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelTokenLabels {
    model: String,
    kind: TokenKind,
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
    Measures,
    Settlement,
    Want,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum ReasonLabel {
    Foreign,
    TooLarge,
    Nonsense,
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
            estimated: Family::default(),
            of_models: OfModels::default(),
            gen_ai: GenAi::new(),
            pairs: Arc::default(),
            last_used: LastUsed::default(),
            spent_today: SpentToday::default(),
            crossings: Crossings::default(),
            budgets: Budgets::default(),
            audit: Audit::default(),
            events: Events::default(),
        }
    }

    /// Tells there which thresholds budgets cross.
    #[must_use]
    pub fn telling(self, crossings: Crossings) -> Self {
        Self { crossings, ..self }
    }

    /// Records there what is used and refused.
    #[must_use]
    pub fn recording(self, audit: Audit) -> Self {
        Self { audit, ..self }
    }

    /// Tells a collector there what is used.
    #[must_use]
    pub fn exporting(self, events: Events) -> Self {
        Self { events, ..self }
    }

    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    pub(super) fn audit(&self) -> &Audit {
        &self.audit
    }

    pub(super) fn crossings(&self) -> &Crossings {
        &self.crossings
    }

    pub(crate) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// When consumers were used last.
    pub fn last_used(&self) -> &LastUsed {
        &self.last_used
    }

    /// What consumers have spent today.
    pub fn spent_today(&self) -> &SpentToday {
        &self.spent_today
    }

    /// Adds these metrics to those that are served.
    pub fn register(&self, registry: &mut Registry, consumers: Consumers) {
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
        ledger.register(
            "writable",
            "1 while the last write succeeded; 0 in a replica that does not have the ledger",
            self.writable.clone(),
        );
        ledger.register("lease_holders", "Proxies with tokens outstanding", self.holders.clone());
        ledger.register("leased_tokens", "Tokens leased and not yet accounted for", self.leased.clone());
        ledger.register(
            "refused_entries",
            "Entries of calls that did not count, each in its own spot",
            self.refused.clone(),
        );
        self.budgets.register(registry);
        const ESTIMATED: &str =
            "Of them, those whose tokens were counted from bytes; attempts beyond the first included";
        match consumers {
            Consumers::Named => {
                registry.register("tokens", "Tokens of finished requests, by consumer and model", self.tokens.clone());
                registry.register("requests", "Finished requests, by consumer and model", self.requests.clone());
                registry.register("estimated_requests", ESTIMATED, self.estimated.clone());
            }
            Consumers::LeftOut => {
                let OfModels { tokens, requests, estimated } = &self.of_models;
                registry.register("tokens", "Tokens of finished requests, by model", tokens.clone());
                registry.register("requests", "Finished requests, by model", requests.clone());
                registry.register("estimated_requests", ESTIMATED, estimated.clone());
            }
        }
    }

    /// Adds those metrics whose names are OpenTelemetry's.
    pub fn register_gen_ai(&self, registry: &mut Registry, consumers: Consumers) {
        self.gen_ai.register(registry, consumers);
    }

    pub(crate) fn refused(&self, refusal: &RefusedEntry, count: u64) {
        let entry = match refusal.entry {
            Entry::Usage => EntryLabel::Usage,
            Entry::Measures => EntryLabel::Measures,
            Entry::Settlement => EntryLabel::Settlement,
            Entry::Want => EntryLabel::Want,
        };
        let reason = match refusal.reason {
            Reason::Foreign => ReasonLabel::Foreign,
            Reason::TooLarge => ReasonLabel::TooLarge,
            Reason::Nonsense => ReasonLabel::Nonsense,
        };
        self.refused.get_or_create(&RefusedLabels { entry, reason }).inc_by(count);
        let (entry, reason) = (format!("{:?}", refusal.entry), format!("{:?}", refusal.reason));
        let (identity, entry, reason) = (&*refusal.identity, &*entry, &*reason);
        self.audit.record(Event::LedgerRefused { identity, entry, reason, count });
    }

    /// Counts usage. Only what is durable comes here. `schema`: what its backend speaks, if anybody knows it.
    pub(crate) fn used(&self, group: &Group, metered: &Metered, schema: Option<Schema>) {
        self.gen_ai.used(group, metered, schema);
        // An error that cost nothing is no finished request.
        if metered.totals != Totals::default() {
            self.used_tokens(&group.key.consumer, &group.key.model, &metered.totals);
        }
    }

    fn used_tokens(&self, consumer: &str, model: &str, totals: &Totals) {
        let (consumer, model) = self.pair(consumer, model);
        let tokens = |kind, count| {
            let labels = TokenLabels { consumer: consumer.clone(), model: model.clone(), kind };
            self.tokens.get_or_create(&labels).inc_by(count);
            let labels = ModelTokenLabels { model: model.clone(), kind };
            self.of_models.tokens.get_or_create(&labels).inc_by(count);
        };
        tokens(TokenKind::Input, totals.input_tokens);
        tokens(TokenKind::Output, totals.output_tokens);
        let of_model = ModelLabels { model: model.clone() };
        self.of_models.requests.get_or_create(&of_model).inc_by(totals.requests);
        self.of_models.estimated.get_or_create(&of_model).inc_by(totals.estimated_requests);
        let labels = RequestLabels { consumer, model };
        self.requests.get_or_create(&labels).inc_by(totals.requests);
        self.estimated.get_or_create(&labels).inc_by(totals.estimated_requests);
    }

    /// One call, so that its series exists.
    #[cfg(test)]
    pub fn called(&self) {
        self.calls.get_or_create(&CallLabels { outcome: CallOutcome::Applied }).inc();
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
