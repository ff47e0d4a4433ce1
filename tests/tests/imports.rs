//! What `tollgate import` makes of another gateway's configuration, served.

use std::sync::Arc;

use anyhow::Context;
use serde_json::json;
use tollgate_tests::cli::tollgate;
use tollgate_tests::config::sha256_hex;
use tollgate_tests::process::ClosedPort;
use tollgate_tests::sdk::{self, Call};

use crate::fixtures::{APP_KEY, BACKEND_MODEL};
use crate::suite::{Shared, e2e};

e2e! {
    a_litellm_proxy_moves_with_its_keys,
}

const KEY_OF_ALICE: &str = "the-key-that-litellm-made-for-alice";

/// A model at two places, and one whose only place is dead and that falls back to it. The old master key and an old key of
/// the database ask for them by the OpenAI SDK.
async fn a_litellm_proxy_moves_with_its_keys(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (first, second) = (shared.tap().await?, shared.tap().await?);
    let gone = ClosedPort::new()?;
    let setup = shared.setup("a_litellm_proxy_moves_with_its_keys")?;
    let config = format!(
        "\
model_list:
  - model_name: smol
    litellm_params: {{model: openai/{BACKEND_MODEL}, api_base: \"http://127.0.0.1:{}/v1\", api_key: none}}
  - model_name: smol
    litellm_params: {{model: hosted_vllm/{BACKEND_MODEL}, api_base: \"http://127.0.0.1:{}/v1\"}}
  - model_name: doomed
    litellm_params: {{model: openai/doomed, api_base: \"http://127.0.0.1:{}/v1\", timeout: 30}}
litellm_settings:
  num_retries: 2
  fallbacks: [{{doomed: [smol]}}]
general_settings:
  master_key: {APP_KEY}
",
        first.port(),
        second.port(),
        gone.port(),
    );
    let keys = json!({"keys": [{"token": sha256_hex(KEY_OF_ALICE), "key_alias": "alice", "models": ["smol"]}]});
    let home = setup.folder().path().parent().context("a folder above")?.to_owned();
    let [config_path, keys_path] = [("litellm.yaml", config), ("keys.json", keys.to_string())].map(|(name, text)| {
        let path = home.join(name);
        std::fs::write(&path, text).map(|()| path.display().to_string())
    });
    let port = setup.port().to_string();
    let folder = setup.folder().path().display().to_string();
    let arguments = ["import", "litellm", &config_path?, "--keys", &keys_path?, "-o", &folder, "--port", &port];
    let imported = tollgate(&shared.tools, &arguments)?.success()?;
    anyhow::ensure!(!imported.all().contains(APP_KEY), "the master key is in {imported:?}");
    let again = tollgate(&shared.tools, &arguments)?;
    anyhow::ensure!(again.code == Some(2) && again.err.contains("is there already"), "{again:?}");

    let gateway = setup.start().await?;
    let calls: Vec<Call> = (0..16).map(|_| Call::chat(APP_KEY, "smol")).collect();
    for outcome in sdk::run(&shared.tools, &gateway.url(), 4, &calls).await? {
        outcome.ok()?;
    }
    let (at_first, at_second) = (first.settled().await?, second.settled().await?);
    anyhow::ensure!(at_first.len() + at_second.len() == 16, "{} and {}", at_first.len(), at_second.len());
    anyhow::ensure!(!at_first.is_empty() && !at_second.is_empty(), "one of both has all");
    for seen in at_first.iter().chain(&at_second) {
        anyhow::ensure!(seen.model().as_deref() == Some(BACKEND_MODEL), "{}", seen.everything());
        anyhow::ensure!(seen.header("authorization").is_none(), "a key that is none: {}", seen.everything());
    }

    let calls = [
        Call::chat(APP_KEY, "doomed"),
        Call::chat(APP_KEY, "doomed").stream(),
        Call::chat(KEY_OF_ALICE, "smol"),
        Call::chat(KEY_OF_ALICE, "doomed"),
        Call::chat("a-key-that-litellm-never-made", "smol"),
    ];
    let outcomes = sdk::run(&shared.tools, &gateway.url(), 1, &calls).await?;
    let statuses: Vec<Option<u64>> = outcomes.iter().map(sdk::Outcome::status).collect();
    anyhow::ensure!(statuses == [None, None, None, Some(403), Some(401)], "{statuses:?}");
    // LiteLLM serves the same paths without /v1.
    let body = tollgate_tests::client::chat("smol", 4).to_string();
    gateway.client(KEY_OF_ALICE).post("/chat/completions", body).await?.expect(200)?;
    let rows = gateway.admin().usage_of("consumer=alice", 2).await?;
    anyhow::ensure!(rows.iter().all(|row| row.model == "smol"), "{rows:?}");
    gateway.admin().usage_of("consumer=litellm-master", 18).await?;
    Ok(())
}
