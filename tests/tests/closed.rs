//! A policy with a mistake closes what it names, and a key counts only where its Consumer does.

use std::sync::Arc;

use serde_json::json;
use tollgate_tests::client::Client;
use tollgate_tests::config;
use tollgate_tests::poll;
use tollgate_tests::sdk::{self, Call};

use crate::fixtures::{APP_KEY, Basic};
use crate::suite::{Shared, e2e};

e2e! {
    a_policy_with_a_typo_closes_its_route,
    a_foreign_consumer_is_unknown,
}

const FOREIGN_KEY: &str = "the-key-of-mallory-in-another-namespace";

/// A typo at the first start answers 503, in the shape of each SDK, until it is mended; after that a typo changes
/// nothing, and neither does a restart with it.
async fn a_policy_with_a_typo_closes_its_route(shared: Arc<Shared>) -> anyhow::Result<()> {
    let good = config::budget(100_000, "");
    let typo = good.replace("3650d", "3650 dys");
    let mut basic = Basic::start_with(&shared, "a_policy_with_a_typo_closes_its_route", |setup, _| {
        setup.file("budget.yaml", &typo)
    })
    .await?;
    let calls = [
        Call::chat(APP_KEY, "smol"),
        Call::chat(APP_KEY, "smol").stream(),
        Call::new(
            "messages",
            APP_KEY,
            json!({"model": "smol", "max_tokens": 8, "messages": [{"role": "user", "content": "Say hello."}]}),
        ),
    ];
    for outcome in sdk::run(&shared.tools, &basic.gateway.url(), 1, &calls).await? {
        anyhow::ensure!(outcome.status() == Some(503) && outcome.raised("InternalServerError"), "{outcome}");
        let body = outcome.error_body().map(ToString::to_string).unwrap_or_default();
        anyhow::ensure!(body.contains("budget"), "it does not say which policy: {outcome}");
    }
    let answer = basic.client().chat("smol").await?.expect(503)?;
    anyhow::ensure!(answer.json()?.pointer("/error/code") == Some(&json!("policy_invalid")), "{}", answer.text());
    anyhow::ensure!(basic.tap.seen().is_empty(), "a closed route reached the backend");
    let told = |status: &serde_json::Value| {
        status["findings"].to_string().contains("HTTPRoute chat answers 503 policy_invalid")
    };
    basic.gateway.status_when("the status says which route is closed", told).await?;
    poll::until("the log says it, too", || async {
        anyhow::ensure!(basic.gateway.logs()?.contains("HTTPRoute chat answers 503 policy_invalid"), "not yet");
        Ok(())
    })
    .await?;

    basic.gateway.folder().write("budget.yaml", &good)?;
    answers(&basic.client(), 200).await?;
    let limit = limit(&basic.client()).await?;
    anyhow::ensure!(limit.as_deref() == Some("100000"), "the mended budget does not hold: {limit:?}");

    basic.gateway.folder().write("budget.yaml", &typo)?;
    let kept = |status: &serde_json::Value| status["findings"].to_string().contains("stays in force");
    basic.gateway.status_when("the last good version is told of", kept).await?;
    anyhow::ensure!(self::limit(&basic.client()).await? == limit, "a typo took the budget away");

    anyhow::ensure!(basic.gateway.process().stop().await?.success(), "it did not stop well");
    basic.gateway.restart().await?;
    anyhow::ensure!(self::limit(&basic.client()).await? == limit, "a restart took the budget away");
    Ok(())
}

/// A Consumer of another namespace is unknown to the pool, until the pool says that it takes it.
async fn a_foreign_consumer_is_unknown(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mallory =
        config::consumer("mallory", FOREIGN_KEY, "").replace("{name: mallory,", "{name: mallory, namespace: tenant-b,");
    let basic =
        Basic::start_with(&shared, "a_foreign_consumer_is_unknown", |setup, _| setup.file("mallory.yaml", &mallory))
            .await?;
    let client = basic.gateway.client(FOREIGN_KEY);
    client.chat("smol").await?.expect(401)?;
    basic.client().chat("smol").await?.expect(200)?;
    let models = crate::fixtures::models(&basic.tap);
    let open = models.replace("spec:\n  access:", "spec:\n  allowedConsumers: {namespaces: {from: All}}\n  access:");
    anyhow::ensure!(open != models, "the pool has another shape");
    basic.gateway.folder().write("models.yaml", &open)?;
    answers(&client, 200).await?;
    basic.gateway.admin().usage_of("consumer=tenant-b/mallory", 1).await?;
    basic.gateway.folder().write("models.yaml", &models)?;
    answers(&client, 401).await
}

async fn answers(client: &Client, status: u16) -> anyhow::Result<()> {
    poll::until(&format!("it answers {status}"), || async {
        client.chat("smol").await?.expect(status)?;
        Ok(())
    })
    .await
}

async fn limit(client: &Client) -> anyhow::Result<Option<String>> {
    let answer = client.chat("smol").await?.expect(200)?;
    Ok(answer.header("x-ratelimit-limit-tokens").map(str::to_owned))
}
