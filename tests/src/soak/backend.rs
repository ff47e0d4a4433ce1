//! A backend that does as the model's name says and counts what it did: three ports, `flaky`, `steady` and `spare`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{Consumer, Model, NUMBER, figures};

/// How long `slow` keeps one waiting: clients leave before it is over.
const BEFORE_THE_ANSWER: Duration = Duration::from_millis(300);
const BETWEEN_EVENTS: Duration = Duration::from_millis(30);
/// Longer than [`super::FIRST_TOKEN`].
pub const SLEEP: Duration = Duration::from_secs(5);
const EVENTS: u64 = 12;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Flaky,
    Steady,
    Spare,
}

/// What became of the attempts of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub consumer: Consumer,
    pub model: Model,
    /// Attempts that were worked on and came to nothing.
    pub in_vain: u64,
    pub answer: Answer,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// Refused, or never there.
    #[default]
    None,
    Begun,
    /// Written to its end, the usage with it.
    Whole(Port),
}

/// By number.
pub type Count = BTreeMap<u64, Work>;

pub struct Backend {
    /// In the order of [`Port::ALL`].
    servers: [Server; 3],
    notes: Arc<Notes>,
    /// The one whose threads are in its network.
    runtime: Handle,
}

struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// What all ports count together.
#[derive(Default)]
struct Notes {
    count: Mutex<Count>,
    /// How often each credential was shown.
    credentials: Mutex<BTreeMap<String, u64>>,
}

/// One request, read.
struct Asked {
    number: u64,
    consumer: Consumer,
    model: Model,
    stream: bool,
}

// === impl Port ===

impl Port {
    pub const ALL: [Self; 3] = [Self::Flaky, Self::Steady, Self::Spare];

    pub fn name(self) -> &'static str {
        match self {
            Self::Flaky => "flaky",
            Self::Steady => "steady",
            Self::Spare => "spare",
        }
    }
}

// === impl Backend ===

impl Backend {
    /// At this address of the network in which the runtime's threads are.
    pub async fn start(at: IpAddr) -> anyhow::Result<Self> {
        let notes: Arc<Notes> = Arc::default();
        let any = SocketAddr::new(at, 0);
        let servers = [
            Server::start(Port::Flaky, any, Arc::clone(&notes)).await?,
            Server::start(Port::Steady, any, Arc::clone(&notes)).await?,
            Server::start(Port::Spare, any, Arc::clone(&notes)).await?,
        ];
        Ok(Self { servers, notes, runtime: Handle::current() })
    }

    pub fn port(&self, port: Port) -> u16 {
        let [flaky, steady, spare] = &self.servers;
        match port {
            Port::Flaky => flaky,
            Port::Steady => steady,
            Port::Spare => spare,
        }
        .address
        .port()
    }

    /// Ends one of them with all its connections, and starts it again after a while.
    pub async fn restart(&mut self, port: Port, away: Duration) -> anyhow::Result<()> {
        let [flaky, steady, spare] = &mut self.servers;
        let server = match port {
            Port::Flaky => flaky,
            Port::Steady => steady,
            Port::Spare => spare,
        };
        server.task.abort();
        tokio::time::sleep(away).await;
        *server = self.runtime.spawn(Server::start(port, server.address, Arc::clone(&self.notes))).await??;
        Ok(())
    }

    pub fn count(&self) -> Count {
        lock(&self.notes.count).clone()
    }

    /// How often each credential was shown so far.
    pub fn credentials(&self) -> BTreeMap<String, u64> {
        lock(&self.notes.credentials).clone()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.servers.iter().for_each(|server| server.task.abort());
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Server ===

impl Server {
    async fn start(at: Port, address: SocketAddr, notes: Arc<Notes>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let notes = Arc::clone(&notes);
                let service = service_fn(move |request| answer(at, Arc::clone(&notes), request));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, task })
    }
}

/// An error closes the connection without an answer.
async fn answer(at: Port, notes: Arc<Notes>, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
    if let Some(credential) = request.headers().get("authorization").and_then(|value| value.to_str().ok()) {
        *lock(&notes.credentials).entry(credential.to_owned()).or_default() += 1;
    }
    let Some(asked) = read(request).await else {
        return Ok(refusal(StatusCode::BAD_REQUEST));
    };
    let note = |change: &dyn Fn(&mut Work)| {
        let fresh = Work { consumer: asked.consumer, model: asked.model, in_vain: 0, answer: Answer::None };
        change(lock(&notes.count).entry(asked.number).or_insert(fresh));
    };
    match (asked.model, at) {
        (Model::Down, _) | (Model::Broken, Port::Flaky) => return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR)),
        (Model::Busy, Port::Flaky) => return Ok(refusal(StatusCode::TOO_MANY_REQUESTS)),
        (Model::Resets, Port::Flaky) => {
            note(&|work| work.in_vain += 1);
            return Err(std::io::Error::other("the backend closes the connection"));
        }
        (Model::Sleeps, Port::Flaky) => {
            note(&|work| work.in_vain += 1);
            tokio::time::sleep(SLEEP).await;
            return Err(std::io::Error::other("the backend slept too long"));
        }
        (Model::Slow, _) => {
            note(&|work| work.answer = Answer::Begun);
            tokio::time::sleep(BEFORE_THE_ANSWER).await;
        }
        (Model::Steady | Model::Sleeps | Model::Busy | Model::Broken | Model::Resets, _) => {
            note(&|work| work.answer = Answer::Begun);
        }
    }
    let whole = {
        let (notes, number) = (Arc::clone(&notes), asked.number);
        move || {
            if let Some(work) = lock(&notes.count).get_mut(&number) {
                work.answer = Answer::Whole(at);
            }
        }
    };
    Ok(if asked.stream { streamed(&asked, whole) } else { at_once(&asked, whole) })
}

async fn read(request: Request<Incoming>) -> Option<Asked> {
    let (head, body) = request.into_parts();
    let (consumer, number) = head.headers.get(NUMBER)?.to_str().ok()?.split_once('-')?;
    let consumer = Consumer::ALL.into_iter().find(|known| known.name() == consumer)?;
    let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.ok()?;
    let body: Value = serde_json::from_slice(&body).ok()?;
    let model = Model::of(body.get("model")?.as_str()?)?;
    let stream = body.get("stream").and_then(Value::as_bool).unwrap_or(false);
    Some(Asked { number: number.parse().ok()?, consumer, model, stream })
}

fn refusal(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::from(json!({"error": {"message": "no", "type": "no"}}).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

fn usage(number: u64) -> Value {
    let (input, output) = figures(number);
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

fn at_once(asked: &Asked, whole: impl FnOnce()) -> Response<Body> {
    let answer = json!({
        "id": "soak", "object": "chat.completion", "created": 0, "model": asked.model.name(),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "some words"}, "finish_reason": "stop"}],
        "usage": usage(asked.number),
    });
    whole();
    let mut response = Response::new(Body::from(answer.to_string()));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

fn streamed(asked: &Asked, whole: impl FnOnce() + Send + 'static) -> Response<Body> {
    let event = |choices: Value, usage: Value| {
        let event = json!({
            "id": "soak", "object": "chat.completion.chunk", "created": 0, "model": asked.model.name(),
            "choices": choices, "usage": usage,
        });
        Bytes::from(format!("data: {event}\n\n"))
    };
    let words = |n: u64| json!([{"index": 0, "delta": {"content": format!("word {n} ")}, "finish_reason": null}]);
    let mut events: Vec<Bytes> = (0..EVENTS).map(|n| event(words(n), Value::Null)).collect();
    events.push(event(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]), Value::Null));
    events.push(event(json!([]), usage(asked.number)));
    let pause = if asked.model == Model::Slow { BETWEEN_EVENTS } else { Duration::ZERO };
    let events = futures::stream::iter(events).then(move |event| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, std::io::Error>(event)
    });
    let end = futures::stream::once(async move {
        whole();
        Ok(Bytes::from_static(b"data: [DONE]\n\n"))
    });
    let mut response = Response::new(Body::from_stream(events.chain(end)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
    response
}
