//! Requests that end without an answer: what a backend had is charged, whoever ended it, and what it never had or
//! answered with an error is free. docs/accounting.md has the whole table.

use std::sync::Arc;

use tokio::sync::Notify;
use tollgate_tests::admin::UsageRow;
use tollgate_tests::client::{Protocol, chat, chat_stream};
use tollgate_tests::config::{self, Target};
use tollgate_tests::process::ClosedPort;
use tollgate_tests::tap::Behaviour;

use crate::fixtures::{APP_KEY, Basic, models_with};
use crate::suite::{Shared, e2e};

e2e! {
    a_client_that_leaves_before_the_answer_pays_what_was_reserved,
    each_attempt_that_our_timeout_ended_is_charged,
    a_request_that_the_routes_timeout_ended_is_charged,
    a_backend_that_closes_without_an_answer_is_charged,
    what_no_backend_had_or_one_refused_is_free,
}

/// How long a backend may be silent where our timeout is to end that. It must have read the request by then, also on a slow
/// machine, or it has nothing to be paid for.
const SILENCE: &str = "3s";

/// The most output that the requests here ask for.
const MAX_OUTPUT: u32 = 40;

/// With two backends that are the same one, and this of the timeouts.
async fn start(shared: &Shared, test: &str, timeouts: &str, pair: bool) -> anyhow::Result<Basic> {
    Basic::start_with(shared, test, |setup, tap| {
        let single = [Target::new("runner")];
        let both = [Target::new("runner"), Target::new("second").priority(1)];
        let targets: &[Target<'_>] = if pair { &both } else { &single };
        let backend = |name: &str| config::backend(name, "OpenAI", tap.port(), timeouts);
        let pool = config::pool("Required", &[("smol", targets, None)]);
        setup
            .file("models.yaml", &config::documents(&[pool, backend("runner"), backend("second")]))?
            .file("budget.yaml", &config::budget(1_000_000, ""))
    })
    .await
}

/// What is charged is in the rows, estimated and not nothing.
async fn charged(basic: &Basic, requests: u64) -> anyhow::Result<Vec<UsageRow>> {
    let rows = basic.gateway.admin().usage_of("consumer=app", requests).await?;
    for row in &rows {
        anyhow::ensure!(row.estimated_requests > 0 && row.input_tokens > 0, "{row:?}");
    }
    let budgets = basic.gateway.admin().settled_budgets().await?;
    let spent: u64 = budgets.iter().map(|budget| budget.spent).sum();
    let told: u64 = rows.iter().map(|row| row.usage().total()).sum();
    anyhow::ensure!(spent == told, "{budgets:?} is not {rows:?}");
    Ok(rows)
}

async fn a_client_that_leaves_before_the_answer_pays_what_was_reserved(shared: Arc<Shared>) -> anyhow::Result<()> {
    let test = "a_client_that_leaves_before_the_answer_pays_what_was_reserved";
    let basic = start(&shared, test, "", false).await?;
    basic.tap.behave(Behaviour::ResetAfter(Arc::new(Notify::new())));
    let mut costs = Vec::new();
    for (requests, protocol) in [(1, Protocol::Http1), (2, Protocol::Http2)] {
        let before: u64 = costs.iter().sum();
        basic
            .client()
            .leave_unanswered(protocol, chat("smol", MAX_OUTPUT), || basic.tap.seen().len() == requests)
            .await?;
        let rows = charged(&basic, requests as u64).await?;
        costs.push(rows.iter().map(|row| row.usage().total()).sum::<u64>() - before);
    }
    let [one, other] = costs.as_slice() else { anyhow::bail!("{costs:?}") };
    anyhow::ensure!(*one > u64::from(MAX_OUTPUT), "input and what it asked for: {costs:?}");
    anyhow::ensure!(one == other, "the protocol makes no difference: {costs:?}");
    Ok(())
}

async fn each_attempt_that_our_timeout_ended_is_charged(shared: Arc<Shared>) -> anyhow::Result<()> {
    let test = "each_attempt_that_our_timeout_ended_is_charged";
    let basic = start(&shared, test, &format!("timeouts: {{firstToken: {SILENCE}}}"), true).await?;
    basic.tap.behave(Behaviour::ResetAfter(Arc::new(Notify::new())));
    basic.client().post("/v1/chat/completions", chat("smol", MAX_OUTPUT).to_string()).await?.expect(504)?;
    anyhow::ensure!(basic.tap.seen().len() == 2, "{} attempts", basic.tap.seen().len());
    let rows = charged(&basic, 1).await?;
    let mut told: Vec<_> = rows.iter().map(|row| (row.backend.as_str(), row.requests, row.output_tokens)).collect();
    told.sort_unstable();
    let each = u64::from(MAX_OUTPUT);
    anyhow::ensure!(told == [("runner", 0, each), ("second", 1, each)], "{rows:?}");
    Ok(())
}

async fn a_request_that_the_routes_timeout_ended_is_charged(shared: Arc<Shared>) -> anyhow::Result<()> {
    let test = "a_request_that_the_routes_timeout_ended_is_charged";
    let basic = Basic::start_with(&shared, test, |setup, _| {
        let entry = config::entry(setup.port());
        let bounded = entry.replace("backendRefs:", &format!("timeouts: {{request: {SILENCE}}}\n    backendRefs:"));
        anyhow::ensure!(bounded != entry, "the route has no rule to bound");
        setup.file("entry.yaml", &bounded)?.file("budget.yaml", &config::budget(1_000_000, ""))
    })
    .await?;
    basic.tap.behave(Behaviour::ResetAfter(Arc::new(Notify::new())));
    basic.client().post("/v1/chat/completions", chat_stream("smol", MAX_OUTPUT).to_string()).await?.expect(504)?;
    let rows = charged(&basic, 1).await?;
    anyhow::ensure!(rows.iter().all(|row| row.output_tokens == u64::from(MAX_OUTPUT)), "{rows:?}");
    Ok(())
}

async fn a_backend_that_closes_without_an_answer_is_charged(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = start(&shared, "a_backend_that_closes_without_an_answer_is_charged", "", true).await?;
    basic.tap.behave(Behaviour::Reset);
    basic.client().post("/v1/chat/completions", chat("smol", MAX_OUTPUT).to_string()).await?.expect(503)?;
    let attempts = basic.tap.seen().len() as u64;
    let rows = charged(&basic, 1).await?;
    let output: u64 = rows.iter().map(|row| row.output_tokens).sum();
    anyhow::ensure!(attempts == 2 && output == attempts * u64::from(MAX_OUTPUT), "{attempts} attempts, {rows:?}");
    Ok(())
}

async fn what_no_backend_had_or_one_refused_is_free(shared: Arc<Shared>) -> anyhow::Result<()> {
    let test = "what_no_backend_had_or_one_refused_is_free";
    let closed = ClosedPort::new()?;
    let basic = Basic::start_with(&shared, test, |setup, tap| {
        let models = models_with(
            tap,
            "Required",
            &[
                ("smol", &[Target::new("gone"), Target::new("runner").priority(1)], None),
                ("gone", &[Target::new("gone")], None),
            ],
        );
        let gone = config::backend("gone", "OpenAI", closed.port(), "");
        setup
            .file("models.yaml", &config::documents(&[models, gone]))?
            .file("budget.yaml", &config::budget(1_000_000, ""))
    })
    .await?;
    let client = basic.gateway.client(APP_KEY);
    client.chat("gone").await?.expect(503)?;
    let body = "{\"error\":{\"message\":\"busy\"}}".to_owned();
    basic.tap.behave(Behaviour::Status { code: 429, headers: Vec::new(), body });
    client.chat("smol").await?.expect(429)?;
    basic.tap.behave(Behaviour::Forward);
    basic.tap.forget();
    client.chat("smol").await?.expect(200)?;
    let rows = basic.gateway.admin().usage_of("consumer=app", 1).await?;
    let said: u64 = basic.tap.settled().await?.iter().filter_map(|seen| Some(seen.usage()?.total())).sum();
    let told: u64 = rows.iter().map(|row| row.usage().total()).sum();
    anyhow::ensure!(
        told == said && rows.iter().all(|row| row.estimated_requests == 0),
        "{rows:?} is not the one answer of {said}"
    );
    let budgets = basic.gateway.admin().settled_budgets().await?;
    anyhow::ensure!(budgets.iter().map(|budget| budget.spent).sum::<u64>() == said, "{budgets:?}");
    Ok(())
}
