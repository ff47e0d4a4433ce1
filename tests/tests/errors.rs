//! What a client sees when it is refused: bodies in the shape of its API, so that the official SDKs
//! raise their own exceptions.

use std::sync::Arc;

use anyhow::Context;
use serde_json::{Value, json};
use tollgate_tests::config::{self, Target};
use tollgate_tests::process::ClosedPort;
use tollgate_tests::sdk::{self, Call, Outcome};

use crate::fixtures::{APP_KEY, BACKEND_MODEL, Basic, models_with};
use crate::suite::{Shared, e2e};

e2e! {
    the_sdks_raise_their_own_exceptions,
    ambiguous_bodies_are_refused,
}

const POOR_KEY: &str = "the-key-of-the-consumer-poor";
const NARROW_KEY: &str = "the-key-of-the-consumer-narrow";

/// One refusal, as both SDKs see it.
struct Case {
    name: &'static str,
    key: &'static str,
    model: Value,
    /// Bytes of the prompt.
    prompt: usize,
    status: u64,
    /// The exception's class, in both SDKs.
    class: &'static str,
    /// OpenAI's `code`, or its `type` where there is no code.
    code: &'static str,
    /// Anthropic's `type`.
    kind: &'static str,
}

/// 401, 403, 404, 400, 413, 429 and 503 through both SDKs.
async fn the_sdks_raise_their_own_exceptions(shared: Arc<Shared>) -> anyhow::Result<()> {
    let dead = ClosedPort::new()?;
    let basic = Basic::start_with(&shared, "the_sdks_raise_their_own_exceptions", |setup, tap| {
        let models: [(&str, &[Target<'_>], _); 2] =
            [("smol", &[Target::new("runner").model(BACKEND_MODEL)], None), ("gone", &[Target::new("gone")], Some(1))];
        setup
            .file("models.yaml", &models_with(tap, "Required", &models))?
            .file("gone.yaml", &config::backend("gone", "OpenAI", dead.port(), ""))?
            .file("poor.yaml", &config::consumer("poor", POOR_KEY, ""))?
            .file("narrow.yaml", &config::consumer("narrow", NARROW_KEY, "models: [gone]"))?
            .file("budget.yaml", &config::budget(60, ""))
    })
    .await?;
    // Two answers of about 40 tokens use the poor consumer's budget up.
    for requests in 1..=2 {
        basic.gateway.client(POOR_KEY).chat("smol").await?.expect(200)?;
        basic.gateway.admin().usage_of("consumer=poor", requests).await?;
    }
    basic.tap.settled().await?;
    let before = basic.tap.seen().len();

    let cases = cases();
    let calls: Vec<Call> = cases.iter().flat_map(|case| [case.openai(), case.anthropic()]).collect();
    let outcomes = sdk::run(&shared.tools, &basic.gateway.url(), 1, &calls).await?;
    for (case, pair) in cases.iter().zip(outcomes.chunks(2)) {
        let [openai, anthropic] = pair else { anyhow::bail!("an outcome is missing") };
        case.check_openai(openai).with_context(|| format!("{}, OpenAI: {openai}", case.name))?;
        case.check_anthropic(anthropic).with_context(|| format!("{}, Anthropic: {anthropic}", case.name))?;
    }
    anyhow::ensure!(basic.tap.seen().len() == before, "a refused request reached the backend");
    Ok(())
}

fn cases() -> Vec<Case> {
    let case = |name, key, model: &str, status, class, code, kind| Case {
        name,
        key,
        model: json!(model),
        prompt: 10,
        status,
        class,
        code,
        kind,
    };
    let smol = |name, key, status, class, code, kind| case(name, key, "smol", status, class, code, kind);
    vec![
        smol("a wrong key", "no-such-key", 401, "AuthenticationError", "invalid_api_key", "authentication_error"),
        smol("a model not allowed", NARROW_KEY, 403, "PermissionDeniedError", "model_not_allowed", "permission_error"),
        case("an unknown model", APP_KEY, "no-such-model", 404, "NotFoundError", "model_not_found", "not_found_error"),
        Case {
            model: Value::Null,
            ..smol("no model", APP_KEY, 400, "BadRequestError", "invalid_request_error", "invalid_request_error")
        },
        Case {
            prompt: 40 << 20,
            ..smol("a huge body", APP_KEY, 413, "APIStatusError", "request_too_large", "request_too_large")
        },
        smol("no tokens left", POOR_KEY, 429, "RateLimitError", "rate_limit_exceeded", "rate_limit_error"),
        case("no backend", NARROW_KEY, "gone", 503, "InternalServerError", "backend_unavailable", "api_error"),
    ]
}

// === impl Case ===

impl Case {
    fn call(&self, api: &'static str) -> Call {
        let content = "x".repeat(self.prompt);
        Call::new(
            api,
            self.key,
            json!({
                "model": "smol",
                "messages": [{"role": "user", "content": content}],
                "max_tokens": 4,
                // The SDKs insist on a model; this is what they send in the end.
                "extra_body": {"model": self.model},
            }),
        )
    }

    fn openai(&self) -> Call {
        self.call("chat")
    }

    fn anthropic(&self) -> Call {
        self.call("messages")
    }

    fn check(&self, outcome: &Outcome) -> anyhow::Result<()> {
        anyhow::ensure!(outcome.status() == Some(self.status), "not {}", self.status);
        anyhow::ensure!(outcome.raised(self.class), "not a {}", self.class);
        let json = outcome.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        anyhow::ensure!(json, "not JSON");
        if self.status == 429 {
            let seconds = outcome.header("retry-after").and_then(|text| text.parse::<u64>().ok());
            anyhow::ensure!(seconds.is_some_and(|seconds| seconds > 0), "no retry-after");
        }
        Ok(())
    }

    /// `{"error": {"message", "type", "param", "code"}}`
    fn check_openai(&self, outcome: &Outcome) -> anyhow::Result<()> {
        self.check(outcome)?;
        let error = outcome.error_body().and_then(|body| body.get("error")).context("no error")?;
        let fields: Vec<&str> =
            error.as_object().map(|fields| fields.keys().map(String::as_str).collect()).unwrap_or_default();
        for field in ["message", "type", "param", "code"] {
            anyhow::ensure!(fields.contains(&field), "no field {field}");
        }
        anyhow::ensure!(fields.len() == 4, "other fields: {fields:?}");
        let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
        anyhow::ensure!(!message.is_empty(), "no message");
        let named = ["code", "type"].iter().any(|field| error.get(field) == Some(&json!(self.code)));
        anyhow::ensure!(named, "not {}", self.code);
        Ok(())
    }

    /// `{"type": "error", "error": {"type", "message"}}`
    fn check_anthropic(&self, outcome: &Outcome) -> anyhow::Result<()> {
        self.check(outcome)?;
        let body = outcome.error_body().context("no body")?;
        anyhow::ensure!(body.get("type") == Some(&json!("error")), "not an error");
        let kind = body.pointer("/error/type");
        let overloaded = self.status == 503 && kind == Some(&json!("overloaded_error"));
        anyhow::ensure!(kind == Some(&json!(self.kind)) || overloaded, "not {}", self.kind);
        let message = body.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
        anyhow::ensure!(!message.is_empty(), "no message");
        Ok(())
    }
}

/// What two parsers could read differently is refused and never reaches the backend.
async fn ambiguous_bodies_are_refused(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start(&shared, "ambiguous_bodies_are_refused").await?;
    let client = basic.client();
    let rest = r#""messages":[{"role":"user","content":"hi"}],"max_tokens":1"#;
    let refused: Vec<(&str, Vec<u8>)> = vec![
        ("the model twice", format!(r#"{{"model":"smol","model":"other",{rest}}}"#).into()),
        ("the same model twice", format!(r#"{{"model":"smol",{rest},"model":"smol"}}"#).into()),
        ("twice, once escaped", format!(r#"{{"model":"smol","mod\u0065l":"other",{rest}}}"#).into()),
        ("twice, once in other case", format!(r#"{{"model":"smol","Model":"other",{rest}}}"#).into()),
        ("only in other case", format!(r#"{{"MODEL":"smol",{rest}}}"#).into()),
        ("more after the end", format!(r#"{{"model":"smol",{rest}}} {{"model":"other"}}"#).into()),
        ("no UTF-8", [&br#"{"model":"smol","user":""#[..], b"\xff\xfe\"}"].concat()),
        ("no object", br#"["model","smol"]"#.to_vec()),
        ("no JSON", b"model=smol".to_vec()),
        ("nothing", Vec::new()),
        ("a number", format!(r#"{{"model":7,{rest}}}"#).into()),
        ("cut off", br#"{"model":"smol","messages":["#.to_vec()),
    ];
    for (name, body) in refused {
        let answer = client.post("/v1/chat/completions", body).await?.expect(400).context(name)?;
        let body = answer.json()?;
        let error = body.get("error").with_context(|| format!("{name}: no error"))?;
        let named = ["code", "type"].iter().any(|f| error.get(f) == Some(&json!("invalid_request_error")));
        anyhow::ensure!(named, "{name}: {error}");
    }
    anyhow::ensure!(basic.tap.seen().is_empty(), "one reached the backend: {:?}", basic.tap.seen());

    // A model further down is none of our business, and an escaped name is the same name.
    for body in [
        format!(r#"{{"metadata":{{"model":"other"}},"model":"smol",{rest}}}"#),
        format!(r#"{{"model":"sm\u006fl",{rest}}}"#),
    ] {
        client.post("/v1/chat/completions", body).await?.expect(200)?;
    }
    let seen = basic.tap.settled().await?;
    anyhow::ensure!(seen.len() == 2, "{} requests", seen.len());
    anyhow::ensure!(seen.iter().all(|seen| seen.model().as_deref() == Some(BACKEND_MODEL)));
    Ok(())
}
