//! The operator's accounts at providers: whose credential reaches whom, and what clients can tell of them.

use std::sync::Arc;

use anyhow::Context;
use serde_json::json;
use tokio::sync::Notify;
use tollgate_tests::client::chat;
use tollgate_tests::config::{self, Target};
use tollgate_tests::poll;
use tollgate_tests::tap::{Behaviour, Tap};

use crate::fixtures::APP_KEY;
use crate::suite::{Shared, e2e};

e2e! {
    an_edited_pool_sends_nobody_anothers_key,
    a_providers_account_stays_behind,
}

const KEY_AT_FIRST: &str = "the-credential-at-first";
const KEY_AT_SECOND: &str = "the-credential-at-second";

/// The second attempt is made after an edit that left its cluster without our filter, so only Envoy itself can
/// take the first provider's key out of the headers that the first attempt left.
pub async fn an_edited_pool_sends_nobody_anothers_key(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (first, second) = (shared.tap().await?, shared.tap().await?);
    let setup = shared.setup("an_edited_pool_sends_nobody_anothers_key")?;
    let entry = config::entry(setup.port());
    let both = [Target::new("first").model("at-first"), Target::new("second").model("at-second").priority(1)];
    let models = |targets: &[Target<'_>], retries| {
        config::documents(&[
            config::pool("Required", &[("smol", targets, Some(retries))]),
            config::backend("first", "OpenAI", first.port(), "credential: {secretRef: {name: at-first}}"),
            // Its credential stands in another header, so putting it in does not take the other one's place.
            config::backend("second", "AzureOpenAI", second.port(), "credential: {secretRef: {name: at-second}}"),
            config::secret("at-first", KEY_AT_FIRST),
            config::secret("at-second", KEY_AT_SECOND),
        ])
    };
    let gateway = setup
        .file("entry.yaml", &entry)?
        .file("models.yaml", &models(&both, 1))?
        .file("app.yaml", &config::consumer("app", APP_KEY, ""))?
        .start()
        .await?;
    let edited = Arc::new(Notify::new());
    first.behave(Behaviour::ResetAfter(Arc::clone(&edited)));
    let client = gateway.client(APP_KEY);
    let request = tokio::spawn(async move { client.chat("smol").await });
    poll::until("the first attempt runs", || async { first.seen().pop().context("not yet") }).await?;

    let envoy = gateway.envoy()?;
    // A cluster whose attempts are rewritten has another name than one without: the old one goes.
    let changes = || envoy.stat("cluster_manager.cluster_removed");
    let before = changes()?;
    gateway.folder().write("models.yaml", &models(&both[1..], 0))?;
    poll::until("Envoy has the edited clusters", || async {
        anyhow::ensure!(changes()? > before, "not yet");
        Ok(())
    })
    .await?;
    edited.notify_one();
    let _whatever_it_came_to = request.await?;

    let at_first = only(&first)?;
    let authorization = format!("Bearer {KEY_AT_FIRST}");
    anyhow::ensure!(at_first.header("authorization") == Some(authorization.as_str()), "{}", at_first.everything());
    // The attempt was made out for a cluster that is gone: with its path and model it goes nowhere else.
    anyhow::ensure!(second.seen().is_empty(), "{}", only(&second)?.everything());
    // What comes now is the second's own; the model behind it speaks another dialect, which is of no matter here.
    gateway.client(APP_KEY).chat("smol").await?;
    let there = only(&second)?.everything();
    anyhow::ensure!(!there.contains(KEY_AT_FIRST) && !there.contains(APP_KEY), "another's key in\n{there}");
    anyhow::ensure!(only(&second)?.header("api-key") == Some(KEY_AT_SECOND), "{there}");
    Ok(())
}

/// Clients neither choose within an account nor learn whose it is; a runner of one's own keeps what it says.
pub async fn a_providers_account_stays_behind(shared: Arc<Shared>) -> anyhow::Result<()> {
    const OF_ACCOUNT: [&str; 3] = ["openai-organization", "openai-project", "cookie"];
    let (provider, runner) = (shared.tap().await?, shared.tap().await?);
    let setup = shared.setup("a_providers_account_stays_behind")?;
    let entry = config::entry(setup.port());
    let gateway = setup
        .file("entry.yaml", &entry)?
        .file(
            "models.yaml",
            &config::documents(&[
                config::pool(
                    "Required",
                    &[
                        ("bought", &[Target::new("provider")], Some(0)),
                        ("bought-twice", &[Target::new("provider"), Target::new("provider").priority(1)], None),
                        ("own", &[Target::new("runner")], Some(0)),
                    ],
                ),
                config::backend("provider", "OpenAI", provider.port(), "credential: {secretRef: {name: at-first}}"),
                config::backend("runner", "OpenAI", runner.port(), ""),
                config::secret("at-first", KEY_AT_FIRST),
            ]),
        )?
        .file("app.yaml", &config::consumer("app", APP_KEY, ""))?
        .file("budget.yaml", &config::budget(1_000_000, ""))?
        .start()
        .await?;
    for tap in [&provider, &runner] {
        tap.behave(answer_of_an_account());
    }
    let client = gateway.client(APP_KEY);
    for (model, tap, has_account) in
        [("bought", &provider, true), ("bought-twice", &provider, true), ("own", &runner, false)]
    {
        tap.forget();
        let headers = OF_ACCOUNT.map(|name| (name, "of-the-client"));
        let answer =
            client.post_with("/v1/chat/completions", &headers, chat(model, 4).to_string()).await?.expect(200)?;
        let seen = only(tap)?;
        for name in OF_ACCOUNT {
            anyhow::ensure!(seen.header(name).is_none() == has_account, "{name} in\n{}", seen.everything());
        }
        for name in ["openai-organization", "openai-project", "anthropic-organization-id", "set-cookie"] {
            anyhow::ensure!(answer.header(name).is_none() == has_account, "{name} in {:?}", answer.headers);
        }
        // Only this gateway speaks of limits, and says what this client has left, not what the account has.
        let text = format!("{:?}", answer.headers);
        anyhow::ensure!(!text.contains("of-the-account") || !has_account, "{text}");
        for name in ["x-ratelimit-remaining-requests", "anthropic-ratelimit-tokens-remaining"] {
            anyhow::ensure!(answer.header(name).is_none(), "{name} in {text}");
        }
        anyhow::ensure!(answer.header("x-ratelimit-limit-tokens") == Some("1000000"), "{text}");
        anyhow::ensure!(answer.header("server") == Some("tollgate"), "{text}");
        // What belongs to the answer stays.
        anyhow::ensure!(answer.header("x-request-id-of-backend") == Some("kept"), "{text}");
    }
    Ok(())
}

fn answer_of_an_account() -> Behaviour {
    let of_account = [
        "openai-organization",
        "openai-project",
        "anthropic-organization-id",
        "set-cookie",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-requests",
        "anthropic-ratelimit-tokens-remaining",
        "server",
    ];
    let mut headers: Vec<_> = of_account.map(|name| (name, "of-the-account".to_owned())).into();
    headers.push(("x-request-id-of-backend", "kept".to_owned()));
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
    Behaviour::Status { code: 200, headers, body: json!({"choices": [], "usage": usage}).to_string() }
}

fn only(tap: &Tap) -> anyhow::Result<tollgate_tests::tap::Seen> {
    let mut seen = tap.seen();
    anyhow::ensure!(seen.len() == 1, "{} requests instead of one", seen.len());
    seen.pop().context("a request")
}
