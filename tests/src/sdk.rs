//! Calls through the official SDKs, by tests/python/sdk.py.

use anyhow::Context;
use serde_json::{Value, json};

use crate::scripts;
use crate::tools::Tools;
use crate::usage::Usage;

/// One call to come.
#[derive(Clone, Debug)]
pub struct Call {
    api: &'static str,
    key: String,
    params: Value,
    stream: bool,
}

/// What the SDK made of the answer.
#[derive(Clone, Debug)]
pub struct Outcome(Value);

// === impl Call ===

impl Call {
    pub fn new(api: &'static str, key: &str, params: Value) -> Self {
        Self { api, key: key.to_owned(), params, stream: false }
    }

    /// A short chat with this model.
    pub fn chat(key: &str, model: &str) -> Self {
        Self::new(
            "chat",
            key,
            json!({
                "model": model,
                "messages": [{"role": "user", "content": "Say hello."}],
                "max_tokens": 8,
            }),
        )
    }

    pub fn stream(self) -> Self {
        Self { stream: true, ..self }
    }

    /// Sets one more parameter.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        if let Value::Object(params) = &mut self.params {
            params.insert(name.to_owned(), value);
        }
        self
    }
}

// === impl Outcome ===

impl Outcome {
    /// The parsed answer of a call that was not a stream.
    pub fn answer(&self) -> anyhow::Result<&Value> {
        self.0.get("answer").with_context(|| format!("no answer: {}", self.0))
    }

    pub fn events(&self) -> anyhow::Result<&Vec<Value>> {
        self.0.get("events").and_then(Value::as_array).with_context(|| format!("no stream: {}", self.0))
    }

    pub fn ok(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.0.get("error").is_none(), "an error: {}", self.0);
        Ok(())
    }

    pub fn status(&self) -> Option<u64> {
        self.0.pointer("/error/status").and_then(Value::as_u64)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        ["/headers", "/error/headers"].iter().find_map(|at| self.0.pointer(at)?.get(name)).and_then(Value::as_str)
    }

    pub fn error_body(&self) -> Option<&Value> {
        self.0.pointer("/error/body")
    }

    /// The SDK raised this exception, or one derived from it.
    pub fn raised(&self, class: &str) -> bool {
        self.0
            .pointer("/error/classes")
            .and_then(Value::as_array)
            .is_some_and(|classes| classes.iter().any(|name| name == class))
    }

    /// Usage as this client sees it.
    pub fn usage(&self) -> Option<Usage> {
        if let Some(answer) = self.0.get("answer") {
            return Usage::of_json(answer);
        }
        Usage::of_events(self.0.get("events")?.as_array()?.iter().cloned())
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Runs the calls, so many at a time; one outcome each, in their order.
pub async fn run(tools: &Tools, url: &str, concurrency: usize, calls: &[Call]) -> anyhow::Result<Vec<Outcome>> {
    let job = json!({
        "url": url,
        "concurrency": concurrency,
        "calls": calls.iter().map(|call| json!({
            "api": call.api, "key": call.key, "params": call.params, "stream": call.stream,
        })).collect::<Vec<_>>(),
    });
    let output = scripts::run(tools, "sdk.py", &job).await?;
    let outcomes: Vec<Value> = serde_json::from_slice(&output)?;
    anyhow::ensure!(outcomes.len() == calls.len(), "an outcome is missing");
    Ok(outcomes.into_iter().map(Outcome).collect())
}
