//! How usage is learnt from answers of every shape, and that no way of leaving one makes it free.

use std::sync::Arc;

use anyhow::Context;
use futures::StreamExt;
use serde_json::{Value, json};
use tollgate_tests::admin::UsageRow;
use tollgate_tests::client::{chat, chat_stream, direct};
use tollgate_tests::config;
use tollgate_tests::tap::Behaviour;

use crate::fixtures::{APP_KEY, Basic};
use crate::suite::{Shared, e2e};

e2e! {
    a_client_that_leaves_before_the_usage_pays_for_its_text,
    usage_in_the_first_event_is_not_the_end,
    usage_without_numbers_is_estimated,
    a_last_event_of_megabytes_is_counted,
    slow_readers_of_large_answers_are_all_counted,
}

const CHAT: &str = "/v1/chat/completions";
const EVENTS: &str = "text/event-stream";

async fn limited(shared: &Shared, test: &str, tokens: u64) -> anyhow::Result<Basic> {
    Basic::start_with(shared, test, |setup, _| setup.file("budget.yaml", &config::budget(tokens, ""))).await
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn text(content: &str) -> String {
    event(&json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": content}}]}))
}

fn usage(input: u64, output: u64) -> Value {
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

/// The one row of the consumer after so many requests.
async fn row(basic: &Basic, requests: u64) -> anyhow::Result<UsageRow> {
    let rows = basic.gateway.admin().usage_of("consumer=app", requests).await?;
    rows.into_iter().next().context("a row")
}

/// A client takes all text that it can get and leaves; what it got it pays for, and the last text it never got.
async fn a_client_that_leaves_before_the_usage_pays_for_its_text(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = limited(&shared, "a_client_that_leaves_before_the_usage_pays_for_its_text", 1_000_000).await?;
    let words = 400;
    let events: String = (0..words).map(|_| text("word ")).chain([text("the end")]).collect();
    basic.tap.behave(Behaviour::Hang { content_type: EVENTS, body: events.into_bytes() });
    let body = chat_stream("smol", 2000).to_string();
    let seen = basic.client().leave(CHAT, body, |seen| seen.matches("word ").count() == words).await?;
    anyhow::ensure!(!seen.contains("the end"), "the last text came before its usage");
    let row = row(&basic, 1).await?;
    anyhow::ensure!(row.estimated_requests == 1 && row.output_tokens >= words as u64, "{row:?}");
    let spent: u64 = basic.gateway.admin().settled_budgets().await?.iter().map(|budget| budget.spent).sum();
    anyhow::ensure!(spent == row.usage().total(), "{spent} is not {row:?}");
    Ok(())
}

/// A backend says some usage at once, the client leaves after 500 words.
async fn usage_in_the_first_event_is_not_the_end(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = limited(&shared, "usage_in_the_first_event_is_not_the_end", 1_000_000).await?;
    let first = event(&json!({"choices": [{"index": 0, "delta": {"role": "assistant"}}], "usage": usage(11, 0)}));
    let events: String = [first].into_iter().chain((0..500).map(|_| text("word "))).collect();
    basic.tap.behave(Behaviour::Hang { content_type: EVENTS, body: events.into_bytes() });
    let body = chat_stream("smol", 2000).to_string();
    basic.client().leave(CHAT, body, |seen| seen.matches("word ").count() >= 450).await?;
    let row = row(&basic, 1).await?;
    anyhow::ensure!(row.estimated_requests == 1, "taken for exact: {row:?}");
    anyhow::ensure!(row.input_tokens == 11 && row.output_tokens >= 450, "{row:?}");
    Ok(())
}

/// What says no numbers is no usage: the request is estimated and not free.
async fn usage_without_numbers_is_estimated(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = limited(&shared, "usage_without_numbers_is_estimated", 1_000_000).await?;
    let client = basic.client();
    let message = json!([{"index": 0, "message": {"role": "assistant", "content": "word ".repeat(200)}}]);
    let odd = [
        json!({}),
        json!({"type": "duration", "seconds": 600}),
        json!({"prompt_tokens": "5", "completion_tokens": "6"}),
        json!({"prompt_tokens": -5, "completion_tokens": null}),
    ];
    let mut before = 0;
    for (number, usage) in (1..).zip(odd) {
        let answer = json!({"object": "chat.completion", "choices": message, "usage": usage});
        basic.tap.behave(Behaviour::Answer { content_type: "application/json", body: answer.to_string().into_bytes() });
        client.post(CHAT, chat("smol", 500).to_string()).await?.expect(200)?;
        let row = row(&basic, number).await?;
        anyhow::ensure!(row.estimated_requests == number, "{usage} counts as exact: {row:?}");
        anyhow::ensure!(row.input_tokens > 0 && row.output_tokens >= before + 200, "{usage} is free: {row:?}");
        before = row.output_tokens;
    }
    Ok(())
}

/// The last event of the Responses API repeats the whole answer, and has the usage.
async fn a_last_event_of_megabytes_is_counted(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = limited(&shared, "a_last_event_of_megabytes_is_counted", 10_000_000).await?;
    let answer = "a word or two, ".repeat(100_000);
    let delta = event(&json!({"type": "response.output_text.delta", "delta": "a word or two, "}));
    let completed = event(&json!({"type": "response.completed", "response": {
        "object": "response",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": answer}]}],
        "usage": {"input_tokens": 40, "output_tokens": 256_200, "total_tokens": 256_240},
    }}));
    anyhow::ensure!(completed.len() > 1 << 20);
    let events = [delta, completed].concat();
    basic.tap.behave(Behaviour::Answer { content_type: EVENTS, body: events.clone().into_bytes() });
    let body = json!({"model": "smol", "input": "Say much.", "stream": true}).to_string();
    let got = basic.client().post("/v1/responses", body).await?.expect(200)?;
    anyhow::ensure!(got.complete && got.text() == events, "not what the backend sent");
    let row = row(&basic, 1).await?;
    anyhow::ensure!((row.input_tokens, row.output_tokens) == (40, 256_200), "{row:?}");
    anyhow::ensure!(row.estimated_requests == 0, "{row:?}");
    Ok(())
}

/// Many clients read an answer of 7 MB slowly, all at once: each is counted, and the worker goes on.
async fn slow_readers_of_large_answers_are_all_counted(shared: Arc<Shared>) -> anyhow::Result<()> {
    const READERS: u64 = 150;
    let basic = limited(&shared, "slow_readers_of_large_answers_are_all_counted", 100_000_000).await?;
    let content = "a word or two, ".repeat(7_000_000 / 15);
    let answer = json!({"choices": [{"index": 0, "message": {"content": content}}], "usage": usage(40, 256_200)});
    let answer = answer.to_string();
    let length = answer.len();
    basic.tap.behave(Behaviour::Large { content_type: "application/json", body: answer.into() });
    let http = direct();
    let url = format!("{}{CHAT}", basic.gateway.url());
    let readers = (0..READERS).map(|_| async {
        let request = http.post(&url).bearer_auth(APP_KEY).header("content-type", "application/json");
        let answer = request.body(chat("smol", 8).to_string()).send().await?;
        anyhow::ensure!(answer.status() == 200, "{}", answer.status());
        let mut stream = answer.bytes_stream();
        let mut read = 0;
        while let Some(chunk) = stream.next().await {
            read += chunk?.len();
            // All of them are under way before the first is done.
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        anyhow::ensure!(read == length, "{read} of {length} bytes");
        Ok(())
    });
    futures::future::try_join_all(readers).await?;
    let row = row(&basic, READERS).await?;
    anyhow::ensure!(row.requests == READERS && row.estimated_requests == 0, "{row:?}");
    anyhow::ensure!((row.input_tokens, row.output_tokens) == (40 * READERS, 256_200 * READERS), "{row:?}");
    Ok(())
}
