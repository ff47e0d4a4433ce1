//! The clients: each sends one request after the other, over HTTP/1.1 or HTTP/2, and stays or leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};

use super::{Consumer, FIRST_TOKEN, Model, NUMBER, WHO, mixed};

/// Clients of each kind and protocol.
const CLIENTS: u64 = 3;
/// A pause between two requests of one client: the load is to be mixed, not the highest.
const PAUSE: Duration = Duration::from_millis(20);
/// The same of one whose budget is used up.
const SPENT_PAUSE: Duration = Duration::from_millis(300);
/// Nothing takes so long; what does has failed.
const PATIENCE: Duration = crate::poll::LIMIT;
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
#[derive(Clone, Default)]
pub struct Sent {
    /// By consumer, model, protocol and end.
    pub ends: BTreeMap<(String, &'static str, String, String), u64>,
    /// Requests that stayed and got the whole answer.
    pub whole: BTreeSet<u64>,
    /// Requests whose client left so long after it had sent, whatever had come by then. Only of these the backend may
    /// know nothing though they are charged.
    pub left: BTreeMap<u64, (Consumer, Model)>,
    /// Requests for a stream.
    pub streams: u64,
    /// What did not end as its model's name says, by what was disturbed then.
    pub unusual: BTreeMap<Unusual, u64>,
}

/// How a request ended that should have ended otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unusual {
    pub during: &'static str,
    pub consumer: Consumer,
    pub model: Model,
    pub end: String,
}

/// Who may begin requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum May {
    All,
    /// Those whose books are not exact.
    Leave,
    Nobody,
}

/// All clients, until they are told to stop.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

struct Shared {
    url: String,
    over: AtomicBool,
    may: Mutex<May>,
    /// Requests that run: of those whose books are exact, and of the others.
    running: [AtomicU64; 2],
    numbers: AtomicU64,
    keys: Mutex<BTreeMap<Consumer, String>>,
    during: Mutex<&'static str>,
    sent: Mutex<Sent>,
}

impl Load {
    pub fn start(url: &str, consumers: &[Consumer]) -> Self {
        let shared = Arc::new(Shared {
            url: format!("{url}/v1/chat/completions"),
            over: AtomicBool::new(false),
            may: Mutex::new(May::All),
            running: [AtomicU64::new(0), AtomicU64::new(0)],
            numbers: AtomicU64::new(0),
            keys: Mutex::new(Consumer::ALL.map(|consumer| (consumer, consumer.key().to_owned())).into()),
            during: Mutex::new("nothing"),
            sent: Mutex::default(),
        });
        let kinds = [Protocol::Http1, Protocol::Http2].into_iter().flat_map(|protocol| {
            consumers.iter().flat_map(move |consumer| (0..CLIENTS).map(move |_| (protocol, *consumer)))
        });
        let clients = kinds.map(|(protocol, consumer)| tokio::spawn(client(Arc::clone(&shared), protocol, consumer)));
        Self { clients: clients.collect(), shared }
    }

    pub fn count(&self) -> u64 {
        self.shared.numbers.load(Ordering::SeqCst)
    }

    /// Those whose books are exact begin nothing more; returns when all they have begun is over.
    pub async fn hold(&self) -> anyhow::Result<()> {
        *lock(&self.shared.may) = May::Leave;
        self.are_done(&[true]).await
    }

    /// Nobody begins anything more; returns when all is over.
    pub async fn hold_all(&self) -> anyhow::Result<()> {
        *lock(&self.shared.may) = May::Nobody;
        self.are_done(&[true, false]).await
    }

    async fn are_done(&self, who: &[bool]) -> anyhow::Result<()> {
        crate::poll::within(PATIENCE * 2, "who waits is done", || async {
            let running: u64 = who.iter().map(|exact| self.shared.running(*exact).load(Ordering::SeqCst)).sum();
            anyhow::ensure!(running == 0, "{running} are running");
            Ok(())
        })
        .await
    }

    pub fn go_on(&self) {
        *lock(&self.shared.may) = May::All;
    }

    /// From now on a consumer shows this key. Returns the one from before.
    pub fn show(&self, consumer: Consumer, key: String) -> Option<String> {
        lock(&self.shared.keys).insert(consumer, key)
    }

    /// What is disturbed from now on.
    pub fn during(&self, what: &'static str) {
        *lock(&self.shared.during) = what;
    }

    /// What was sent so far.
    pub fn sent(&self) -> Sent {
        lock(&self.shared.sent).clone()
    }

    pub async fn stop(self) -> anyhow::Result<Sent> {
        self.shared.over.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await?;
        }
        Ok(std::mem::take(&mut *lock(&self.shared.sent)))
    }
}

impl Shared {
    fn running(&self, exact: bool) -> &AtomicU64 {
        let [exactly, others] = &self.running;
        if exact { exactly } else { others }
    }

    /// Says that this client begins a request, if it may.
    fn begin(&self, consumer: Consumer) -> bool {
        let exact = consumer.is_exact();
        let may = lock(&self.may);
        let begins = *may == May::All || (*may == May::Leave && !exact);
        if begins {
            self.running(exact).fetch_add(1, Ordering::SeqCst);
        }
        begins
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn client(shared: Arc<Shared>, protocol: Protocol, consumer: Consumer) {
    let mut http = connect(protocol);
    while !shared.over.load(Ordering::SeqCst) {
        if !shared.begin(consumer) {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let number = shared.numbers.fetch_add(1, Ordering::SeqCst);
        let (model, stage, stream) = plan(number, consumer);
        let (end, whole) = one(&shared, &http, (number, consumer, model, stage, stream)).await;
        {
            let mut sent = lock(&shared.sent);
            sent.streams += u64::from(stream);
            if !is_usual(consumer, model, &end) {
                let during = *lock(&shared.during);
                let unusual = Unusual { during, consumer, model, end: end.clone() };
                *sent.unusual.entry(unusual).or_default() += 1;
            }
            if end == LEFT_BEFORE {
                sent.left.insert(number, (consumer, model));
            }
            let row = (consumer.name().to_owned(), model.name(), format!("{protocol:?}"), end);
            *sent.ends.entry(row).or_default() += 1;
            if whole {
                sent.whole.insert(number);
            }
        }
        shared.running(consumer.is_exact()).fetch_sub(1, Ordering::SeqCst);
        if consumer == Consumer::Leaves && protocol == Protocol::Http1 {
            // Its connection is gone, as that of a client that ends.
            http = connect(protocol);
        }
        tokio::time::sleep(if consumer == Consumer::Spends { SPENT_PAUSE } else { PAUSE }).await;
    }
}

/// Whether this is what the model's name says: a backend's own 500, an answer by a backend, or a client that has left or has
/// spent its budget.
fn is_usual(consumer: Consumer, model: Model, end: &str) -> bool {
    let answered = if model == Model::Down { "500" } else { "200" };
    end == answered || end.starts_with("left ") || (consumer == Consumer::Spends && end.starts_with("429"))
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
        (Consumer::Stays | Consumer::Spends, _) => Stage::Never,
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
        .bearer_auth(lock(&shared.keys).get(&consumer).map_or("", String::as_str))
        .header("content-type", "application/json")
        .header(NUMBER, format!("{}-{number}", consumer.name()))
        .header(WHO, consumer.name())
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
        (refusal(status, &seen), status == 200)
    };
    match stage {
        Stage::Before(after) => tokio::time::timeout(Duration::from_millis(after), answering)
            .await
            .unwrap_or_else(|_| (LEFT_BEFORE.to_owned(), false)),
        _ => answering.await,
    }
}

/// The status, and what the gateway says, if it says something itself: that has a code.
fn refusal(status: u16, body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let said = |name: &str| body.pointer(name).and_then(Value::as_str);
    match (said("/error/code"), said("/error/message")) {
        (Some(_), Some(message)) if status != 200 && status != 429 => format!("{status} {message}"),
        _ => status.to_string(),
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
