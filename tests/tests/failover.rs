//! Which backend a request goes to, and what each attempt carries.

use std::sync::Arc;

use anyhow::Context;
use serde_json::json;
use tokio::sync::Notify;
use tollgate_tests::client::{chat, chat_stream};
use tollgate_tests::config::{self, Target};
use tollgate_tests::poll;
use tollgate_tests::process::ClosedPort;
use tollgate_tests::sdk::{self, Call};
use tollgate_tests::tap::{Behaviour, Seen, Tap};

use crate::fixtures::{APP_KEY, Basic};
use crate::suite::{Shared, e2e};

e2e! {
    each_attempt_is_its_backends_own,
    anthropic_credentials_go_in_x_api_key,
    weights_share_requests,
    retries_end_in_503,
    a_pool_without_retries_makes_one_attempt,
    the_pods_of_an_inference_pool_serve_while_they_are_ready,
}

const CREDENTIAL_OF_GONE: &str = "the-credential-of-gone";
const CREDENTIAL_OF_LIMITED: &str = "the-credential-of-limited";
const CREDENTIAL_OF_LAST: &str = "the-credential-of-last";

fn too_many() -> Behaviour {
    Behaviour::Status {
        code: 429,
        headers: vec![("retry-after", "7".to_owned())],
        body: json!({"error": {"message": "slow down", "type": "x", "param": null, "code": "y"}}).to_string(),
    }
}

fn credential(name: &str) -> String {
    format!("credential: {{secretRef: {{name: {name}}}}}")
}

/// A dead port, then a backend that answers 429, then one that works: each attempt has its own
/// model name, path, authority and credential, and nothing of the attempts before.
async fn each_attempt_is_its_backends_own(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (limited, last, open) = (shared.tap().await?, shared.tap().await?, shared.tap().await?);
    let gone = ClosedPort::new()?;
    let setup = shared.setup("each_attempt_is_its_backends_own")?;
    let entry = config::entry(setup.port());
    let chain = |end: &'static str| {
        [
            Target::new("gone").model("model-at-gone"),
            Target::new("limited").model("model-at-limited").priority(1),
            Target::new(end).model("model-at-the-end").priority(2),
        ]
    };
    let gateway = setup
        .file("entry.yaml", &entry)?
        .file(
            "models.yaml",
            &config::documents(&[
                config::pool(
                    "Required",
                    &[
                        ("to-last", &chain("last"), Some(2)),
                        // The last backend has no credential: the one before must not get there.
                        ("to-open", &chain("open"), Some(2)),
                    ],
                ),
                config::backend("gone", "OpenAI", gone.port(), &credential("gone-key")),
                config::backend(
                    "limited",
                    "OpenAI",
                    limited.port(),
                    &format!("pathPrefix: /limited/v1\n{}", credential("limited-key")),
                ),
                config::backend("last", "OpenAI", last.port(), &credential("last-key")),
                config::backend("open", "OpenAI", open.port(), ""),
                config::secret("gone-key", CREDENTIAL_OF_GONE),
                config::secret("limited-key", CREDENTIAL_OF_LIMITED),
                config::secret("last-key", CREDENTIAL_OF_LAST),
            ]),
        )?
        .file("app.yaml", &config::consumer("app", APP_KEY, ""))?
        .start()
        .await?;
    limited.behave(too_many());

    let mut requests = 0;
    for (model, end, authorization) in
        [("to-last", &last, Some(format!("Bearer {CREDENTIAL_OF_LAST}"))), ("to-open", &open, None)]
    {
        for body in [chat(model, 4), chat_stream(model, 4)] {
            limited.forget();
            end.forget();
            let answer = gateway
                .client(APP_KEY)
                .post("/v1/chat/completions?trace=1", body.to_string())
                .await?
                .expect(200)
                .with_context(|| format!("{body}"))?;
            anyhow::ensure!(answer.complete && answer.text().contains("choices"), "{}", answer.text());
            requests += 1;

            let at_limited = only(&limited).await?;
            expect(
                &at_limited,
                "/limited/v1/chat/completions?trace=1",
                "model-at-limited",
                Some(format!("Bearer {CREDENTIAL_OF_LIMITED}")).as_deref(),
                limited.port(),
            )?;
            let at_end = only(end).await?;
            let path = "/v1/chat/completions?trace=1";
            expect(&at_end, path, "model-at-the-end", authorization.as_deref(), end.port())?;
            for other in [CREDENTIAL_OF_GONE, CREDENTIAL_OF_LIMITED, "limited", APP_KEY] {
                let there = at_end.everything();
                anyhow::ensure!(!there.contains(other), "{other} of an earlier attempt in\n{there}");
            }
        }
    }
    let rows = gateway.admin().usage_of("consumer=app", requests).await?;
    let backends: Vec<&str> = rows.iter().map(|row| row.backend.as_str()).collect();
    anyhow::ensure!(backends.iter().all(|name| ["last", "open"].contains(name)), "{rows:?}");
    anyhow::ensure!(rows.iter().all(|row| row.estimated_requests == 0), "{rows:?}");
    Ok(())
}

async fn only(tap: &Tap) -> anyhow::Result<Seen> {
    let mut seen = tap.settled().await?;
    anyhow::ensure!(seen.len() == 1, "{} requests instead of one", seen.len());
    seen.pop().context("a request")
}

fn expect(seen: &Seen, target: &str, model: &str, authorization: Option<&str>, port: u16) -> anyhow::Result<()> {
    let there = seen.everything();
    anyhow::ensure!(seen.target == target, "not {target}: {there}");
    anyhow::ensure!(seen.model().as_deref() == Some(model), "not {model}: {there}");
    anyhow::ensure!(seen.header("authorization") == authorization, "authorization: {there}");
    let host = seen.header("host").unwrap_or_default();
    anyhow::ensure!(host == format!("127.0.0.1:{port}") || host == "127.0.0.1", "host: {there}");
    for name in ["x-api-key", "api-key"] {
        anyhow::ensure!(seen.header(name).is_none(), "{name}: {there}");
    }
    anyhow::ensure!(!there.contains("x-tollgate"), "{there}");
    Ok(())
}

/// Anthropic's way of credentials, and the failover between two of its backends.
async fn anthropic_credentials_go_in_x_api_key(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (first, second) = (shared.tap().await?, shared.tap().await?);
    let setup = shared.setup("anthropic_credentials_go_in_x_api_key")?;
    let entry = config::entry(setup.port());
    let targets = [Target::new("first").model("a"), Target::new("second").model("b").priority(1)];
    let gateway = setup
        .file("entry.yaml", &entry)?
        .file(
            "models.yaml",
            &config::documents(&[
                config::pool("Required", &[("claude", &targets, None)]),
                config::backend("first", "Anthropic", first.port(), &credential("first-key")),
                config::backend("second", "Anthropic", second.port(), &credential("second-key")),
                config::secret("first-key", CREDENTIAL_OF_LIMITED),
                config::secret("second-key", CREDENTIAL_OF_LAST),
            ]),
        )?
        .file("app.yaml", &config::consumer("app", APP_KEY, ""))?
        .start()
        .await?;
    first.behave(Behaviour::Status {
        code: 529,
        headers: Vec::new(),
        body: json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}).to_string(),
    });
    let message = json!({
        "model": "claude",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 5,
    });
    let calls = [Call::new("messages", APP_KEY, message.clone()), Call::new("messages", APP_KEY, message).stream()];
    for outcome in sdk::run(&shared.tools, &gateway.url(), 1, &calls).await? {
        outcome.ok()?;
    }
    for (tap, model, key) in [(&first, "a", CREDENTIAL_OF_LIMITED), (&second, "b", CREDENTIAL_OF_LAST)] {
        let seen = tap.settled().await?;
        anyhow::ensure!(seen.len() == 2, "{} requests", seen.len());
        for seen in seen {
            let there = seen.everything();
            anyhow::ensure!(seen.header("x-api-key") == Some(key), "{there}");
            anyhow::ensure!(seen.header("authorization").is_none(), "{there}");
            anyhow::ensure!(seen.header("anthropic-version").is_some(), "{there}");
            anyhow::ensure!(seen.model().as_deref() == Some(model), "{there}");
            anyhow::ensure!(!there.contains(APP_KEY), "{there}");
        }
    }
    Ok(())
}

/// Weights share the requests of one priority, weight 0 takes none.
async fn weights_share_requests(shared: Arc<Shared>) -> anyhow::Result<()> {
    const REQUESTS: usize = 60;
    let (heavy, light, none) = (shared.tap().await?, shared.tap().await?, shared.tap().await?);
    let setup = shared.setup("weights_share_requests")?;
    let entry = config::entry(setup.port());
    let targets = [Target::new("heavy").weight(3), Target::new("light"), Target::new("none").weight(0)];
    let gateway = setup
        .file("entry.yaml", &entry)?
        .file(
            "models.yaml",
            &config::documents(&[
                config::pool("Required", &[("smol", &targets, None)]),
                config::backend("heavy", "OpenAI", heavy.port(), ""),
                config::backend("light", "OpenAI", light.port(), ""),
                config::backend("none", "OpenAI", none.port(), ""),
            ]),
        )?
        .file("app.yaml", &config::consumer("app", APP_KEY, ""))?
        .start()
        .await?;
    let client = gateway.client(APP_KEY);
    for _ in 0..REQUESTS {
        client.post("/v1/chat/completions", chat("smol", 1).to_string()).await?.expect(200)?;
    }
    let (heavy, light, none) = (heavy.seen().len(), light.seen().len(), none.seen().len());
    anyhow::ensure!(heavy + light == REQUESTS && none == 0, "{heavy}, {light}, {none}");
    // 45 of 60 expected, with a standard deviation of 3.4: six of them are left.
    anyhow::ensure!((25..60).contains(&heavy), "{heavy} to {light} is not 3 to 1");
    Ok(())
}

/// One backend is tried again as often as its model says; when nothing works the client gets 503.
async fn retries_end_in_503(shared: Arc<Shared>) -> anyhow::Result<()> {
    let tap = shared.tap().await?;
    let gone = [ClosedPort::new()?, ClosedPort::new()?];
    let setup = shared.setup("retries_end_in_503")?;
    let entry = config::entry(setup.port());
    let gateway = setup
        .file("entry.yaml", &entry)?
        .file(
            "models.yaml",
            &config::documents(&[
                config::pool(
                    "Required",
                    &[
                        ("stubborn", &[Target::new("runner")], Some(2)),
                        ("gone", &[Target::new("gone-a"), Target::new("gone-b").priority(1)], None),
                    ],
                ),
                config::backend("runner", "OpenAI", tap.port(), ""),
                config::backend("gone-a", "OpenAI", gone[0].port(), ""),
                config::backend("gone-b", "OpenAI", gone[1].port(), ""),
            ]),
        )?
        .file("app.yaml", &config::consumer("app", APP_KEY, ""))?
        .start()
        .await?;
    let client = gateway.client(APP_KEY);

    tap.behave(Behaviour::Reset);
    let answer = client.chat("stubborn").await?.expect(503)?;
    anyhow::ensure!(tap.seen().len() == 3, "{} attempts", tap.seen().len());
    for answer in [answer, client.chat("gone").await?.expect(503)?] {
        let code = answer.json()?.pointer("/error/code").cloned();
        anyhow::ensure!(code == Some(json!("backend_unavailable")), "{}", answer.text());
    }

    // It works again: so does the model.
    tap.behave(Behaviour::Forward);
    client.chat("stubborn").await?.expect(200)?;
    Ok(())
}

/// Its route has no retry policy at all, and the bound of the attempt is there all the same.
async fn a_pool_without_retries_makes_one_attempt(shared: Arc<Shared>) -> anyhow::Result<()> {
    let test = "a_pool_without_retries_makes_one_attempt";
    let basic = Basic::start_with(&shared, test, |setup, tap| {
        let models = config::pool(
            "Required",
            &[
                ("one", &[Target::new("runner")], Some(0)),
                ("pair", &[Target::new("runner"), Target::new("second").priority(1)], Some(0)),
            ],
        );
        // Silence is to end by it, and no answer that is on its way on a slow machine.
        let backend = |name: &str| config::backend(name, "OpenAI", tap.port(), "timeouts: {firstToken: 3s}");
        setup.file("models.yaml", &config::documents(&[models, backend("runner"), backend("second")]))
    })
    .await?;
    let client = basic.client();
    let answer = |code| Behaviour::Status { code, headers: Vec::new(), body: "{}".to_owned() };
    let silence = || Behaviour::ResetAfter(Arc::new(Notify::new()));
    for model in ["one", "pair"] {
        for (behaviour, status) in [(Behaviour::Reset, 503), (answer(429), 429), (silence(), 504), (answer(200), 200)] {
            basic.tap.behave(behaviour);
            basic.tap.forget();
            client.chat(model).await?.expect(status)?;
            anyhow::ensure!(basic.tap.seen().len() == 1, "{model}, {status}: {} attempts", basic.tap.seen().len());
        }
    }
    Ok(())
}

/// Whether the one Pod of the InferencePool is ready, and the ModelBackend whose endpoints they are.
fn pods(port: u16, is_ready: bool) -> String {
    let ready = if is_ready { "True" } else { "False" };
    format!(
        "\
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {{name: pods}}
spec: {{schema: OpenAI, endpoint: {{inferencePool: {{name: runners}}}}}}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: runners}}
spec: {{selector: {{matchLabels: {{app: runner}}}}, targetPorts: [{{number: {port}}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: runner-1, labels: {{app: runner}}}}
status: {{podIP: 127.0.0.1, conditions: [{{type: Ready, status: '{ready}'}}]}}
"
    )
}

async fn the_pods_of_an_inference_pool_serve_while_they_are_ready(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (pod, spare) = (shared.tap().await?, shared.tap().await?);
    let setup = shared.setup("the_pods_of_an_inference_pool")?;
    let entry = config::entry(setup.port());
    let targets = [Target::new("pods"), Target::new("spare").priority(1)];
    let gateway = setup
        .file("entry.yaml", &entry)?
        .file(
            "models.yaml",
            &config::documents(&[
                config::pool("Required", &[("smol", &targets, None)]),
                config::backend("spare", "OpenAI", spare.port(), ""),
            ]),
        )?
        .file("pods.yaml", &pods(pod.port(), false))?
        .file("app.yaml", &config::consumer("app", APP_KEY, ""))?
        .start()
        .await?;
    let client = gateway.client(APP_KEY);
    for (is_ready, served, other) in [(false, &spare, &pod), (true, &pod, &spare), (false, &spare, &pod)] {
        gateway.folder().write("pods.yaml", &pods(pod.port(), is_ready))?;
        poll::until("the requests go to who is ready", || async {
            for tap in [&pod, &spare] {
                tap.forget();
            }
            client.chat("smol").await?.expect(200)?;
            anyhow::ensure!(served.seen().len() == 1 && other.seen().is_empty(), "ready: {is_ready}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
