//! OpenTelemetry's metrics of generative AI, from what the ledger has made durable: how many tokens requests have, and how
//! long they take. Names and labels are those that its convention has in Prometheus, so that dashboards for it work.
//!
//! Labels of our own begin with `tollgate_`. A model is named as the pool names it, never as a client has made it up.

use prometheus_client::registry::{Registry, Unit};
use tollgate_core::ir::Schema;
use tollgate_core::ledger::measures::{Ending, Group, Metered};
use tollgate_proto::measures::{Measure, OTHER};

use super::histograms::{Histograms, Labels};
use crate::report::Consumers;

/// Clones count the same.
#[derive(Debug, Clone)]
pub struct GenAi {
    named: Four,
    left_out: Four,
}

/// The four metrics, with or without consumers.
#[derive(Debug, Clone)]
struct Four {
    tokens: Histograms,
    duration: Histograms,
    first_token: Histograms,
    per_token: Histograms,
}

// === impl GenAi ===

impl GenAi {
    pub fn new() -> Self {
        Self { named: Four::new(), left_out: Four::new() }
    }

    /// Counts what rows say. `schema`: what their backend speaks, if anybody knows it.
    pub fn used(&self, group: &Group, metered: &Metered, schema: Option<Schema>) {
        let labels = labels(group, schema);
        let consumer = ("tollgate_consumer", group.key.consumer.clone());
        let with_consumer = labels.iter().cloned().chain([consumer]).collect();
        self.named.count(with_consumer, group.ending, metered);
        self.left_out.count(labels, group.ending, metered);
    }

    /// Adds these metrics to those that are served. They have no prefix of ours.
    pub fn register(&self, registry: &mut Registry, consumers: Consumers) {
        let four = match consumers {
            Consumers::Named => &self.named,
            Consumers::LeftOut => &self.left_out,
        };
        let tokens = "Tokens of attempts, by what a model was asked to do, who answers, and of which kind they are";
        registry.register("gen_ai_client_token_usage", tokens, four.tokens.clone());
        let mut seconds = |name: &str, help: &str, metric: &Histograms| {
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        };
        let duration = "How long requests take, from their first byte to the end of the answer; error_type is absent where that is good";
        seconds("gen_ai_server_request_duration", duration, &four.duration);
        let first_token = "How long streams take to their first text";
        seconds("gen_ai_server_time_to_first_token", first_token, &four.first_token);
        let per_token = "How long streams take for each token after the first one";
        seconds("gen_ai_server_time_per_output_token", per_token, &four.per_token);
    }
}

// === impl Four ===

impl Four {
    fn new() -> Self {
        Self {
            // Both kinds of tokens have the same buckets.
            tokens: Histograms::of(Measure::InputTokens),
            duration: Histograms::of(Measure::Duration),
            first_token: Histograms::of(Measure::FirstToken),
            per_token: Histograms::of(Measure::PerToken),
        }
    }

    fn count(&self, labels: Labels, ending: Ending, metered: &Metered) {
        let Metered { totals, measures } = metered;
        let has = |measure| measures.count(measure) > 0;
        let with = |name, value: &str| labels.iter().cloned().chain([(name, value.to_owned())]).collect();
        for (measure, kind, sum) in [
            (Measure::InputTokens, "input", totals.input_tokens),
            (Measure::OutputTokens, "output", totals.output_tokens),
        ] {
            if has(measure) {
                self.tokens.add(with("gen_ai_token_type", kind), measures.counts(measure), sum);
            }
        }
        if has(Measure::Duration) {
            let labels = match ending {
                Ending::Good => labels.clone(),
                Ending::Error(status) => with("error_type", &status.to_string()),
            };
            self.duration.add(labels, measures.counts(Measure::Duration), measures.duration_ms());
        }
        if has(Measure::FirstToken) {
            self.first_token.add(labels.clone(), measures.counts(Measure::FirstToken), measures.first_token_ms());
        }
        if has(Measure::PerToken) {
            self.per_token.add(labels, measures.counts(Measure::PerToken), measures.per_token_us());
        }
    }
}

fn labels(group: &Group, schema: Option<Schema>) -> Labels {
    let key = &group.key;
    let all = [
        ("gen_ai_operation_name", group.operation.name()),
        ("gen_ai_provider_name", schema.map_or(OTHER, Schema::provider)),
        ("gen_ai_request_model", &key.model),
        ("tollgate_route", &key.route),
        // None in the sidecars of runners: Prometheus takes a label without a value as one that is absent.
        ("tollgate_backend", &key.backend),
    ];
    all.map(|(name, value)| (name, value.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use tollgate_core::ledger::measures::Measures;
    use tollgate_core::ledger::usage::{Totals, UsageKey};
    use tollgate_proto::v1::{self, Operation};

    use super::*;

    fn group(ending: Ending) -> Group {
        let [consumer, route, model, backend] = ["app", "chat", "gpt-*", "runner"].map(str::to_owned);
        Group { key: UsageKey { consumer, route, model, backend }, operation: Operation::Chat, ending }
    }

    /// So many values in the bucket of each.
    fn measures(of: &[(Measure, u64, u32)], sums: v1::Usage) -> Measures {
        let pair =
            |(measure, value, count): &(Measure, u64, u32)| [u32::try_from(measure.bucket(*value)).unwrap(), *count];
        Measures::try_from(&v1::Usage { spread: of.iter().flat_map(pair).collect(), ..sums }).unwrap()
    }

    fn text(gen_ai: &GenAi, consumers: Consumers) -> String {
        let mut registry = Registry::default();
        gen_ai.register(&mut registry, consumers);
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text
    }

    const SET: &str = r#"gen_ai_operation_name="chat",gen_ai_provider_name="anthropic",gen_ai_request_model="gpt-*",tollgate_route="chat",tollgate_backend="runner""#;

    fn has(text: &str, metric: &str, more: &str, value: &str) {
        let line = format!("{metric}{{{SET}{more}}} {value}\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }

    #[test]
    fn a_row_is_in_all_four_metrics() {
        let spread = [
            (Measure::InputTokens, 100, 2),
            (Measure::OutputTokens, 5, 2),
            (Measure::Duration, 300, 1),
            (Measure::FirstToken, 50, 1),
            (Measure::PerToken, 25_000, 1),
        ];
        let sums = v1::Usage { duration_ms: 300, first_token_ms: 50, per_token_us: 25_000, ..v1::Usage::default() };
        let totals = Totals { requests: 1, input_tokens: 203, output_tokens: 11, ..Totals::default() };
        let gen_ai = GenAi::new();
        let metered = Metered { totals, measures: measures(&spread, sums) };
        gen_ai.used(&group(Ending::Good), &metered, Some(Schema::Anthropic));
        let text = text(&gen_ai, Consumers::LeftOut);
        has(&text, "gen_ai_client_token_usage_sum", r#",gen_ai_token_type="input""#, "203.0");
        has(&text, "gen_ai_client_token_usage_count", r#",gen_ai_token_type="input""#, "2");
        has(&text, "gen_ai_client_token_usage_sum", r#",gen_ai_token_type="output""#, "11.0");
        has(&text, "gen_ai_server_request_duration_seconds_sum", "", "0.3");
        has(&text, "gen_ai_server_time_to_first_token_seconds_sum", "", "0.05");
        has(&text, "gen_ai_server_time_per_output_token_seconds_sum", "", "0.025");
        assert!(!text.contains("app") && !text.contains("error_type="), "{text}");
        let text = self::text(&gen_ai, Consumers::Named);
        has(&text, "gen_ai_server_request_duration_seconds_count", r#",tollgate_consumer="app""#, "1");
    }

    #[test]
    fn an_error_has_its_status_and_no_tokens() {
        let gen_ai = GenAi::new();
        let sums = v1::Usage { duration_ms: 7, ..v1::Usage::default() };
        let metered = Metered { totals: Totals::default(), measures: measures(&[(Measure::Duration, 7, 1)], sums) };
        gen_ai.used(&group(Ending::Error(503)), &metered, Some(Schema::Anthropic));
        let text = text(&gen_ai, Consumers::LeftOut);
        has(&text, "gen_ai_server_request_duration_seconds_sum", r#",error_type="503""#, "0.007");
        let series = text.lines().filter(|line| !line.starts_with('#') && !line.contains("request_duration"));
        assert_eq!(series.count(), 0, "{text}");
    }

    #[test]
    fn what_a_backend_speaks_and_is_asked_has_opentelemetrys_name() {
        let of = |operation, schema| {
            let labels = labels(&Group { operation, ..group(Ending::Good) }, schema);
            (labels[0].1.clone(), labels[1].1.clone())
        };
        let both = |operation: &str, provider: &str| (operation.to_owned(), provider.to_owned());
        assert_eq!(of(Operation::Chat, Some(Schema::OpenAI)), both("chat", "openai"));
        assert_eq!(of(Operation::Embeddings, Some(Schema::AzureOpenAI)), both("embeddings", "azure.ai.openai"));
        assert_eq!(of(Operation::TextCompletion, Some(Schema::Anthropic)), both("text_completion", "anthropic"));
        assert_eq!(of(Operation::Unspecified, None), both("_OTHER", "_OTHER"));
    }
}
