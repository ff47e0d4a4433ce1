//! Every metric there is, as docs/reference/metrics.md says it, and that alerts and dashboard ask for no other. Those of the
//! filter are Envoy's to serve: `what_an_envoy_counts_is_in_the_reference` reads them there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tollgate_core::ir::Schema;
use tollgate_core::ledger::measures::{Ending, Group, Measures, Metered};
use tollgate_core::ledger::usage::{Totals, UsageKey};
use tollgate_core::ledger::{Entry, Reason, RefusedEntry};
use tollgate_filter::counters::metric_names;
use tollgate_proto::measures::Measure;
use tollgate_proto::v1::{Operation, Usage};

use super::same;
use crate::audit::Audit;
use crate::leader::{Writes, gauge};
use crate::ledger;
use crate::ledger::tests::consumer_limit;
use crate::notices::{Place, Webhook};
use crate::otlp::{Authorities, Collector, Exporter};
use crate::report::{Certificate, Consumers, GatewayStatus, Metrics, Status};
use crate::source::kubernetes::Denied;

/// One of docs/reference/metrics.md.
struct Metric {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// All of them, each with a series, as the port for scrapers has them.
fn all() -> BTreeMap<String, Metric> {
    let metrics = Metrics::with(Audit::open(Path::new("-")).unwrap());
    let gateway =
        GatewayStatus { name: "default/llm".into(), programmed: true, listeners: Vec::new(), proxies: Vec::new() };
    let status = Status { gateways: vec![gateway], ..Status::default() };
    metrics.nack("default/llm", "Cluster");
    metrics.watch("Gateway");
    metrics.certificate(Certificate::Server, Timestamp::now(), Timestamp::now());
    metrics.handshakes().open("xds");
    let denied = Denied::default();
    denied.count("get", "secrets".to_owned(), 403);
    metrics.add(move |registry: &mut Registry, _| denied.register(registry));
    let of_ledger = ledger::Metrics::new();
    of_ledger.refused(&RefusedEntry { identity: String::new(), entry: Entry::Usage, reason: Reason::Foreign }, 1);
    of_ledger.used(&streams(), &a_stream(), Some(Schema::OpenAI));
    of_ledger.budgets().configured([consumer_limit(1)].iter());
    of_ledger.called();
    let of_gen_ai = of_ledger.clone();
    metrics.add(move |registry, consumers| of_ledger.register(registry, consumers));
    metrics.add_of_convention(move |registry, consumers| of_gen_ai.register_gen_ai(registry, consumers));
    let collector = Collector::new("http://127.0.0.1:4317", Authorities::OfTheSystem, Vec::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (events, _exporter) = runtime.block_on(async { Exporter::start(&collector).unwrap() });
    metrics.add(move |registry, _| events.register(registry));
    drop(Webhook::new(Place::new("http://127.0.0.1/", None).unwrap(), &metrics).unwrap());
    for written in [Writes::STATUSES, Writes::FLEET, Writes::SIDECARS] {
        drop(Writes::new(&metrics, written));
    }
    drop(gauge(&metrics));
    read(&metrics.text(&status, Consumers::LeftOut).unwrap())
}

/// Streams that ended with an error.
fn streams() -> Group {
    let [consumer, route, model, backend] = ["app", "chat", "smol", "runner"].map(str::to_owned);
    let key = UsageKey { consumer, route, model, backend };
    Group { key, operation: Operation::Chat, ending: Ending::Error(499) }
}

/// One of them, with a value of each measure.
fn a_stream() -> Metered {
    let bucket = |measure: Measure| u32::try_from(measure.first_bucket()).unwrap();
    let spread = Measure::ALL.into_iter().flat_map(|measure| [bucket(measure), 1]).collect();
    let measures = Measures::try_from(&Usage { spread, ..Usage::default() }).unwrap();
    Metered { totals: Totals { requests: 1, ..Totals::default() }, measures }
}

fn read(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                let help = help.trim_end_matches('.').to_owned();
                metrics.insert(name.to_owned(), Metric { kind: String::new(), help, labels: BTreeSet::new() });
            }
            ["#", "TYPE", name, kind] => metrics.get_mut(name).unwrap().kind = kind.to_owned(),
            ["#", ..] => {}
            _ => {
                let series = line.split([' ', '{']).next().unwrap();
                let name = metrics
                    .keys()
                    .filter(|name| series.starts_with(*name))
                    .max_by_key(|name| name.len())
                    .unwrap()
                    .clone();
                let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
                let labels =
                    labels.split("\",").filter_map(|label| label.split('=').next()).filter(|name| !name.is_empty());
                metrics.get_mut(&name).unwrap().labels.extend(labels.map(str::to_owned));
            }
        }
    }
    metrics
}

/// As PromQL asks for it.
fn series(name: &str, kind: &str) -> Vec<String> {
    match kind {
        "counter" => vec![format!("{name}_total")],
        "histogram" => ["bucket", "count", "sum"].iter().map(|part| format!("{name}_{part}")).collect(),
        _ => vec![name.to_owned()],
    }
}

#[test]
fn the_reference_has_every_metric() {
    let mut text = "# Metrics\n\nGenerated by `cargo xtask gen` from the control plane's registry. They are at `/metrics` of the port for scrapers \
(`--metrics`, 8080) and of the admin port, in the format of OpenMetrics. On the admin port, and with `--metrics-consumers` on the other \
one, those of requests and tokens have the label `consumer` besides, and those of generative AI (`gen_ai_`, docs/metrics.md) \
`tollgate_consumer`. What an Envoy counts stands below.\n\n\
| metric | type | labels | meaning |\n|---|---|---|---|\n"
        .to_owned();
    for (name, Metric { kind, help, labels }) in all() {
        let labels: Vec<String> =
            labels.iter().filter(|label| *label != "le").map(|label| format!("`{label}`")).collect();
        let shown = if kind == "counter" { format!("{name}_total") } else { name };
        writeln!(text, "| `{shown}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
    }
    text += "\n## Of an Envoy\n\nThe filter counts in the stats of its Envoy, as `wasmcustom.tollgate.requests` and the like, \
without labels. Where it is a module (`--filter native`), Envoy's text for Prometheus has them as `envoy_wasmcustom_tollgate_requests`. \
A proxy in a Pod serves them at `/metrics` of port 15021 \
(`tollgate proxy --status`), beside Envoy's own, with `tollgate_certificate_expiry_seconds` and \
`tollgate_certificate_lifetime_seconds` of `certificate=\"proxy\"`.\n\n| metric | type | meaning |\n|---|---|---|\n";
    for name in metric_names() {
        writeln!(text, "| `{}` | counter | {} |", name.replace('.', "_"), counted(&name)).unwrap();
    }
    same("docs/reference/metrics.md", &text);
}

/// What a counter of the filter counts.
fn counted(name: &str) -> String {
    let name = name.strip_prefix("tollgate.").unwrap();
    if let Some(code) = name.strip_prefix("refused.") {
        return format!("Requests that were refused with `{code}`");
    }
    match name {
        "requests" => "Requests to pools, also those that were refused",
        "input_tokens" => "Tokens of prompts that were charged, cached ones among them",
        "output_tokens" => "Tokens of answers that were charged",
        "estimated" => "Attempts whose tokens were counted from bytes",
        "ledger_calls" => "Calls to the ledger",
        "ledger_calls_refused" => "Of them, those that the ledger will never take",
        "usage_rows_dropped" => {
            "Rows of usage for which there was no room while the ledger was away, or that it will never take"
        }
        "workers_lost" => "Workers whose VM died; what they had reserved is charged",
        "connections_refused" => "Connections that were closed because their source had as many as it may",
        "keys_taken" => "Answers about keys that were taken",
        _ => panic!("{name} is in no reference"),
    }
    .to_owned()
}

#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let known: BTreeMap<String, BTreeSet<String>> = all()
        .iter()
        .flat_map(|(name, metric)| series(name, &metric.kind).into_iter().map(|name| (name, metric.labels.clone())))
        .collect();
    let file = |name: &str| {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/chart/files").join(name)).unwrap()
    };
    let rules: serde_json::Value = serde_saphyr::from_str(&file("alerts.yaml")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&file("dashboard.json")).unwrap();
    let mut expressions = Vec::new();
    for value in [&rules, &dashboard] {
        expressions_of(value, &mut expressions);
    }
    assert!(expressions.len() > 30, "{expressions:?}");
    for expression in expressions {
        let (metrics, labels) = asked(&expression);
        assert!(!metrics.is_empty(), "{expression}");
        let mut of_all: BTreeSet<&str> = ["job", "namespace", "instance"].into();
        for metric in &metrics {
            let labels = known.get(metric).unwrap_or_else(|| panic!("{metric} of `{expression}` is not served"));
            of_all.extend(labels.iter().map(String::as_str));
        }
        for label in labels {
            assert!(of_all.contains(label.as_str()), "{label} of `{expression}` is no label of {metrics:?}");
        }
    }
}

#[test]
fn each_alert_has_its_section() {
    let file = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(name)).unwrap();
    let rules: serde_json::Value = serde_saphyr::from_str(&file("manifests/chart/files/alerts.yaml")).unwrap();
    let page = file("docs/operations-alerts.md");
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let alert = rule["alert"].as_str().unwrap();
        assert!(page.contains(&format!("\n## {alert}\n")), "{alert} has no section");
        let url = format!("docs/operations-alerts.md#{}", alert.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], url.as_str());
        for annotation in ["summary", "description"] {
            assert!(rule["annotations"][annotation].is_string(), "{alert}: {annotation}");
        }
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{alert}");
    }
}

fn expressions_of(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            found.extend(map.get("expr").and_then(|text| text.as_str()).map(str::to_owned));
            map.values().for_each(|value| expressions_of(value, found));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| expressions_of(value, found)),
        _ => {}
    }
}

/// How the names of metrics begin.
const METRICS: [&str; 2] = ["tollgate_", "gen_ai_"];

/// OpenTelemetry's labels, and ours beside them, begin as metrics do.
fn is_label(word: &str) -> bool {
    let ours = ["tollgate_route", "tollgate_backend", "tollgate_consumer"];
    let theirs = ["operation_name", "provider_name", "request_model", "token_type"];
    ours.contains(&word) || word.strip_prefix("gen_ai_").is_some_and(|rest| theirs.contains(&rest))
}

/// The metrics and labels that an expression of PromQL names.
fn asked(expression: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let is_of_a_name = |c: char| c.is_alphanumeric() || c == '_';
    let names = expression
        .split(|c| !is_of_a_name(c))
        .filter(|word| METRICS.iter().any(|start| word.starts_with(start)) && !is_label(word));
    let metrics = names.map(str::to_owned).collect();
    let mut labels = BTreeSet::new();
    for part in expression.split("by (").skip(1) {
        labels.extend(part.split(')').next().unwrap().split(',').map(|label| label.trim().to_owned()));
    }
    for part in expression.split('{').skip(1) {
        let matchers = part.split('}').next().unwrap();
        let names = matchers.split(',').filter_map(|matcher| matcher.split(['=', '!']).next());
        labels.extend(names.map(|name| name.trim().to_owned()));
    }
    (metrics, labels)
}
