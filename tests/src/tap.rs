//! A backend that the tests can look into: a reverse proxy that records what arrives and what goes
//! back, in front of the real model, and that can be told to fail instead.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::poll;
use crate::usage::Usage;

/// What the backend does with a request.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Hands it to the real model.
    Forward,
    /// Answers this status with this body, as a provider in trouble does.
    Status { code: u16, headers: Vec<(&'static str, String)>, body: String },
    /// Sends these bytes as an event stream and then breaks the connection.
    BreakOff { events: String },
    /// Closes the connection without an answer.
    Reset,
    /// Works until it is notified, then closes the connection without an answer.
    ResetAfter(Arc<Notify>),
    /// Answers 200 with exactly these bytes.
    Answer { content_type: &'static str, body: Vec<u8> },
    /// Sends these bytes and then nothing more, nor the end.
    Hang { content_type: &'static str, body: Vec<u8> },
    /// Answers 200 with bytes that are many and the same for all: they are not recorded.
    Large { content_type: &'static str, body: Bytes },
}

/// One request as it reached the backend.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub method: String,
    /// Path with query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub status: u16,
    pub answer: Vec<u8>,
    /// The answer was sent to its end.
    pub complete: bool,
}

pub struct Tap {
    port: u16,
    inner: Arc<Inner>,
    server: tokio::task::JoinHandle<()>,
}

struct Inner {
    model: String,
    http: reqwest::Client,
    behaviour: Mutex<Behaviour>,
    seen: Mutex<Vec<Seen>>,
}

// === impl Seen ===

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// The model that the request names.
    pub fn model(&self) -> Option<String> {
        Some(self.json().ok()?.get("model")?.as_str()?.to_owned())
    }

    pub fn usage(&self) -> Option<Usage> {
        Usage::of_answer(&self.answer)
    }

    /// Everything that arrived, to be searched for what must not be there.
    pub fn everything(&self) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        format!("{} {}\n{headers}\n{}", self.method, self.target, String::from_utf8_lossy(&self.body))
    }
}

// === impl Tap ===

impl Tap {
    /// Opens a port; requests go on to `model`, as http://127.0.0.1:PORT.
    pub async fn start(model: &str) -> anyhow::Result<Self> {
        Self::start_on(model, 0).await
    }

    /// The same on a given port, as a backend that comes back.
    pub async fn start_on(model: &str, port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        let inner = Arc::new(Inner {
            model: model.to_owned(),
            http: fresh_connections(),
            behaviour: Mutex::new(Behaviour::Forward),
            seen: Mutex::default(),
        });
        let server = tokio::spawn(accept(listener, Arc::clone(&inner)));
        Ok(Self { port, inner, server })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.inner.behaviour) = behaviour;
    }

    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.inner.seen).clone()
    }

    pub fn forget(&self) {
        lock(&self.inner.seen).clear();
    }

    /// Waits until all requests that arrived are answered, and gives them.
    pub async fn settled(&self) -> anyhow::Result<Vec<Seen>> {
        poll::until("the backend has answered all requests", || async {
            let seen = self.seen();
            anyhow::ensure!(seen.iter().all(|one| one.complete), "some are still running");
            Ok(seen)
        })
        .await
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection for each request: the model server closes idle ones, and a request that meets such an
/// end would look like a fault of the backend.
fn fresh_connections() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap_or_default()
}

/// Serves every connection until it is aborted, the connections with it.
async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let inner = Arc::clone(&inner);
        let service = service_fn(move |request| serve(Arc::clone(&inner), request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(connection);
        while connections.try_join_next().is_some() {}
    }
}

/// An error closes the connection without an answer.
async fn serve(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.unwrap_or_default();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let mut headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    let number = {
        let mut seen = lock(&inner.seen);
        seen.push(Seen {
            method: head.method.to_string(),
            target: target.clone(),
            headers,
            body: body.to_vec(),
            ..Seen::default()
        });
        seen.len() - 1
    };
    let behaviour = lock(&inner.behaviour).clone();
    Ok(match behaviour {
        Behaviour::Forward => forward(inner, number, head, target, body).await,
        Behaviour::Status { code, headers, body } => {
            inner.note(number, |seen| {
                seen.status = code;
                seen.answer = body.clone().into_bytes();
                seen.complete = true;
            });
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
            for (name, value) in headers {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    response.headers_mut().insert(HeaderName::from_static(name), value);
                }
            }
            response
        }
        Behaviour::Answer { content_type, body } => {
            inner.note(number, |seen| {
                seen.status = 200;
                seen.answer.clone_from(&body);
                seen.complete = true;
            });
            let mut response = Response::new(Body::from(body));
            response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
            response
        }
        Behaviour::Hang { content_type, body } => {
            inner.note(number, |seen| {
                seen.status = 200;
                seen.answer.clone_from(&body);
                seen.complete = true;
            });
            let first = futures::stream::iter([Ok::<_, std::io::Error>(body)]);
            let mut response = Response::new(Body::from_stream(first.chain(futures::stream::pending())));
            response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
            response
        }
        Behaviour::Large { content_type, body } => {
            inner.note(number, |seen| {
                seen.status = 200;
                seen.complete = true;
            });
            let mut response = Response::new(Body::from(body));
            response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
            response
        }
        Behaviour::BreakOff { events } => {
            inner.note(number, |seen| {
                seen.status = 200;
                seen.answer = events.clone().into_bytes();
                seen.complete = true;
            });
            broken(Bytes::from(events))
        }
        Behaviour::ResetAfter(notified) => {
            notified.notified().await;
            inner.note(number, |seen| seen.complete = true);
            return Err(std::io::Error::other("the backend closes the connection"));
        }
        Behaviour::Reset => {
            inner.note(number, |seen| seen.complete = true);
            return Err(std::io::Error::other("the backend closes the connection"));
        }
    })
}

/// An event stream that ends in an error, which closes the connection without the end of the body.
fn broken(events: Bytes) -> Response<Body> {
    let first = futures::stream::iter([Ok(events)]);
    let error = futures::stream::once(async {
        // The bytes before it must have left.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        Err(std::io::Error::other("the backend breaks off"))
    });
    let mut response = Response::new(Body::from_stream(first.chain(error)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
    response
}

async fn forward(
    inner: Arc<Inner>,
    number: usize,
    head: axum::http::request::Parts,
    target: String,
    body: Bytes,
) -> Response<Body> {
    let url = format!("{}{target}", inner.model);
    let mut request = inner.http.request(head.method, url).body(body);
    for name in ["content-type", "accept", "anthropic-version"] {
        if let Some(value) = head.headers.get(name) {
            request = request.header(name, value);
        }
    }
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => {
            inner.note(number, |seen| {
                seen.status = 502;
                seen.complete = true;
            });
            let mut response = Response::new(Body::from(error.to_string()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            return response;
        }
    };
    let status = answer.status();
    inner.note(number, |seen| seen.status = status.as_u16());
    let content_type = answer.headers().get("content-type").cloned();
    let length = answer.headers().get("content-length").cloned();
    // Completes the record when the body was sent, or when nobody wants it any more.
    let recording = Recording { inner, number };
    let stream = answer.bytes_stream().map(move |chunk| {
        if let Ok(bytes) = &chunk {
            recording.inner.note(recording.number, |seen| seen.answer.extend_from_slice(bytes));
        }
        chunk
    });
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = status;
    for (name, value) in [("content-type", content_type), ("content-length", length)] {
        if let Some(value) = value {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

struct Recording {
    inner: Arc<Inner>,
    number: usize,
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.inner.note(self.number, |seen| seen.complete = true);
    }
}

// === impl Inner ===

impl Inner {
    fn note(&self, number: usize, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = lock(&self.seen).get_mut(number) {
            change(seen);
        }
    }
}
