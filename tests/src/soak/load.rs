//! The clients: each sends one request after the other, over HTTP/1.1 or HTTP/2, and stays or leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use serde_json::json;

use super::{Consumer, FIRST_TOKEN, Model, NUMBER, mixed};

/// Clients of each kind and protocol.
const CLIENTS: u64 = 3;
/// A pause between two requests of one client: the load is to be mixed, not the highest.
const PAUSE: Duration = Duration::from_millis(20);
/// Nothing takes so long; what does has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How a request of [`Stage::Before`] ends for its client.
const LEFT_BEFORE: &str = "left Before";

/// When a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// So many milliseconds after it has sent.
    Before(u64),
    /// After the first bytes of the answer.
    Early,
    /// When the last words have come, before usage and end.
    AfterWords,
    /// When the usage is there or the answer is over.
    AtTheEnd,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
    Http1,
    Http2,
}

/// What was sent, and how it ended for the client.
#[derive(Default)]
pub struct Sent {
    /// By consumer, model, protocol and end.
    pub ends: BTreeMap<(String, &'static str, String, String), u64>,
    /// Requests that stayed and got the whole answer.
    pub whole: BTreeSet<u64>,
    /// Requests whose client left so long after it had sent, whatever had come by then. Only of these the backend may
    /// know nothing though they are charged.
    pub left: BTreeMap<u64, (Consumer, Model)>,
}

/// All clients, until they are told to stop.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

struct Shared {
    url: String,
    over: AtomicBool,
    /// Those who stay wait.
    held: AtomicBool,
    staying: AtomicU64,
    numbers: AtomicU64,
    sent: Mutex<Sent>,
}

impl Load {
    pub fn start(url: &str) -> Self {
        let shared = Arc::new(Shared {
            url: format!("{url}/v1/chat/completions"),
            over: AtomicBool::new(false),
            held: AtomicBool::new(false),
            staying: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            sent: Mutex::default(),
        });
        let kinds = [Protocol::Http1, Protocol::Http2].into_iter().flat_map(|protocol| {
            Consumer::ALL.into_iter().flat_map(move |consumer| (0..CLIENTS).map(move |_| (protocol, consumer)))
        });
        let clients = kinds.map(|(protocol, consumer)| tokio::spawn(client(Arc::clone(&shared), protocol, consumer)));
        Self { clients: clients.collect(), shared }
    }

    pub fn count(&self) -> u64 {
        self.shared.numbers.load(Ordering::SeqCst)
    }

    /// Those who stay begin nothing more; returns when all they have begun is over.
    pub async fn hold(&self) -> anyhow::Result<()> {
        self.shared.held.store(true, Ordering::SeqCst);
        crate::poll::until("those who stay are done", || async {
            anyhow::ensure!(self.shared.staying.load(Ordering::SeqCst) == 0, "some are running");
            Ok(())
        })
        .await
    }

    pub fn go_on(&self) {
        self.shared.held.store(false, Ordering::SeqCst);
    }

    pub async fn stop(self) -> anyhow::Result<Sent> {
        self.shared.over.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await?;
        }
        let mut sent = self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *sent))
    }
}

async fn client(shared: Arc<Shared>, protocol: Protocol, consumer: Consumer) {
    let mut http = connect(protocol);
    while !shared.over.load(Ordering::SeqCst) {
        let stays = consumer == Consumer::Stays;
        if stays {
            shared.staying.fetch_add(1, Ordering::SeqCst);
            if shared.held.load(Ordering::SeqCst) {
                shared.staying.fetch_sub(1, Ordering::SeqCst);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        }
        let number = shared.numbers.fetch_add(1, Ordering::SeqCst);
        let (model, stage, stream) = plan(number, consumer);
        let (end, whole) = one(&shared, &http, (number, consumer, model, stage, stream)).await;
        {
            let mut sent = shared.sent.lock().unwrap_or_else(PoisonError::into_inner);
            if end == LEFT_BEFORE {
                sent.left.insert(number, (consumer, model));
            }
            let row = (consumer.name().to_owned(), model.name(), format!("{protocol:?}"), end);
            *sent.ends.entry(row).or_default() += 1;
            if whole {
                sent.whole.insert(number);
            }
        }
        if stays {
            shared.staying.fetch_sub(1, Ordering::SeqCst);
        } else if protocol == Protocol::Http1 {
            // Its connection is gone, as that of a client that ends.
            http = connect(protocol);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn connect(protocol: Protocol) -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    let builder = match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_prior_knowledge(),
    };
    builder.build().unwrap_or_default()
}

/// What request `number` is.
fn plan(number: u64, consumer: Consumer) -> (Model, Stage, bool) {
    let chance = mixed(number);
    let model = match chance % 16 {
        0..6 => Model::Steady,
        6..10 => Model::Slow,
        10 => Model::Sleeps,
        11 | 12 => Model::Busy,
        13 => Model::Broken,
        14 => Model::Resets,
        _ => Model::Down,
    };
    let stage = match (consumer, chance >> 8 & 7) {
        (Consumer::Stays, _) => Stage::Never,
        // Also in the middle of a second attempt.
        (Consumer::Leaves, 0..3) if model == Model::Sleeps => {
            Stage::Before(FIRST_TOKEN.as_secs() * 1000 - 100 + (chance >> 16) % 600)
        }
        (Consumer::Leaves, 0..3) => Stage::Before((chance >> 16) % 350),
        (Consumer::Leaves, 3) => Stage::Early,
        (Consumer::Leaves, 4) => Stage::AfterWords,
        (Consumer::Leaves, 5 | 6) => Stage::AtTheEnd,
        (Consumer::Leaves, _) => Stage::Never,
    };
    (model, stage, chance >> 12 & 1 == 1)
}

/// How it ended for the client, and whether the answer was good and whole.
async fn one(
    shared: &Shared,
    http: &reqwest::Client,
    (number, consumer, model, stage, stream): (u64, Consumer, Model, Stage, bool),
) -> (String, bool) {
    let body = json!({
        "model": model.name(), "stream": stream, "max_tokens": 60,
        "messages": [{"role": "user", "content": "Say some words, one after the other, until there are enough."}],
    });
    let request = http
        .post(&shared.url)
        .bearer_auth(consumer.key())
        .header("content-type", "application/json")
        .header(NUMBER, format!("{}-{number}", consumer.name()))
        .body(body.to_string())
        .timeout(PATIENCE);
    let answering = async {
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return (told(&error), false),
        };
        let status = answer.status().as_u16();
        let mut seen = String::new();
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => return (format!("{status}, then {}", told(&error)), false),
            }
            let enough = match stage {
                Stage::Early => !seen.is_empty(),
                Stage::AfterWords => seen.contains("word 11") || seen.contains("some words"),
                Stage::AtTheEnd => seen.contains("[DONE]"),
                Stage::Before(_) | Stage::Never => false,
            };
            if enough && status == 200 {
                return (format!("left {stage:?}"), false);
            }
        }
        (status.to_string(), status == 200)
    };
    match stage {
        Stage::Before(after) => tokio::time::timeout(Duration::from_millis(after), answering)
            .await
            .unwrap_or_else(|_| (LEFT_BEFORE.to_owned(), false)),
        _ => answering.await,
    }
}

fn told(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "waited in vain"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection ended"
    }
    .to_owned()
}
