//! Answers that do not come to their end are paid for all the same.

use std::sync::Arc;

use anyhow::Context;
use serde_json::json;
use tollgate_tests::client::{chat, chat_stream, long_stream};
use tollgate_tests::config;
use tollgate_tests::tap::Behaviour;

use crate::fixtures::Basic;
use crate::suite::{Shared, e2e};

e2e! {
    a_client_that_leaves_is_charged,
    a_backend_that_breaks_off_is_charged,
    a_backends_own_error_is_passed_on,
}

/// A client that leaves in the middle of a stream is charged by estimate, in rows and in the budget.
async fn a_client_that_leaves_is_charged(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start_with(&shared, "a_client_that_leaves_is_charged", |setup, _| {
        setup.file("budget.yaml", &config::budget(1_000_000, ""))
    })
    .await?;
    let body = long_stream("smol", 700).to_string();
    basic.client().leave("/v1/chat/completions", body, |seen| seen.matches("\"content\":").count() >= 10).await?;
    let rows = basic.gateway.admin().usage_of("consumer=app", 1).await?;
    let [row] = rows.as_slice() else { anyhow::bail!("{rows:?}") };
    anyhow::ensure!(row.estimated_requests == 1, "not marked: {row:?}");
    anyhow::ensure!(row.input_tokens > 0, "the input is free: {row:?}");
    // At least nine events with text came, of about one token each; the estimate is from bytes.
    anyhow::ensure!((3..700).contains(&row.output_tokens), "{row:?}");
    let budgets = basic.gateway.admin().settled_budgets().await?;
    let spent: u64 = budgets.iter().map(|budget| budget.spent).sum();
    anyhow::ensure!(spent == row.usage().total(), "{budgets:?} is not {row:?}");
    Ok(())
}

/// A backend that breaks off is charged what it said, or what is estimated from its bytes.
async fn a_backend_that_breaks_off_is_charged(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start(&shared, "a_backend_that_breaks_off_is_charged").await?;
    let client = basic.client();
    let event = |delta: serde_json::Value| {
        let chunk = json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]});
        format!("data: {chunk}\n\n")
    };
    let text: String = (0..12).map(|_| event(json!({"content": "some words "}))).collect();
    let usage = json!({
        "object": "chat.completion.chunk",
        "choices": [],
        "usage": {"prompt_tokens": 123, "completion_tokens": 45, "total_tokens": 168},
    });

    basic.tap.behave(Behaviour::BreakOff { events: text.clone() });
    let answer = client.post("/v1/chat/completions", chat_stream("smol", 50).to_string()).await?;
    anyhow::ensure!(!answer.complete, "the client must see that the answer broke off");
    anyhow::ensure!(answer.text() == text, "what came is passed on: {}", answer.text());
    let rows = basic.gateway.admin().usage_of("consumer=app", 1).await?;
    let row = rows.first().context("a row")?;
    anyhow::ensure!(row.estimated_requests == 1 && row.output_tokens > 0, "{row:?}");

    basic.tap.behave(Behaviour::BreakOff { events: format!("{text}data: {usage}\n\n") });
    client.post("/v1/chat/completions", chat_stream("smol", 50).to_string()).await?;
    let rows = basic.gateway.admin().usage_of("consumer=app", 2).await?;
    let now = rows.first().context("a row")?;
    anyhow::ensure!(now.estimated_requests == 1, "the second is exact: {now:?}");
    anyhow::ensure!(now.input_tokens - row.input_tokens == 123, "{row:?} then {now:?}");
    anyhow::ensure!(now.output_tokens - row.output_tokens == 45, "{row:?} then {now:?}");
    Ok(())
}

/// An error of the backend that is not retried reaches the client as it is and costs nothing made up.
async fn a_backends_own_error_is_passed_on(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start(&shared, "a_backends_own_error_is_passed_on").await?;
    let body = json!({"error": {"message": "no such tool", "type": "invalid_request_error",
        "param": "tools", "code": null}});
    basic.tap.behave(Behaviour::Status { code: 422, headers: Vec::new(), body: body.to_string() });
    let answer = basic.client().post("/v1/chat/completions", chat("smol", 8).to_string()).await?.expect(422)?;
    anyhow::ensure!(answer.json()? == body, "{}", answer.text());
    anyhow::ensure!(basic.tap.seen().len() == 1, "a 422 is not tried again");
    Ok(())
}
