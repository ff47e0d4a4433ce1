//! What the filter makes of requests, through the real Envoy: what two servers could read differently is
//! refused before a backend sees it, and a client's key goes nowhere but to the filter.

use std::sync::Arc;

use anyhow::Context;
use serde_json::json;
use tollgate_tests::client::{self, Answer};
use tollgate_tests::config::{self, Target};
use tollgate_tests::gateway::Setup;
use tollgate_tests::tap::{Behaviour, Tap};
use tollgate_tests::{poll, process};

use crate::fixtures::{APP_KEY, BACKEND_MODEL, Basic, models_with};
use crate::suite::{Shared, e2e};

e2e! {
    a_request_means_one_thing_to_all,
    a_client_key_never_passes_a_plain_route,
    a_host_without_a_pool_has_no_filter,
}

const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=xYz");
const JSON: (&str, &str) = ("content-type", "application/json");
const CHAT: &str = "/v1/chat/completions";

/// A request as it is, with nothing added but the headers that HTTP needs.
async fn send(
    basic: &Basic,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> anyhow::Result<Answer> {
    let url = format!("{}{path}", basic.gateway.url());
    let mut request = reqwest::Client::new().request(method.parse()?, url).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Ok(Answer { status, headers, body: answer.bytes().await?.to_vec(), complete: true })
}

fn form(parts: &[(&str, &str)]) -> String {
    let parts: String = parts
        .iter()
        .map(|(head, value)| format!("--xYz\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n"))
        .collect();
    format!("{parts}--xYz--\r\n")
}

/// Forms, paths, content types and work whose usage never comes.
async fn a_request_means_one_thing_to_all(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start_with(&shared, "a_request_means_one_thing_to_all", |setup, tap| {
        let target: &[Target<'_>] = &[Target::new("runner").model(BACKEND_MODEL)];
        setup
            .file("models.yaml", &models_with(tap, "Required", &[("smol", target, None), ("org/name", target, None)]))?
            .file("budget.yaml", &config::budget(100_000, ""))
    })
    .await?;
    let usage = json!({"text": "hello", "usage": {"input_tokens": 3, "output_tokens": 2}});
    basic.tap.behave(Behaviour::Answer { content_type: "application/json", body: usage.to_string().into_bytes() });
    let bearer = format!("Bearer {APP_KEY}");
    let key = ("authorization", bearer.as_str());
    let good = form(&[("name=\"model\"", "smol"), ("name=\"file\"; filename=\"a.wav\"", "RIFF")]);
    let chat = r#"{"model":"smol","messages":[]}"#;
    let audio = "/v1/audio/transcriptions";

    let hostile = |head: &str| form(&[("name=\"model\"", "smol"), (head, "dear")]);
    let deep = format!(r#"{{"model":"smol","x":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    for (name, path, headers, body) in [
        ("text before the form", audio, &[FORM][..], format!("{{\"model\":\"dear\"}}\r\n{good}")),
        ("text after the form", audio, &[FORM], format!("{good}{good}")),
        ("a space before =", audio, &[FORM], hostile("name =\"model\"")),
        ("an extended name", audio, &[FORM], hostile("name*=utf-8''model")),
        ("a quoted pair", audio, &[FORM], hostile("name=\"mo\\del\"")),
        ("a folded line", audio, &[FORM], hostile("\r\n name=\"model\"")),
        ("a form where the API has none", CHAT, &[FORM], good.clone()),
        ("two content types", audio, &[FORM, JSON], good.clone()),
        ("a URL-encoded form", CHAT, &[("content-type", "application/x-www-form-urlencoded")], chat.to_owned()),
        ("an escaped slash", "/v1/chat%2fcompletions", &[JSON], chat.to_owned()),
        ("an escaped way out", "/v1/..%2f..%2fadmin", &[JSON], chat.to_owned()),
        ("an escaped backslash", "/v1/chat%5ccompletions", &[JSON], chat.to_owned()),
        ("a semicolon", "/v1/chat/completions;v=1", &[JSON], chat.to_owned()),
        ("an escaped escape", "/v1/chat%252fcompletions", &[JSON], chat.to_owned()),
        ("a thousand levels", CHAT, &[JSON], deep),
        ("a control character", CHAT, &[JSON], r#"{"model":"smol\u001b[2J"}"#.to_owned()),
        ("background", "/v1/responses", &[JSON], r#"{"model":"smol","input":"a","background":true}"#.to_owned()),
        ("a batch", "/v1/batches", &[JSON], chat.to_owned()),
    ] {
        let answer = send(&basic, "POST", path, &[&[key], headers].concat(), body).await?;
        let answer = answer.expect(400).context(name)?.json()?;
        anyhow::ensure!(answer.pointer("/error/code") == Some(&json!("invalid_request_error")), "{name}: {answer}");
    }
    let upgrade = [key, ("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    let answer = send(&basic, "GET", "/v1/realtime?model=smol", &upgrade, "").await?;
    anyhow::ensure!((400..500).contains(&answer.status), "a websocket: {}", answer.status);
    anyhow::ensure!(basic.tap.seen().is_empty(), "one reached the backend: {:?}", basic.tap.seen());

    let one = send(&basic, "GET", "/v1/models/org%2Fname", &[key], "").await?.expect(200)?.json()?;
    anyhow::ensure!(one.get("id") == Some(&json!("org/name")), "{one}");

    // What is taken arrives as it was sent, but for what makes it the backend's own.
    let gzip = [key, JSON, ("accept-encoding", "gzip"), ("accept-encoding", "br")];
    send(&basic, "POST", "/v1/chat/complet%69ons", &gzip, chat).await?.expect(200)?;
    send(&basic, "POST", CHAT, &[key], chat).await?.expect(200)?;
    send(&basic, "POST", audio, &[key, FORM], good).await?.expect(200)?;
    let seen = basic.tap.settled().await?;
    let [escaped, untyped, audio] = seen.as_slice() else { anyhow::bail!("{} requests: {seen:?}", seen.len()) };
    // Envoy itself writes plainly what needs no escape.
    anyhow::ensure!(escaped.target == CHAT, "{}", escaped.target);
    for seen in [escaped, untyped, audio] {
        let encodings: Vec<_> = seen.headers.iter().filter(|(name, _)| name == "accept-encoding").collect();
        anyhow::ensure!(encodings.len() == 1 && seen.header("accept-encoding") == Some("identity"), "{encodings:?}");
    }
    anyhow::ensure!(untyped.header("content-type") == Some("application/json"), "{untyped:?}");
    anyhow::ensure!(String::from_utf8_lossy(&audio.body).contains(BACKEND_MODEL), "{}", audio.everything());
    Ok(())
}

/// An application beside the models gets its own clients' keys and none of the gateway's.
async fn a_client_key_never_passes_a_plain_route(shared: Arc<Shared>) -> anyhow::Result<()> {
    let app = Tap::start(shared.llm.url()).await?;
    let basic = Basic::start_with(&shared, "a_client_key_never_passes_a_plain_route", |setup, _| {
        setup.file("app-route.yaml", &plain(app.port()))
    })
    .await?;
    app.behave(Behaviour::Answer { content_type: "text/plain", body: b"hello".to_vec() });
    let bearer = format!("Bearer {APP_KEY}");
    for (headers, passed) in [
        (&[("authorization", bearer.as_str()), ("x-api-key", "the-apps-own-key")][..], &["x-api-key"][..]),
        (&[("authorization", "Bearer the-apps-own-key"), ("api-key", APP_KEY)], &["authorization"]),
        (&[("authorization", "Basic dXNlcjpwYXNz"), ("x-api-key", APP_KEY)], &["authorization"]),
    ] {
        app.forget();
        send(&basic, "GET", "/app", headers, "").await?.expect(200)?;
        let [seen] = &app.settled().await?[..] else { anyhow::bail!("not one request") };
        anyhow::ensure!(!seen.everything().contains(APP_KEY), "{}", seen.everything());
        for (name, value) in headers {
            let expected = passed.contains(name).then_some(*value);
            anyhow::ensure!(seen.header(name) == expected, "{name}: {}", seen.everything());
        }
    }
    Ok(())
}

/// Two listeners of one Gateway, and an application on both. The models are on the first one alone. What a client sends to
/// the other one arrives as it is, even a key of this gateway: the filter would have taken that away.
async fn a_host_without_a_pool_has_no_filter(shared: Arc<Shared>) -> anyhow::Result<()> {
    let app = Tap::start(shared.llm.url()).await?;
    app.behave(Behaviour::Answer { content_type: "text/plain", body: b"hello".to_vec() });
    let second = process::free_port()?;
    let with_models = |setup: &Setup, on: &str| {
        let both = format!("  listeners:\n  - {{name: plain, port: {second}, protocol: HTTP}}\n");
        let entry = config::entry(setup.port()).replace("  listeners:\n", &both);
        entry.replace("  - {name: llm}\n", &format!("  - {{name: llm{on}}}\n"))
    };
    let mut everywhere = String::new();
    let basic = Basic::start_with(&shared, "a_host_without_a_pool_has_no_filter", |setup, _| {
        everywhere = with_models(&setup, "");
        let entry = with_models(&setup, ", sectionName: http");
        setup.file("entry.yaml", &entry)?.file("app-route.yaml", &plain(app.port()))
    })
    .await?;
    let (first, second) = (basic.gateway.port(), second);
    let passes = async |port: u16| -> anyhow::Result<bool> {
        app.forget();
        let url = format!("http://127.0.0.1:{port}/app");
        let answer = client::direct().get(url).header("x-api-key", APP_KEY).send().await?;
        anyhow::ensure!(answer.status() == 200, "{}", answer.status());
        let [seen] = &app.settled().await?[..] else { anyhow::bail!("not one request") };
        Ok(seen.header("x-api-key") == Some(APP_KEY))
    };
    anyhow::ensure!(!passes(first).await?, "the filter is off beside a pool");
    anyhow::ensure!(passes(second).await?, "the filter is on where there is no pool");
    basic.client().chat("smol").await?.expect(200)?;
    basic.gateway.without_key().chat("smol").await?.expect(401)?;

    basic.gateway.folder().write("entry.yaml", &everywhere)?;
    poll::until("the filter is on where a pool came", || async {
        anyhow::ensure!(!passes(second).await?, "the key passes");
        Ok(())
    })
    .await
}

/// An HTTPRoute from /app to a Service of one endpoint.
fn plain(port: u16) -> String {
    const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app}
spec:
  parentRefs:
  - {name: llm}
  rules:
  - matches:
    - path: {type: PathPrefix, value: /app}
    backendRefs:
    - {name: app, port: 80}
";
    config::documents(&[ROUTE.to_owned(), config::service(port)])
}
