//! What operators are told by: thresholds of budgets, and the dashboard, both of real traffic.
#![allow(clippy::indexing_slicing, reason = "what JSON does not have is null")]

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use serde_json::Value;
use tollgate_tests::client::{Client, chat_stream};
use tollgate_tests::config;
use tollgate_tests::filter::Form;
use tollgate_tests::poll;
use tollgate_tests::process;
use tollgate_tests::prometheus::{self, Prometheus};

use crate::fixtures::Basic;
use crate::suite::{Shared, e2e};

e2e! {
    a_budget_that_comes_to_a_threshold_is_told_once,
    the_dashboard_shows_what_happens,
    what_an_envoy_counts_is_in_the_reference,
}

/// A counter of the filter in the stats of its Envoy, in both forms.
const REQUESTS: &str = "wasmcustom.tollgate.requests";
/// Its last part has what Envoys count.
const REFERENCE: &str = include_str!("../../docs/reference/metrics.md");

/// Panels that show nothing while nothing is wrong, or without a cluster, a webhook or a collector.
const ONLY_SOMETIMES: [&str; 7] = [
    "Webhook",
    "Usage events",
    "Resources refused (NACK)",
    "TLS handshakes that failed",
    "Kinds of the cluster that are not heard of",
    "Requests that the API server denied",
    "Entries refused",
];

const OTHER_KEY: &str = "the-key-of-the-consumer-other";

/// Real requests spend a budget while the receiver is down. It gets both thresholds when it is up, once each, also when the
/// control plane is killed and comes back.
async fn a_budget_that_comes_to_a_threshold_is_told_once(shared: Arc<Shared>) -> anyhow::Result<()> {
    let port = process::free_port()?;
    let url = format!("http://127.0.0.1:{port}/hook");
    let mut basic = Basic::start_with(&shared, "a_budget_that_comes_to_a_threshold_is_told_once", |setup, _| {
        setup
            .arguments(&["--webhook", &url])
            .file("budget.yaml", &config::budget(300, ""))?
            .file("other.yaml", &config::consumer("other", OTHER_KEY, ""))
    })
    .await?;
    let client = basic.client();
    is_spent(&client).await?;
    basic.gateway.admin().settled_budgets().await?;
    for threshold in [80, 100] {
        let of = format!("policy=\"default/budget\",limit=\"total\",threshold=\"{threshold}\"");
        counts(&basic, &format!("tollgate_budget_thresholds_total{{{of}}} 1")).await?;
    }

    let got = receiver(port).await?;
    let thresholds = || -> Vec<(Value, Value)> {
        let field = |event: &Value, path: &str| event.pointer(path).cloned().unwrap_or_default();
        let got = got.lock().map(|got| got.clone()).unwrap_or_default();
        got.iter().map(|event| (field(event, "/data/scope/Consumer"), field(event, "/data/threshold"))).collect()
    };
    let both = vec![(Value::from("app"), Value::from(80)), (Value::from("app"), Value::from(100))];
    poll::until("the webhook has been told", || async {
        anyhow::ensure!(thresholds() == both, "{:?}", thresholds());
        Ok(())
    })
    .await?;
    counts(&basic, "tollgate_webhook_deliveries_total{result=\"Delivered\"} 2").await?;
    // What the ledger writes next has the receipts in it, so they are durable when usage of later is.
    let other = basic.gateway.client(OTHER_KEY);
    other.chat("smol").await?.expect(200)?;
    basic.gateway.admin().usage_of("consumer=other", 1).await?;
    basic.gateway.process().kill()?;
    basic.gateway.restart().await?;
    poll::until("the budget is still spent", || async { client.chat("smol").await?.expect(429) }).await?;
    // One is told after the other. What was to be told when the ledger was opened would come before this.
    is_spent(&other).await?;
    let last = (Value::from("other"), Value::from(100));
    poll::until("the webhook has been told of another consumer", || async {
        anyhow::ensure!(thresholds().contains(&last), "{:?}", thresholds());
        Ok(())
    })
    .await?;
    let of_app: Vec<_> = thresholds().into_iter().filter(|(consumer, _)| consumer == "app").collect();
    anyhow::ensure!(of_app == both, "told again: {:?}", thresholds());
    Ok(())
}

async fn is_spent(client: &Client) -> anyhow::Result<()> {
    poll::until("the budget is spent", || async {
        anyhow::ensure!(client.chat("smol").await?.status == 429, "there are tokens left");
        Ok(())
    })
    .await
}

/// Waits until the metrics have this line.
async fn counts(basic: &Basic, line: &str) -> anyhow::Result<()> {
    poll::until(line, || async {
        let text = basic.gateway.admin().text("/metrics").await?;
        let (name, _) = line.split_once('{').context("a name")?;
        let of_name: Vec<&str> = text.lines().filter(|other| other.starts_with(name)).collect();
        anyhow::ensure!(of_name.contains(&line), "{of_name:?}");
        Ok(())
    })
    .await
}

/// A real receiver; it takes everything.
async fn receiver(port: u16) -> anyhow::Result<Arc<Mutex<Vec<Value>>>> {
    async fn take(State(got): State<Arc<Mutex<Vec<Value>>>>, body: axum::body::Bytes) {
        if let (Ok(mut got), Ok(event)) = (got.lock(), serde_json::from_slice(&body)) {
            got.push(event);
        }
    }
    let got = Arc::default();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let router = Router::new().route("/hook", post(take)).with_state(Arc::clone(&got));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(got)
}

/// Each panel's query is asked of a real Prometheus while real requests run.
async fn the_dashboard_shows_what_happens(shared: Arc<Shared>) -> anyhow::Result<()> {
    if !prometheus::is_here() {
        return Ok(());
    }
    let basic = Basic::start_with(&shared, "the_dashboard_shows_what_happens", |setup, _| {
        setup.file("budget.yaml", &config::budget(100_000, ""))
    })
    .await?;
    let target = format!("127.0.0.1:{}", basic.gateway.admin_port());
    let prometheus = Prometheus::start(&[&target]).await?;
    let client = basic.client();
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(prometheus::of_chart("dashboard.json"))?)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    laid_out(panels)?;
    let panels = panels.iter().filter(|panel| panel["type"] != "row");
    let queries: Vec<(&str, String)> = panels
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap_or_default();
            let targets = panel["targets"].as_array().into_iter().flatten();
            targets.map(move |target| (title, without_variables(target["expr"].as_str().unwrap_or_default())))
        })
        .collect();
    anyhow::ensure!(queries.len() > 20, "{queries:?}");
    poll::until("every panel has data", || async {
        client.chat("smol").await?.expect(200)?;
        let stream = chat_stream("smol", 8).to_string();
        client.post("/v1/chat/completions", stream).await?.expect(200)?;
        let mut empty = Vec::new();
        for (title, query) in &queries {
            let found = prometheus.query(query).await?;
            let has_data = found.iter().any(|series| series.pointer("/value/1").is_some_and(|value| value != "NaN"));
            if !has_data && !ONLY_SOMETIMES.contains(title) {
                empty.push((title, query));
            }
        }
        anyhow::ensure!(empty.is_empty(), "{empty:?}");
        Ok(())
    })
    .await
}

/// No two panels lie on each other, each says what it shows, and what counts begins with a counter's first value, which
/// `increase` alone does not see.
fn laid_out(panels: &[Value]) -> anyhow::Result<()> {
    let mut taken = HashMap::new();
    for panel in panels {
        let title = panel["title"].as_str().context("a panel without a title")?;
        let at = |field: &str| panel["gridPos"][field].as_u64().with_context(|| format!("{title}: {field}"));
        let (columns, rows) = (at("x")?..at("x")? + at("w")?, at("y")?..at("y")? + at("h")?);
        for (x, y) in columns.flat_map(|x| rows.clone().map(move |y| (x, y))) {
            let other = taken.insert((x, y), title);
            anyhow::ensure!(x < 24 && other.is_none(), "{title} lies on {other:?}, or beyond the edge");
        }
        let is_told = panel["description"].as_str().is_some_and(|text| !text.is_empty());
        anyhow::ensure!(panel["type"] == "row" || is_told, "{title} has no description");
        let targets = panel["targets"].as_array().into_iter().flatten();
        for query in targets.filter_map(|target| target["expr"].as_str()).filter(|query| query.contains("increase(")) {
            anyhow::ensure!(query.contains(" offset 1h) or increase("), "{title}: {query}");
        }
    }
    Ok(())
}

/// As Grafana asks with everything selected.
fn without_variables(query: &str) -> String {
    query.replace("$namespace", ".*").replace("$job", ".*").replace("$__rate_interval", "5s")
}

/// The filter's counters have the names that people are told, in Envoy's stats and in the text for Prometheus.
async fn what_an_envoy_counts_is_in_the_reference(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start(&shared, "what_an_envoy_counts_is_in_the_reference").await?;
    basic.client().chat("smol").await?.expect(200)?;
    let (_, reference) = REFERENCE.split_once("## Of an Envoy").context("what Envoys count")?;
    let told: BTreeSet<&str> =
        reference.lines().filter_map(|line| line.strip_prefix("| `tollgate_")?.split('`').next()).collect();
    anyhow::ensure!(told.contains("requests"), "{told:?}");
    anyhow::ensure!(reference.contains(&format!("`{REQUESTS}`")), "{REQUESTS} is not in the reference");
    let envoy = basic.gateway.envoy()?;
    poll::until("the request is counted", || async {
        anyhow::ensure!(envoy.stat(REQUESTS)? > 0, "not yet");
        Ok(())
    })
    .await?;
    let prefix = Form::chosen().counters();
    anyhow::ensure!(reference.contains(&format!("`{prefix}")), "{prefix} is not in the reference");
    let text = envoy.get("/stats/prometheus")?;
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"));
    let counted: BTreeSet<&str> = names.filter_map(|name| name.strip_prefix(prefix)).collect();
    anyhow::ensure!(counted == told, "{:?}", counted.symmetric_difference(&told));
    Ok(())
}
