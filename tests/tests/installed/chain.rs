//! The whole way of a request to a model, set up by kubectl alone.

use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::{Value, json};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;

use crate::shop::{self, Answer};

e2e! {
    a_model_is_asked_by_kubectl_alone,
}

/// A Gateway, a pool of two runners behind it, and a budget for those who try it.
const OBJECTS: &str = include_str!("chain.yaml");

/// A budget of those who ask without a trial, so that the ledger is asked before and not only told afterwards.
pub const BUDGET: &str = "
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: chat, namespace: NAMESPACE}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: chat}]
  limits: [{name: daily, tokens: 10000000, window: 1d, scope: [Consumer]}]
";

/// A model that answers.
pub struct Chain {
    pub url: String,
    /// The key of a Consumer without a budget.
    pub research: String,
}

async fn a_model_is_asked_by_kubectl_alone(lab: Arc<Lab>) -> anyhow::Result<()> {
    let Chain { url, research } = chain(&lab, "chain", "").await?;
    let trial = lab.new_key("chain", "trial")?;

    let answer = chat(&lab, &url, "tg-nobody").await?;
    anyhow::ensure!(answer.status == 401 && answer.body.contains("invalid_api_key"), "{answer:?}");
    // The budget of the trial is soon used up.
    let refused = poll::within(PATIENCE, "the budget is used up", || async {
        let answer = chat_at(&lab, &url, &trial, "host: trial.example").await?;
        anyhow::ensure!(answer.status == 429, "{answer:?}");
        Ok(answer)
    })
    .await?;
    anyhow::ensure!(
        refused.body.contains("rate_limit_exceeded") && refused.head.contains("retry-after"),
        "{refused:?}"
    );
    poll::until("the policy has an Event that says so", || async {
        let about = "involvedObject.kind=TokenPolicy,involvedObject.name=trial";
        let events = ["-n", "chain", "get", "events", "--field-selector", about, "-o"];
        let text = "jsonpath={range .items[*]}{.reason}: {.message}{'\\n'}{end}";
        let events = lab.kubectl(&[&events[..], &[text]].concat()).await?.success()?.out;
        let is_it = |event: &str| {
            event.starts_with("BudgetNearlySpent: limit hourly of ") && event.contains("of 300 tokens are spent")
        };
        anyhow::ensure!(events.lines().any(is_it), "{events}");
        Ok(())
    })
    .await?;
    let answer = chat(&lab, &url, &research).await?;
    anyhow::ensure!(answer.status == 200, "another consumer's budget is used up as well: {answer:?}");

    // A runner goes, and nobody notices.
    let pods = lab.field(&["-n", "chain", "pods", "-l", "app=runner"], "{.items[*].metadata.name}").await?;
    let runner = pods.split(' ').next().context("there is no runner")?;
    lab.kubectl(&["-n", "chain", "delete", "pod", runner, "--wait=false"]).await?.success()?;
    for number in 0..10 {
        let answer = chat(&lab, &url, &research).await?;
        anyhow::ensure!(answer.status == 200, "request {number}: {answer:?}");
    }

    poll::until("what was used is in the books", || async {
        let used = [used(&lab, "chain", "research").await?, used(&lab, "chain", "trial").await?];
        anyhow::ensure!(used.into_iter().all(|tokens| tokens > 0), "{used:?}");
        Ok(())
    })
    .await?;
    // What kubectl shows of it.
    for (object, condition) in
        [("gateway/llm", "Programmed"), ("modelpool/chat", "Accepted"), ("consumer/trial", "Accepted")]
    {
        let wait = ["-n", "chain", "wait", &format!("--for=condition={condition}"), WAIT, object];
        lab.kubectl(&wait).await?.success()?;
    }
    // It is written to the minute.
    poll::within(PATIENCE, "the Consumer says what it spent", || async {
        // A run may pass midnight.
        let today = Timestamp::now().as_second() % 86_400;
        let since = format!("--since={}s", today.max(1));
        let spent = used_since(&lab, "chain", "research", &[&since]).await?.to_string();
        let row = lab.kubectl(&["-n", "chain", "get", "consumer", "research", "--no-headers"]).await?.success()?.out;
        anyhow::ensure!(row.split_whitespace().any(|cell| cell == spent), "not {spent}: {row}");
        Ok(())
    })
    .await?;
    let today = lab.field(&["-n", "chain", "consumer", "research"], "{.status.spentToday.date}").await?;
    anyhow::ensure!(today.len() == 10 && today.split('-').count() == 3, "not a date: {today}");
    Ok(())
}

/// Makes the objects, and more of them, and waits until the model answers.
pub async fn chain(lab: &Lab, namespace: &str, more: &str) -> anyhow::Result<Chain> {
    lab.apply(&format!("{OBJECTS}---{more}").replace("NAMESPACE", namespace)).await?;
    let research = lab.new_key(namespace, "research")?;
    let rollout = ["-n", namespace, "rollout", "status", "deployment/runner", WAIT];
    lab.kubectl(&rollout).await?.success()?;
    let address = shop::address(lab, namespace, "llm").await?;
    let url = format!("http://{address}/v1/chat/completions");
    poll::within(PATIENCE, "the model answers", || async {
        let answer = chat(lab, &url, &research).await?;
        anyhow::ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .await?;
    Ok(Chain { url, research })
}

/// The tokens of a consumer, as the books say it.
pub async fn used(lab: &Lab, namespace: &str, name: &str) -> anyhow::Result<u64> {
    used_since(lab, namespace, name, &[]).await
}

async fn used_since(lab: &Lab, namespace: &str, name: &str, since: &[&str]) -> anyhow::Result<u64> {
    let pod = ["-n", "tollgate-system", "exec", "deploy/tollgate", "--"];
    let usage = ["/usr/local/bin/tollgate", "usage", "-o", "json"];
    let output = lab.kubectl(&[&pod[..], &usage, since].concat()).await?.success()?;
    let rows: Value = serde_json::from_str(&output.out)?;
    let rows = rows.pointer("/rows").and_then(Value::as_array).into_iter().flatten();
    let own = rows.filter(|row| row.get("consumer") == Some(&json!(format!("{namespace}/{name}"))));
    let tokens = ["input_tokens", "output_tokens"];
    Ok(own.flat_map(|row| tokens.map(|tokens| row.get(tokens).and_then(Value::as_u64).unwrap_or(0))).sum())
}

fn question() -> String {
    json!({"model": "smol", "max_tokens": 8, "messages": [{"role": "user", "content": "What is a lighthouse?"}]})
        .to_string()
}

pub async fn chat(lab: &Lab, url: &str, key: &str) -> anyhow::Result<Answer> {
    chat_at(lab, url, key, "accept: */*").await
}

async fn chat_at(lab: &Lab, url: &str, key: &str, header: &str) -> anyhow::Result<Answer> {
    let authorization = format!("authorization: Bearer {key}");
    let body = question();
    let headers = ["-H", &authorization, "-H", header, "-H", "content-type: application/json"];
    shop::ask(lab, &[&[url, "-d", &body][..], &headers].concat()).await
}
