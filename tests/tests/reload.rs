//! Changes of files act under traffic, drop nothing and drain nothing; a broken file changes nothing.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_tests::client::{Traffic, chat, chat_stream};
use tollgate_tests::config::{self, Target};
use tollgate_tests::gateway::RunningGateway;
use tollgate_tests::poll;
use tollgate_tests::tap::{Behaviour, Tap};

use crate::fixtures::{APP_KEY, Drains};
use crate::suite::{Shared, e2e};

e2e! {
    changes_act_without_a_drop,
    a_policy_comes_and_goes_without_a_drop,
    a_broken_file_changes_nothing,
}

const NEW_KEY: &str = "the-key-of-the-consumer-new";

/// A new key, a removed key, changed weights and a changed credential.
async fn changes_act_without_a_drop(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (first, second) = (shared.tap().await?, shared.tap().await?);
    let gateway = start(&shared, "changes_act_without_a_drop", &first, &second).await?;
    let before = Drains::of(&gateway.envoy()?)?;
    let bodies = [chat("smol", 2), chat_stream("smol", 2)];
    let traffic = Traffic::start(&gateway.client(APP_KEY), "/v1/chat/completions", &bodies);
    traffic.more(4).await?;

    gateway.folder().write("new.yaml", &config::consumer("new", NEW_KEY, ""))?;
    answers(&gateway, NEW_KEY, 200).await?;
    gateway.folder().write("new.yaml", &config::consumer("new", NEW_KEY, "models: [other]"))?;
    answers(&gateway, NEW_KEY, 403).await?;
    gateway.folder().remove("new.yaml")?;
    answers(&gateway, NEW_KEY, 401).await?;

    anyhow::ensure!(second.seen().is_empty(), "weight 0 takes none");
    gateway.folder().write("models.yaml", &models(&first, &second, (0, 1), "first-credential"))?;
    poll::until("requests go to the other backend only", || async {
        first.forget();
        second.forget();
        traffic.more(6).await?;
        anyhow::ensure!(first.seen().is_empty() && !second.seen().is_empty(), "not yet");
        Ok(())
    })
    .await?;

    gateway.folder().write("models.yaml", &models(&first, &second, (0, 1), "second-credential"))?;
    poll::until("the new credential is sent", || async {
        second.forget();
        traffic.more(4).await?;
        let seen = second.seen();
        let sent = |seen: &tollgate_tests::tap::Seen| seen.header("authorization") == Some("Bearer second-credential");
        anyhow::ensure!(!seen.is_empty() && seen.iter().all(sent), "not yet");
        Ok(())
    })
    .await?;

    traffic.more(4).await?;
    all_well(traffic).await?;
    anyhow::ensure!(Drains::of(&gateway.envoy()?)? == before, "a listener was changed or drained");
    Ok(())
}

/// A policy gives a route another class. The filter hears of it first, and the route names the old class until the next
/// message.
async fn a_policy_comes_and_goes_without_a_drop(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (tap, other) = (shared.tap().await?, shared.tap().await?);
    let gateway = start(&shared, "a_policy_comes_and_goes_without_a_drop", &tap, &other).await?;
    let usage = json!({"usage": {"prompt_tokens": 3, "completion_tokens": 2}});
    tap.behave(Behaviour::Answer { content_type: "application/json", body: usage.to_string().into_bytes() });
    let client = gateway.client(APP_KEY);
    let traffic = Traffic::start(&client, "/v1/chat/completions", &vec![chat("smol", 2); 8]);
    traffic.more(8).await?;
    let is_limited = |limited: bool| {
        let client = client.clone();
        poll::until("the policy acts, or no more", move || {
            let client = client.clone();
            async move {
                let answer = client.chat("smol").await?.expect(200)?;
                anyhow::ensure!(
                    answer.headers.contains_key("x-ratelimit-limit-tokens") == limited,
                    "{limited}: not yet"
                );
                Ok(())
            }
        })
    };
    for round in 0..10 {
        // Each policy has another name, so each is a new budget to the workers and to the ledger.
        let budget = config::budget(1_000_000, "").replace("name: budget", &format!("name: budget-{round}"));
        gateway.folder().write("budget.yaml", &budget)?;
        is_limited(true).await?;
        gateway.folder().remove("budget.yaml")?;
        is_limited(false).await?;
    }
    all_well(traffic).await
}

/// YAML that is broken, and an object that is wrong: said precisely, and nothing else changes.
async fn a_broken_file_changes_nothing(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (first, second) = (shared.tap().await?, shared.tap().await?);
    let gateway = start(&shared, "a_broken_file_changes_nothing", &first, &second).await?;
    let before = Drains::of(&gateway.envoy()?)?;
    let bodies = [chat("smol", 2), chat_stream("smol", 2)];
    let traffic = Traffic::start(&gateway.client(APP_KEY), "/v1/chat/completions", &bodies);
    traffic.more(4).await?;

    // The file with the only pool becomes unreadable in its line 3.
    gateway
        .folder()
        .write("models.yaml", "apiVersion: tollgate.dev/v1alpha1\nkind: ModelPool\nmetadata: {name: [chat\n")?;
    let finding = finding_about(&gateway, "models.yaml").await?;
    anyhow::ensure!(line_of(&finding).is_some_and(|line| (3..=4).contains(&line)), "{finding}");
    traffic.more(10).await?;

    // Readable, but wrong in one field.
    let wrong = models(&first, &second, (1, 0), "first-credential").replace("weight: 0", "weight: many");
    let line = wrong.lines().position(|line| line.contains("many")).map(|line| line as u64 + 1);
    gateway.folder().write("models.yaml", &wrong)?;
    let finding = poll::until("the wrong field is reported", || async {
        let finding = finding_about(&gateway, "models.yaml").await?;
        let field = finding.get("field").and_then(Value::as_str).unwrap_or_default();
        anyhow::ensure!(field.contains("weight"), "{finding}");
        Ok(finding)
    })
    .await?;
    anyhow::ensure!(line_of(&finding) == line, "not line {line:?}: {finding}");
    let text = |name: &str| finding.get(name).and_then(Value::as_str).unwrap_or_default();
    anyhow::ensure!(!text("message").is_empty() && !text("hint").is_empty(), "{finding}");
    traffic.more(10).await?;

    // A correct file takes over again.
    gateway.folder().write("models.yaml", &models(&first, &second, (0, 1), "first-credential"))?;
    poll::until("the corrected file acts", || async {
        second.forget();
        traffic.more(4).await?;
        anyhow::ensure!(!second.seen().is_empty(), "not yet");
        Ok(())
    })
    .await?;
    gateway
        .status_when("no findings are left", |status| {
            status.get("findings").and_then(Value::as_array).is_some_and(Vec::is_empty)
        })
        .await?;
    all_well(traffic).await?;
    anyhow::ensure!(Drains::of(&gateway.envoy()?)? == before, "a listener was changed or drained");
    Ok(())
}

fn models(first: &Tap, second: &Tap, weights: (u32, u32), credential: &str) -> String {
    let targets = [Target::new("first").weight(weights.0), Target::new("second").weight(weights.1)];
    let reference = "credential: {secretRef: {name: credential}}";
    config::documents(&[
        config::pool("Required", &[("smol", &targets, None)]),
        config::backend("first", "OpenAI", first.port(), reference),
        config::backend("second", "OpenAI", second.port(), reference),
        config::secret("credential", credential),
    ])
}

async fn start(shared: &Shared, test: &str, first: &Tap, second: &Tap) -> anyhow::Result<RunningGateway> {
    let setup = shared.setup(test)?;
    let entry = config::entry(setup.port());
    setup
        .file("entry.yaml", &entry)?
        .file("models.yaml", &models(first, second, (1, 0), "first-credential"))?
        .file("app.yaml", &config::consumer("app", APP_KEY, ""))?
        .start()
        .await
}

async fn answers(gateway: &RunningGateway, key: &str, status: u16) -> anyhow::Result<()> {
    let client = gateway.client(key);
    poll::until(&format!("this key gets {status}"), || async {
        client.chat("smol").await?.expect(status)?;
        Ok(())
    })
    .await
}

/// The first finding about this file.
async fn finding_about(gateway: &RunningGateway, file: &str) -> anyhow::Result<Value> {
    let about = |finding: &&Value| {
        let name = finding.pointer("/spot/file").and_then(Value::as_str);
        name.is_some_and(|name| name.ends_with(file))
    };
    let find = |status: &Value| status.get("findings").and_then(Value::as_array)?.iter().find(about).cloned();
    let status = gateway.status_when("a finding about the file", |status| find(status).is_some()).await?;
    find(&status).ok_or_else(|| anyhow::anyhow!("{status}"))
}

fn line_of(finding: &Value) -> Option<u64> {
    finding.pointer("/spot/line").and_then(Value::as_u64)
}

async fn all_well(traffic: Traffic) -> anyhow::Result<()> {
    for answer in traffic.stop().await? {
        let answer = answer.map_err(|error| anyhow::anyhow!("a dropped request: {error}"))?;
        anyhow::ensure!(answer.complete, "an answer broke off");
        answer.expect(200)?;
    }
    Ok(())
}
