//! What goes well: every API's answer arrives as the backend gave it, and its usage is counted exactly.

use std::sync::Arc;

use anyhow::Context;
use serde_json::{Value, json};
use tollgate_tests::config::{self, Target};
use tollgate_tests::sdk::{self, Call};
use tollgate_tests::usage::Usage;

use crate::fixtures::{APP_KEY, BACKEND_MODEL, Basic, models_with};
use crate::suite::{Shared, e2e};

e2e! {
    every_api_is_answered_and_counted,
    usage_is_forced_and_taken_out_again,
    the_model_list_is_the_consumers_own,
    anonymous_access_is_counted,
}

/// One call by a consumer of its own, so that its usage is a row of its own.
struct Case {
    consumer: &'static str,
    path: &'static str,
    call: Call,
}

/// Plain and streaming, through the official SDKs: the answer has text, the backend read its own
/// model's name, and the usage row equals the usage in the answer.
async fn every_api_is_answered_and_counted(shared: Arc<Shared>) -> anyhow::Result<()> {
    let cases = cases();
    let basic = Basic::start_with(&shared, "every_api_is_answered_and_counted", |setup, tap| {
        let keys: Vec<String> =
            cases.iter().map(|case| config::consumer(case.consumer, &key(case.consumer), "")).collect();
        let models = models_with(
            tap,
            "Required",
            &[
                ("smol", &[Target::new("runner").model(BACKEND_MODEL)], None),
                ("claude", &[Target::new("anthropic").model(BACKEND_MODEL)], None),
            ],
        );
        setup
            .file("keys.yaml", &config::documents(&keys))?
            .file("models.yaml", &models)?
            .file("anthropic.yaml", &config::backend("anthropic", "Anthropic", tap.port(), ""))
    })
    .await?;

    let calls: Vec<Call> = cases.iter().map(|case| case.call.clone()).collect();
    let outcomes = sdk::run(&shared.tools, &basic.gateway.url(), 1, &calls).await?;
    let seen = basic.tap.settled().await?;
    anyhow::ensure!(seen.len() == cases.len(), "{} requests at the backend", seen.len());
    for ((case, outcome), seen) in cases.iter().zip(&outcomes).zip(&seen) {
        let name = case.consumer;
        outcome.ok().context(name)?;
        anyhow::ensure!(seen.target == case.path, "{name}: {} at the backend", seen.target);
        anyhow::ensure!(seen.model().as_deref() == Some(BACKEND_MODEL), "{name}: {:?}", seen.model());
        if name == "count-tokens" {
            continue;
        }
        let said = seen.usage().with_context(|| format!("{name}: the backend gave no usage"))?;
        let rows = basic.gateway.admin().usage_of(&format!("consumer={name}"), 1).await?;
        let [row] = rows.as_slice() else { anyhow::bail!("{name}: {rows:?}") };
        anyhow::ensure!(row.usage() == said, "{name}: counted {row:?}, but the answer says {said:?}");
        anyhow::ensure!(row.estimated_requests == 0 && row.route == "chat", "{name}: {row:?}");
        if !["chat-stream", "completions-stream"].contains(&name) {
            anyhow::ensure!(outcome.usage() == Some(said), "{name}: the client saw {:?}", outcome.usage());
        }
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    // The same words each time: when an answer begins with half a character, this model's server leaves out the
    // event in which the Anthropic API says the input.
    let chat = |consumer: &str| Call::chat(&key(consumer), "smol").with("temperature", json!(0));
    let call = |consumer: &str, api, params: Value| Call::new(api, &key(consumer), params);
    let completion = json!({"model": "smol", "prompt": "Once upon", "max_tokens": 6, "temperature": 0});
    let response = json!({"model": "smol", "input": "Say hello.", "max_output_tokens": 6, "temperature": 0});
    let message = json!({
        "model": "claude",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 6,
        "extra_body": {"temperature": 0},
    });
    let count = json!({"model": "claude", "messages": [{"role": "user", "content": "Say hello."}]});
    let options = json!({"include_usage": true});
    let case = |consumer, path, call| Case { consumer, path, call };
    vec![
        case("chat", "/v1/chat/completions", chat("chat")),
        case("chat-stream", "/v1/chat/completions", chat("chat-stream").stream()),
        case(
            "chat-stream-usage",
            "/v1/chat/completions",
            chat("chat-stream-usage").stream().with("stream_options", options.clone()),
        ),
        case("completions", "/v1/completions", call("completions", "completions", completion.clone())),
        case("completions-stream", "/v1/completions", call("completions-stream", "completions", completion).stream()),
        case("responses", "/v1/responses", call("responses", "responses", response.clone())),
        case("responses-stream", "/v1/responses", call("responses-stream", "responses", response).stream()),
        case(
            "embeddings",
            "/v1/embeddings",
            call("embeddings", "embeddings", json!({"model": "smol", "input": "hello"})),
        ),
        case("messages", "/v1/messages", call("messages", "messages", message.clone())),
        case("messages-stream", "/v1/messages", call("messages-stream", "messages", message).stream()),
        case("count-tokens", "/v1/messages/count_tokens", call("count-tokens", "count_tokens", count)),
    ]
}

fn key(consumer: &str) -> String {
    format!("the-key-of-{consumer}")
}

/// The usage of a stream is always asked for at the backend, and its event reaches only the client
/// that asked for it; otherwise both get what the backend gave, byte by byte.
async fn usage_is_forced_and_taken_out_again(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start(&shared, "usage_is_forced_and_taken_out_again").await?;
    let body = |options: Option<Value>| {
        let mut body = tollgate_tests::client::long_stream("smol", 5);
        if let (Value::Object(fields), Some(options)) = (&mut body, options) {
            fields.insert("stream_options".to_owned(), options);
        }
        body.to_string()
    };
    let client = basic.client();
    for (options, asked) in [
        (None, false),
        (Some(json!({"include_usage": false})), false),
        (Some(json!(null)), false),
        (Some(json!({"include_usage": true})), true),
    ] {
        basic.tap.forget();
        let answer = client.post("/v1/chat/completions", body(options.clone())).await?.expect(200)?;
        let seen = basic.tap.settled().await?;
        let [seen] = seen.as_slice() else { anyhow::bail!("{} requests", seen.len()) };
        let forced = seen.json()?.pointer("/stream_options/include_usage").cloned();
        anyhow::ensure!(forced == Some(Value::Bool(true)), "{options:?}: the backend read {forced:?}");
        let given = String::from_utf8_lossy(&seen.answer).into_owned();
        let usage_event = given
            .split_inclusive("\n\n")
            .find(|event| event.contains("\"usage\""))
            .context("the backend gave no usage")?;
        let expected = if asked { given.clone() } else { given.replace(usage_event, "") };
        anyhow::ensure!(
            answer.text() == expected,
            "{options:?}: the client got\n{}\ninstead of\n{expected}",
            answer.text()
        );
        anyhow::ensure!(answer.complete, "the stream did not end well");
    }
    let rows = basic.gateway.admin().usage_of("consumer=app", 4).await?;
    let counted: Usage = rows.iter().map(|row| row.usage()).sum();
    anyhow::ensure!(counted.output == 20, "{rows:?}");
    Ok(())
}

/// GET /v1/models lists what this consumer may use, in OpenAI's shape.
async fn the_model_list_is_the_consumers_own(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start_with(&shared, "the_model_list_is_the_consumers_own", |setup, tap| {
        let runner = [Target::new("runner")];
        let models: [(&str, &[Target<'_>], _); 3] =
            [("smol", &runner, None), ("gpt-4o", &runner, None), ("gpt-5", &runner, None)];
        setup
            .file("models.yaml", &models_with(tap, "Required", &models))?
            .file("some.yaml", &config::consumer("some", "the-key-of-some", "models: [\"gpt-*\"]"))
    })
    .await?;
    let calls = [Call::new("models", APP_KEY, json!({})), Call::new("models", "the-key-of-some", json!({}))];
    let outcomes = sdk::run(&shared.tools, &basic.gateway.url(), 1, &calls).await?;
    for (outcome, expected) in outcomes.iter().zip([&["gpt-4o", "gpt-5", "smol"][..], &["gpt-4o", "gpt-5"]]) {
        let data = outcome.answer()?.get("data").and_then(Value::as_array).context("no data")?;
        let mut names: Vec<&str> = data.iter().filter_map(|model| model.get("id")?.as_str()).collect();
        names.sort_unstable();
        anyhow::ensure!(names == expected, "{names:?}");
        anyhow::ensure!(
            data.iter().all(|model| model.get("object") == Some(&json!("model"))
                && model.get("created").is_some_and(|created| created.as_i64() >= Some(0))),
            "{data:?}"
        );
    }
    anyhow::ensure!(basic.tap.seen().is_empty(), "the list needs no backend");
    Ok(())
}

/// Anonymous access needs no key and counts for `anonymous`; a Consumer's key counts for it even so.
async fn anonymous_access_is_counted(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start_with(&shared, "anonymous_access_is_counted", |setup, tap| {
        let runner = [Target::new("runner")];
        setup.file("models.yaml", &models_with(tap, "Anonymous", &[("smol", &runner, None)]))
    })
    .await?;
    basic.gateway.without_key().chat("smol").await?.expect(200)?;
    let rows = basic.gateway.admin().usage_of("consumer=anonymous", 1).await?;
    let seen = basic.tap.settled().await?;
    let said: Usage = seen.iter().filter_map(|seen| seen.usage()).sum();
    anyhow::ensure!(rows.iter().map(|row| row.usage()).sum::<Usage>() == said, "{rows:?}");
    Ok(())
}
