//! What an Envoy tells of each request: its access log, and spans (docs/signals.md). Both say what the books say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;
use tollgate_tests::admin::UsageRow;
use tollgate_tests::client::{chat, chat_stream, long_stream};
use tollgate_tests::collector::{Collector, Kind, Span};
use tollgate_tests::config::{self, Target};
use tollgate_tests::gateway::RunningGateway;
use tollgate_tests::poll;
use tollgate_tests::process::ClosedPort;
use tollgate_tests::tap::Tap;

use crate::fixtures::{APP_KEY, BACKEND_MODEL};
use crate::suite::{Shared, e2e};

e2e! {
    the_access_log_says_what_each_request_was_and_used,
    spans_say_what_each_request_was_and_used,
}

const WRONG_KEY: &str = "a-key-that-nobody-has";
const PATH: &str = "/v1/chat/completions";
const PROVIDER: &str = "gen_ai.provider.name";
/// What a client that does not know better puts into a URL.
const IN_QUERY: &str = "?api_key=the-key-in-a-query";

const NOTHING: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: nothing}
spec:
  parentRefs: [{name: llm}]
  hostnames: [nothing.example]
  rules: [{backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]}]
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: nothing}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: nothing}]
  limits: [{name: total, tokens: 0, window: 3650d}]
";

struct Told {
    gateway: RunningGateway,
    tap: Tap,
    log: PathBuf,
    collector: Collector,
    _gone: ClosedPort,
}

// === impl Told ===

impl Told {
    /// The models `smol`, and `spare`, whose first backend is gone. On the route `nothing` no token may be used.
    async fn start(shared: &Shared, test: &str) -> anyhow::Result<Self> {
        let tap = shared.tap().await?;
        let setup = shared.setup(test)?;
        let home = setup.state().parent().context("a home")?.to_owned();
        let collector = Collector::start(&shared.tools, &home.join("collector")).await?;
        let log = home.join("access.jsonl");
        let runner = Target::new("runner").model(BACKEND_MODEL);
        let pool = config::pool(
            "Required",
            &[
                ("smol", &[Target::new("runner").model(BACKEND_MODEL)], None),
                ("spare", &[Target::new("gone"), runner.priority(1)], Some(1)),
            ],
        );
        let gone = ClosedPort::new()?;
        let backend = |name, schema, port| config::backend(name, schema, port, "");
        let models = [pool, backend("runner", "OpenAI", tap.port()), backend("gone", "AzureOpenAI", gone.port())];
        let entry = config::entry(setup.port());
        let (file, endpoint) = (log.to_str().context("a path in UTF-8")?.to_owned(), collector.endpoint());
        let gateway = setup
            .file("entry.yaml", &entry)?
            .file("models.yaml", &config::documents(&models))?
            .file("app.yaml", &config::consumer("app", APP_KEY, ""))?
            .file("nothing.yaml", NOTHING)?
            .arguments(&["--access-log", &file, "--otlp-endpoint", &endpoint, "--trace-sampling", "100"])
            .start()
            .await?;
        Ok(Self { gateway, tap, log, collector, _gone: gone })
    }

    /// A request of each kind. Each says its name as its user agent, but for the one that leaves, which has none.
    async fn ask_all(&self) -> anyhow::Result<()> {
        let ask = |key: &str| self.gateway.client(key);
        let named = |name: &'static str| [("user-agent", name)];
        let at = format!("{PATH}{IN_QUERY}");
        ask(APP_KEY).post_with(&at, &named("plain"), chat("smol", 8).to_string()).await?.expect(200)?;
        ask(APP_KEY).post_with(PATH, &named("stream"), chat_stream("smol", 8).to_string()).await?.expect(200)?;
        ask(APP_KEY).post_with(PATH, &named("failover"), chat("spare", 8).to_string()).await?.expect(200)?;
        ask(WRONG_KEY).post_with(PATH, &named("stranger"), chat("smol", 8).to_string()).await?.expect(401)?;
        let poor = [("user-agent", "poor"), ("host", "nothing.example")];
        ask(APP_KEY).post_with(PATH, &poor, chat("smol", 8).to_string()).await?.expect(429)?;
        let long = long_stream("smol", 700).to_string();
        ask(APP_KEY).leave(PATH, long, |seen| seen.matches("\"content\":").count() >= 10).await?;
        Ok(())
    }

    async fn rows(&self) -> anyhow::Result<Vec<UsageRow>> {
        self.gateway.admin().usage_of("consumer=app", 4).await
    }
}

/// The lines, by the user agent, once there are as many as this.
async fn lines(log: &Path, at_least: usize) -> anyhow::Result<BTreeMap<String, Value>> {
    let lines = poll::until("the log has every request", || async {
        let text = std::fs::read_to_string(log)?;
        let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        anyhow::ensure!(lines.len() >= at_least, "{} of {at_least}", lines.len());
        Ok(lines)
    })
    .await?;
    anyhow::ensure!(lines.len() == at_least, "a line for each request: {lines:?}");
    Ok(lines.into_iter().map(|line| (text(&line, "user_agent").to_owned(), line)).collect())
}

/// Empty: the line does not have it.
fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn tokens(said: &str) -> anyhow::Result<u64> {
    said.parse().with_context(|| format!("{said:?} is no number of tokens"))
}

/// Sums of input and output by model, of what the books say.
fn of_rows(rows: &[UsageRow]) -> BTreeMap<String, (u64, u64)> {
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in rows {
        let sum = sums.entry(row.model.clone()).or_default();
        *sum = (sum.0 + row.input_tokens, sum.1 + row.output_tokens);
    }
    sums
}

async fn the_access_log_says_what_each_request_was_and_used(shared: Arc<Shared>) -> anyhow::Result<()> {
    let told = Told::start(&shared, "the_access_log_says_what_each_request_was_and_used").await?;
    told.ask_all().await?;
    let rows = told.rows().await?;
    let lines = lines(&told.log, 6).await?;
    let line = |name: &str| lines.get(name).with_context(|| format!("no line of {name:?} in {lines:?}"));

    let here = format!("127.0.0.1:{}", told.gateway.port());
    let fields = [
        "gen_ai.operation.name",
        "tollgate.consumer",
        "tollgate.route",
        "gen_ai.request.model",
        "tollgate.backend",
        "tollgate.usage.estimated",
        "error.type",
    ];
    // Whoever is nobody's Consumer is sent away before it matters what is asked.
    for (name, status, expected) in [
        ("plain", 200, ["chat", "app", "chat", "smol", "runner", "false", ""]),
        ("stream", 200, ["chat", "app", "chat", "smol", "runner", "false", ""]),
        ("failover", 200, ["chat", "app", "chat", "spare", "runner", "false", ""]),
        ("", 200, ["chat", "app", "chat", "smol", "runner", "true", ""]),
        ("stranger", 401, ["", "", "", "", "", "", "invalid_api_key"]),
        ("poor", 429, ["chat", "app", "nothing", "smol", "", "", "rate_limit_exceeded"]),
    ] {
        let line = line(name)?;
        let said = fields.map(|field| text(line, field));
        anyhow::ensure!(said == expected, "{name:?}: {line}");
        anyhow::ensure!(line.get("response_code") == Some(&status.into()), "{name:?}: {line}");
        anyhow::ensure!(text(line, "path") == PATH, "{name:?}: {line}");
        let authority = if name == "poor" { "nothing.example" } else { &here };
        anyhow::ensure!(text(line, "authority") == authority, "a backend has another: {name:?}: {line}");
        anyhow::ensure!(text(line, "trace_id").len() == 32 && text(line, "method") == "POST", "{name:?}: {line}");
        anyhow::ensure!(line.get("gen_ai.usage.input_tokens").is_some() == (status == 200), "{name:?}: {line}");
    }
    anyhow::ensure!(line("")?.get("response_flags") == Some(&"DC".into()), "{:?}", lines.get(""));
    anyhow::ensure!(line("failover")?.get("upstream_attempts") == Some(&2.into()), "{:?}", lines.get("failover"));
    for (name, has) in [("plain", false), ("stream", true), ("", true)] {
        anyhow::ensure!(line(name)?.get("tollgate.first_token_ms").is_some() == has, "{name:?}: {lines:?}");
    }

    // That of the attempt that was answered.
    for (name, provider) in
        [("plain", "openai"), ("failover", "openai"), ("", "openai"), ("stranger", ""), ("poor", "")]
    {
        anyhow::ensure!(text(line(name)?, PROVIDER) == provider, "{name:?}: {lines:?}");
    }

    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for name in ["plain", "stream", "failover", ""] {
        let line = line(name)?;
        let sum = sums.entry(text(line, "gen_ai.request.model").to_owned()).or_default();
        sum.0 += tokens(text(line, "gen_ai.usage.input_tokens"))?;
        sum.1 += tokens(text(line, "gen_ai.usage.output_tokens"))?;
    }
    anyhow::ensure!(sums == of_rows(&rows), "{sums:?} is not what the books say: {rows:?}");
    without_keys(&std::fs::read_to_string(&told.log)?)
}

/// No key of a client, in a header or a query, is in what is told.
fn without_keys(told: &str) -> anyhow::Result<()> {
    for key in [APP_KEY, WRONG_KEY, "the-key-in-a-query"] {
        anyhow::ensure!(!told.contains(key), "{key} is told");
    }
    Ok(())
}

async fn spans_say_what_each_request_was_and_used(shared: Arc<Shared>) -> anyhow::Result<()> {
    let told = Told::start(&shared, "spans_say_what_each_request_was_and_used").await?;
    told.ask_all().await?;
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let context = format!("00-{trace}-{parent}-01");
    let headers = [("user-agent", "traced"), ("traceparent", &*context)];
    told.tap.forget();
    told.gateway.client(APP_KEY).post_with(PATH, &headers, chat("smol", 8).to_string()).await?.expect(200)?;
    let lines = lines(&told.log, 7).await?;
    // Two requests were refused before any attempt, and one had two.
    let spans = told.collector.spans([(Kind::Server, 7), (Kind::Client, 6)]).await?;
    let span = |name: &str| {
        let mut of = spans.iter().filter(|span| span.kind == Kind::Server && span.attribute("user_agent") == name);
        of.next().with_context(|| format!("no span of {name:?} in {spans:?}"))
    };
    let attempts_of = |span: &Span| -> Vec<&Span> {
        spans.iter().filter(|other| other.kind == Kind::Client && other.parent == span.id).collect()
    };

    // What is known of a request before its end stands in its span as in its line.
    for name in ["plain", "stream", "failover", "stranger", "poor", "traced"] {
        let (span, line) = (span(name)?, lines.get(name).context("its line")?);
        for field in [
            "gen_ai.operation.name",
            "gen_ai.request.model",
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.output_tokens",
            "tollgate.usage.estimated",
            "tollgate.first_token_ms",
            "tollgate.consumer",
            "tollgate.route",
            "error.type",
        ] {
            anyhow::ensure!(span.attribute(field) == text(line, field), "{name}: {field} of {span:?} and {line}");
        }
        let operation = format!("POST {}", text(line, "tollgate.route"));
        anyhow::ensure!(span.trace == text(line, "trace_id") && span.name == operation, "{name}: {span:?} and {line}");
        anyhow::ensure!(span.attribute("http.url").ends_with(PATH), "{name}: {span:?}");
        let resource = ["service.name", "service.namespace"].map(|name| span.resource.get(name).map(String::as_str));
        anyhow::ensure!(resource == [Some("llm"), Some("default")], "{name}: {span:?}");
    }
    anyhow::ensure!(attempts_of(span("failover")?).len() == 2, "{spans:?}");
    anyhow::ensure!(attempts_of(span("stranger")?).is_empty(), "{spans:?}");

    // Each attempt says who was to answer it, and the request who did.
    for name in ["plain", "failover", "stranger", "poor"] {
        let (span, line) = (span(name)?, lines.get(name).context("its line")?);
        anyhow::ensure!(span.attribute(PROVIDER) == text(line, PROVIDER), "{name}: {span:?} and {line}");
    }
    let mut providers: Vec<&str> =
        attempts_of(span("failover")?).iter().map(|attempt| attempt.attribute(PROVIDER)).collect();
    providers.sort_unstable();
    anyhow::ensure!(providers == ["azure.ai.openai", "openai"], "{providers:?} in {spans:?}");

    // The trace of a client goes on, and the backend is given the attempt as its parent.
    let traced = span("traced")?;
    anyhow::ensure!((&*traced.trace, &*traced.parent) == (trace, parent), "{traced:?}");
    let [attempt] = attempts_of(traced)[..] else { anyhow::bail!("{spans:?}") };
    let seen = told.tap.settled().await?;
    let given = seen.first().and_then(|seen| seen.header("traceparent"));
    anyhow::ensure!(given == Some(&format!("00-{trace}-{}-01", attempt.id)), "{given:?} and {attempt:?}");

    // Whoever leaves is known before the end, and what it used is not. That one has no user agent.
    let left = span("-")?;
    anyhow::ensure!(left.attribute("tollgate.consumer") == "app", "{left:?}");
    let output = "gen_ai.usage.output_tokens";
    anyhow::ensure!(left.attribute(output).is_empty(), "{left:?}");
    // The attempt ends later.
    let line = lines.get("").context("its line")?;
    let [attempt] = attempts_of(left)[..] else { anyhow::bail!("{spans:?}") };
    anyhow::ensure!(
        attempt.attribute(output) == text(line, output) && !text(line, output).is_empty(),
        "{attempt:?} and {line}"
    );
    without_keys(&told.collector.everything()?)
}
