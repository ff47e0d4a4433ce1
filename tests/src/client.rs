//! Raw HTTP, where the exact bytes matter or an SDK would not send them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};

use crate::usage::Usage;

/// Only what hangs is silent for so long.
const SILENCE: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    http: reqwest::Client,
    key: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
    /// The body came to its end.
    pub complete: bool,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    Http1,
    Http2,
}

// === impl Answer ===

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).map_err(|error| anyhow::anyhow!("{error}: {} {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn usage(&self) -> Option<Usage> {
        Usage::of_answer(&self.body)
    }

    /// An error with the body if the status is another.
    pub fn expect(self, status: u16) -> anyhow::Result<Self> {
        anyhow::ensure!(self.status == status, "{} instead of {status}: {}", self.status, self.text());
        Ok(self)
    }
}

// === impl Client ===

impl Client {
    pub fn new(base: &str, key: Option<&str>) -> Self {
        Self { base: base.to_owned(), http: direct(), key: key.map(str::to_owned) }
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(self.http.get(self.at(path))).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let request = self.http.get(self.at(path));
        self.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    /// A JSON body as it is.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> anyhow::Result<Answer> {
        self.post_with(path, &[], body).await
    }

    pub async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<Answer> {
        self.send(self.request(path, headers, body)).await
    }

    pub async fn chat(&self, model: &str) -> anyhow::Result<Answer> {
        self.post("/v1/chat/completions", chat(model, 8).to_string()).await
    }

    /// Sends a request over this protocol and leaves as soon as `arrived` says so, which is before an answer.
    pub async fn leave_unanswered(
        &self,
        protocol: Protocol,
        body: Value,
        arrived: impl Fn() -> bool,
    ) -> anyhow::Result<()> {
        let builder = reqwest::Client::builder().no_proxy();
        let http = match protocol {
            Protocol::Http1 => builder.http1_only(),
            Protocol::Http2 => builder.http2_prior_knowledge(),
        };
        let mut request =
            http.build()?.post(self.at("/v1/chat/completions")).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let sent = tokio::spawn(request.body(body.to_string()).send());
        crate::poll::until("the request has arrived", || async {
            anyhow::ensure!(arrived(), "not yet");
            Ok(())
        })
        .await?;
        anyhow::ensure!(!sent.is_finished(), "it was answered");
        sent.abort();
        Ok(())
    }

    /// Reads the answer until `enough` says so of what came, then closes the connection.
    pub async fn leave(&self, path: &str, body: String, enough: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        // A client of its own: dropping it closes its connections.
        let http = direct();
        let mut request = http.post(self.at(path)).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let answer = request.body(body).send().await?;
        anyhow::ensure!(answer.status() == 200, "{}", answer.status());
        let mut stream = answer.bytes_stream();
        let mut seen = String::new();
        while let Some(chunk) = stream.next().await {
            seen.push_str(&String::from_utf8_lossy(&chunk?));
            if enough(&seen) {
                return Ok(seen);
            }
        }
        anyhow::bail!("the answer was over before the client could leave: {seen}")
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn request(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let mut request = self.http.post(self.at(path)).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    }

    async fn send(&self, mut request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let mut stream = answer.bytes_stream();
        let mut body = Vec::new();
        let mut complete = true;
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(bytes) => body.extend_from_slice(&bytes),
                Err(_) => complete = false,
            }
        }
        Ok(Answer { status, headers, body, complete })
    }
}

/// Without any proxy that this machine's environment may name. No test waits for ever.
pub fn direct() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().read_timeout(SILENCE).build().unwrap_or_default()
}

/// A short chat of at most so many tokens.
pub fn chat(model: &str, max_tokens: u32) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": max_tokens,
    })
}

/// The same as a stream.
pub fn chat_stream(model: &str, max_tokens: u32) -> Value {
    with(chat(model, max_tokens), "stream")
}

/// The same, and the model may not end its answer earlier. That is a parameter of this model server alone.
pub fn long_stream(model: &str, tokens: u32) -> Value {
    with(chat_stream(model, tokens), "ignore_eos")
}

fn with(mut body: Value, switch: &str) -> Value {
    if let Value::Object(fields) = &mut body {
        fields.insert(switch.to_owned(), Value::Bool(true));
    }
    body
}

/// Clients that ask one request after the other until they are told to stop; every answer is kept.
pub struct Traffic {
    answers: Arc<Mutex<Vec<Result<Answer, String>>>>,
    over: Arc<std::sync::atomic::AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

// === impl Traffic ===

impl Traffic {
    pub fn start(client: &Client, path: &'static str, bodies: &[Value]) -> Self {
        let answers: Arc<Mutex<Vec<_>>> = Arc::default();
        let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let clients = bodies
            .iter()
            .map(|body| {
                let (client, body) = (client.clone(), body.to_string());
                let (answers, over) = (Arc::clone(&answers), Arc::clone(&over));
                tokio::spawn(async move {
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        let answer = client.post(path, body.clone()).await;
                        let answer = answer.map_err(|error| format!("{error:#}"));
                        answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
                    }
                })
            })
            .collect();
        Self { answers, over, clients }
    }

    pub fn count(&self) -> usize {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until so many more requests are answered.
    pub async fn more(&self, answers: usize) -> anyhow::Result<()> {
        let wanted = self.count() + answers;
        crate::poll::until("traffic goes on", || async {
            anyhow::ensure!(self.count() >= wanted, "{} of {wanted} answers", self.count());
            Ok(())
        })
        .await
    }

    /// Waits until so many more requests are answered by 200.
    pub async fn more_answered(&self, answers: usize) -> anyhow::Result<()> {
        let answered = || {
            let all = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().flatten().filter(|answer| answer.status == 200).count()
        };
        let wanted = answered() + answers;
        crate::poll::until("requests are answered", || async {
            anyhow::ensure!(answered() >= wanted, "{} of {wanted} answers", answered());
            Ok(())
        })
        .await
    }

    /// Lets the running requests end, and gives all answers.
    pub async fn stop(self) -> anyhow::Result<Vec<Result<Answer, String>>> {
        self.over.store(true, std::sync::atomic::Ordering::Relaxed);
        for client in self.clients {
            client.await?;
        }
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(answers)
    }
}
