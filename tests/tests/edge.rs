//! What one client can take of Envoy, and that others are served meanwhile.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use futures::future::try_join_all;
use h2::client::SendRequest;
use hyper::{Request, Uri};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tollgate_tests::client::{Client, chat};
use tollgate_tests::config::{self, Target};
use tollgate_tests::envoy_admin::EnvoyAdmin;
use tollgate_tests::gateway::RunningGateway;
use tollgate_tests::poll;
use tollgate_tests::tap::{Behaviour, Tap};

use crate::fixtures::{APP_KEY, BACKEND_MODEL, Basic};
use crate::suite::{Shared, e2e};

e2e! {
    a_large_body_reaches_every_attempt,
    one_connection_has_a_hundred_streams,
    large_bodies_end_before_the_memory,
    slow_readers_hold_little,
    idle_connections_are_bounded,
    connections_of_one_source_are_bounded,
    workers_share_what_one_source_may_have,
    envoys_admin_is_for_its_owner,
}

/// How many connections one source may have.
const OF_ONE_SOURCE: usize = 2_000;
const SOURCE: [u8; 4] = [127, 0, 0, 2];

const MIB: usize = 1024 * 1024;
const OTHER_KEY: &str = "the-key-of-the-consumer-other";

/// Envoy's buffers are small but for the bodies that the filter reads, on each attempt and renamed.
pub async fn a_large_body_reaches_every_attempt(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (first, second) = (shared.tap().await?, shared.tap().await?);
    let setup = shared.setup("a_large_body_reaches_every_attempt")?;
    let entry = config::entry(setup.port());
    let targets = [Target::new("first").model("a"), Target::new("second").model("another-name").priority(1)];
    let gateway = setup
        .file("entry.yaml", &entry)?
        .file(
            "models.yaml",
            &config::documents(&[
                config::pool("Required", &[("smol", &targets, None), ("once", &targets[1..], Some(0))]),
                config::backend("first", "OpenAI", first.port(), ""),
                config::backend("second", "OpenAI", second.port(), ""),
            ]),
        )?
        .file("app.yaml", &config::consumer("app", APP_KEY, ""))?
        .start()
        .await?;
    first.behave(Behaviour::Reset);
    second.behave(answer("application/json", small_answer()));
    let client = gateway.client(APP_KEY);
    for (model, taps) in [("smol", vec![&first, &second]), ("once", vec![&second])] {
        let body = padded(model, 10 * MIB - 1);
        client.post("/v1/chat/completions", body).await?.expect(200)?;
        for tap in taps {
            let seen = tap.seen().pop().context("a request")?;
            let text = seen.json()?.pointer("/messages/0/content").and_then(Value::as_str).map(str::len);
            anyhow::ensure!(text.is_some_and(|length| length > 10 * MIB - 200), "{text:?} bytes arrived");
        }
        anyhow::ensure!(
            second.seen().pop().and_then(|seen| seen.model()).as_deref() == Some("another-name"),
            "{model}"
        );
        second.forget();

        let answer = client.post("/v1/chat/completions", padded(model, 11 * MIB)).await?.expect(413)?;
        let code = answer.json()?.pointer("/error/code").cloned();
        anyhow::ensure!(code == Some(json!("request_too_large")), "{}", answer.text());
    }
    Ok(())
}

/// A hundred unfinished requests are all that one HTTP/2 connection gets; another client is served meanwhile.
pub async fn one_connection_has_a_hundred_streams(shared: Arc<Shared>) -> anyhow::Result<()> {
    const STREAMS: usize = 100;
    let basic = quick(&shared, "one_connection_has_a_hundred_streams", &[]).await?;
    let envoy = basic.gateway.envoy()?;
    let mut connection = connect(&basic.gateway).await?;
    let mut unfinished = Vec::new();
    for _ in 0..STREAMS {
        unfinished.push(begin(&mut connection, &basic.gateway, 1024).await?);
    }
    running(&basic.gateway, &envoy, STREAMS as u64).await?;
    anyhow::ensure!(connection.current_max_send_streams() == STREAMS, "{}", connection.current_max_send_streams());
    is_served(&basic.gateway.client(OTHER_KEY), "a hundred unfinished requests").await
}

/// Forty large bodies that never end, on one connection: Envoy resets the largest requests while the heap is not yet
/// full, and a client with a small one does not notice.
pub async fn large_bodies_end_before_the_memory(shared: Arc<Shared>) -> anyhow::Result<()> {
    // The heap that it may have, and what it has besides: code, stacks, and with the filter as WebAssembly a VM. Growth says
    // nothing: a VM is in the memory from the start, and as a module the filter leaves its place to bodies.
    const RESIDENT_MIB: u64 = 128 + 112;
    const BODIES: usize = 40;
    let basic = quick(&shared, "large_bodies_end_before_the_memory", &["--envoy-memory", "128Mi"]).await?;
    let envoy = basic.gateway.envoy()?;
    let mut connection = connect(&basic.gateway).await?;
    let mut bodies = Vec::new();
    for _ in 0..BODIES {
        bodies.push(begin(&mut connection, &basic.gateway, 0).await?);
    }
    let other = basic.gateway.client(OTHER_KEY);
    let mut most = 0;
    // One MiB of each at a time, as a client on a network would.
    for _ in 0..9 {
        let parts = bodies.iter_mut().map(|body| body.send(vec![b'x'; MIB]));
        futures::future::join_all(parts).await;
        most = most.max(resident(&basic.gateway)?);
    }
    let ended = bodies.iter().filter(|body| body.reset).count();
    poll::until("requests are ended for their memory", || async {
        let by_overload = envoy.stat("envoy.overload_actions.reset_high_memory_stream.count")?;
        anyhow::ensure!(by_overload > 0, "{ended} requests were ended, none for its memory; Envoy had {most} MiB");
        Ok(())
    })
    .await?;
    anyhow::ensure!(most <= RESIDENT_MIB, "Envoy had {most} MiB");
    println!("{BODIES} bodies that never end: {ended} were ended, Envoy had {most} MiB");
    is_served(&other, "bodies that never end").await
}

/// Clients that ask for large answers and do not read them.
pub async fn slow_readers_hold_little(shared: Arc<Shared>) -> anyhow::Result<()> {
    const READERS: usize = 60;
    const MOST_MIB: u64 = 64;
    let basic = quick(&shared, "slow_readers_hold_little", &[]).await?;
    let before = resident(&basic.gateway)?;
    basic.tap.behave(answer("audio/mpeg", vec![7; 8 * MIB]));
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut stream = TcpStream::connect(("127.0.0.1", basic.gateway.port())).await?;
        let body = chat("smol", 1).to_string();
        let length = body.len();
        let request = format!(
            "POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {APP_KEY}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        readers.push(stream);
    }
    poll::until("all requests are at the backend", || async {
        anyhow::ensure!(basic.tap.seen().len() == READERS, "{}", basic.tap.seen().len());
        Ok(())
    })
    .await?;
    basic.tap.behave(answer("application/json", small_answer()));
    is_served(&basic.gateway.client(OTHER_KEY), "slow readers").await?;
    let growth = resident(&basic.gateway)?.saturating_sub(before);
    anyhow::ensure!(growth <= MOST_MIB, "{READERS} answers of 8 MiB that nobody reads hold {growth} MiB");
    println!("{READERS} answers of 8 MiB that nobody reads hold {growth} MiB");
    Ok(())
}

/// More connections than one port takes: those that are too many are closed, and one that is there goes on.
pub async fn idle_connections_are_bounded(shared: Arc<Shared>) -> anyhow::Result<()> {
    const LIMIT: usize = 10_000;
    const TOO_MANY: usize = 50;
    const EACH: usize = 60;
    /// Enough for all of them.
    const SOURCES: u8 = (LIMIT + TOO_MANY).div_ceil(EACH) as u8;
    if !may_open("idle_connections_are_bounded", LIMIT + TOO_MANY) {
        return Ok(());
    }
    let basic = quick(&shared, "idle_connections_are_bounded", &[]).await?;
    let envoy = basic.gateway.envoy()?;
    let other = basic.gateway.client(OTHER_KEY);
    is_served(&other, "nothing").await?;
    let mut idle = Vec::new();
    // No source has so many that it is the limit of sources that refuses them.
    for source in 1..=SOURCES {
        let some = (0..EACH).map(|_| connect_from([127, 0, 1, source], &basic.gateway));
        idle.extend(try_join_all(some).await?);
        // A client leaves a connection that it has not used for some time, and all of them may take longer.
        other.chat("smol").await?.expect(200)?;
    }
    let name = format!("connection_limit.default/llm/{}.limited_connections", basic.gateway.port());
    poll::until("connections are refused", || async {
        let refused = envoy.stat(&name)?;
        anyhow::ensure!(refused >= TOO_MANY as u64, "{refused}");
        Ok(())
    })
    .await?;
    // On the connection that it has.
    is_served(&other, "ten thousand idle connections").await
}

/// One address has as many connections as it may: further ones are closed, other addresses are served, and so is this
/// one again when some of its connections are over.
pub async fn connections_of_one_source_are_bounded(shared: Arc<Shared>) -> anyhow::Result<()> {
    const TOO_MANY: usize = 50;
    if !may_open("connections_of_one_source_are_bounded", OF_ONE_SOURCE + TOO_MANY) {
        return Ok(());
    }
    let basic = quick(&shared, "connections_of_one_source_are_bounded", &["--concurrency", "1"]).await?;
    let gateway = &basic.gateway;
    let envoy = gateway.envoy()?;
    poll::until("the worker knows that it is alone", || async {
        let some = (0..OF_ONE_SOURCE / 2).map(|_| connect_from([127, 0, 0, 3], gateway));
        for mut stream in try_join_all(some).await? {
            stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").await?;
            anyhow::ensure!(stream.read(&mut [0]).await? > 0, "a connection is refused");
        }
        Ok(())
    })
    .await?;
    let refused = || envoy.stat("wasmcustom.tollgate.connections_refused");
    let before = refused()?;
    let mut open = Vec::new();
    for _ in 0..OF_ONE_SOURCE {
        open.push(connect_from(SOURCE, gateway).await?);
    }
    for _ in 0..TOO_MANY {
        let mut refused = connect_from(SOURCE, gateway).await?;
        anyhow::ensure!(ends(&mut refused).await, "a connection that is one too many is served");
    }
    let first = open.first().context("a connection")?;
    anyhow::ensure!(is_open(first), "a connection that was served is closed");
    // From 127.0.0.1.
    gateway.client(OTHER_KEY).chat("smol").await?.expect(200)?;
    poll::until("the refused connections are counted", || async {
        let refused = refused()? - before;
        anyhow::ensure!(refused == TOO_MANY as u64, "{refused}");
        Ok(())
    })
    .await?;

    open.truncate(OF_ONE_SOURCE - 1);
    poll::until("there is a place again", || async {
        let mut stream = connect_from(SOURCE, gateway).await?;
        stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 401"), "{answer:?}");
        Ok(())
    })
    .await
}

/// The kernel spreads connections as it likes, so a worker may be full before the others. Together they never take more.
pub async fn workers_share_what_one_source_may_have(shared: Arc<Shared>) -> anyhow::Result<()> {
    const WORKERS: usize = 8;
    const TRIED: usize = OF_ONE_SOURCE * 2;
    if !may_open("workers_share_what_one_source_may_have", TRIED) {
        return Ok(());
    }
    let workers = WORKERS.to_string();
    let basic = quick(&shared, "workers_share_what_one_source_may_have", &["--concurrency", &workers]).await?;
    // At first they do not know how many they are.
    let served = poll::until("those that are too many are closed", || async {
        let mut open = Vec::new();
        for _ in 0..TRIED {
            open.push(connect_from(SOURCE, &basic.gateway).await?);
        }
        // All are there before the first one ends. Whoever has no answer was closed.
        let answered = try_join_all(open.iter_mut().map(is_answered)).await?;
        let served = answered.into_iter().filter(|answered| *answered).count();
        anyhow::ensure!(served <= OF_ONE_SOURCE, "{served} of {TRIED} are open");
        Ok(served)
    })
    .await?;
    anyhow::ensure!(served >= OF_ONE_SOURCE / WORKERS, "no worker has {served} connections");
    Ok(())
}

/// Others cannot reach it, and what could stop or open up Envoy is not answered.
pub async fn envoys_admin_is_for_its_owner(shared: Arc<Shared>) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let basic = quick(&shared, "envoys_admin_is_for_its_owner", &[]).await?;
    let envoy = basic.gateway.envoy()?;
    let mode = std::fs::metadata(envoy.socket())?.permissions().mode() & 0o777;
    anyhow::ensure!(mode == 0o600, "{mode:o}");
    envoy.get("/ready")?;
    for path in ["/quitquitquit", "/config_dump", "/logging", "/runtime", "/memory", "/", "/help"] {
        let refused = envoy.get(path).err().with_context(|| format!("{path} is answered"))?.to_string();
        anyhow::ensure!(refused.contains("HTTP/1.1 403"), "{refused}");
    }
    Ok(())
}

/// A gateway whose backend answers at once, for two consumers.
async fn quick(shared: &Shared, test: &str, arguments: &[&str]) -> anyhow::Result<Basic> {
    let basic = Basic::start_with(shared, test, |setup, tap: &Tap| {
        let once = [Target::new("runner").model(BACKEND_MODEL)];
        Ok(setup
            .file("models.yaml", &crate::fixtures::models_with(tap, "Required", &[("smol", &once, Some(0))]))?
            .file("other.yaml", &config::consumer("other", OTHER_KEY, ""))?
            .arguments(arguments))
    })
    .await?;
    basic.tap.behave(answer("application/json", small_answer()));
    Ok(basic)
}

fn answer(content_type: &'static str, body: Vec<u8>) -> Behaviour {
    Behaviour::Answer { content_type, body }
}

fn small_answer() -> Vec<u8> {
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
    json!({"choices": [], "usage": usage}).to_string().into_bytes()
}

/// A chat of exactly so many bytes.
fn padded(model: &str, bytes: usize) -> String {
    let body = |text: &str| json!({"model": model, "messages": [{"role": "user", "content": text}]}).to_string();
    body(&"x".repeat(bytes - body("").len()))
}

/// An HTTP/2 connection.
pub async fn connect(gateway: &RunningGateway) -> anyhow::Result<SendRequest<hyper::body::Bytes>> {
    let stream = TcpStream::connect(("127.0.0.1", gateway.port())).await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Another client has its answer beside what one client does. How long it took is told and not asserted, because a busy
/// machine is no fault.
async fn is_served(other: &Client, beside: &str) -> anyhow::Result<()> {
    let asked = Instant::now();
    other.chat("smol").await?.expect(200)?;
    println!("another client's answer beside {beside}: {:.1} ms", asked.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn is_open(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Whether this process may have so many connections open.
fn may_open(test: &str, connections: usize) -> bool {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let enough = files.current.is_none_or(|most| most >= (connections + 1_000) as u64);
    if !enough {
        println!("SKIP {test}: this machine allows {:?} open files", files.current);
    }
    enough
}

/// A connection from another of this machine's loopback addresses.
async fn connect_from(source: [u8; 4], gateway: &RunningGateway) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(([127, 0, 0, 1], gateway.port()).into()).await
}

/// Whether the peer closes this connection without having sent anything.
async fn ends(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(poll::LIMIT, stream.read(&mut [0])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

/// Whether a request on this connection has an answer, after which the connection stays. If not, the peer has closed it.
async fn is_answered(stream: &mut TcpStream) -> anyhow::Result<bool> {
    // A connection that was closed may take the request or not.
    let _sent = stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let read = tokio::time::timeout(poll::LIMIT, stream.read(&mut [0])).await;
    Ok(matches!(read.context("a connection is neither answered nor closed")?, Ok(1)))
}

/// A request whose body does not end.
struct Unfinished {
    body: h2::SendStream<hyper::body::Bytes>,
    _answer: h2::client::ResponseFuture,
    reset: bool,
}

// === impl Unfinished ===

impl Unfinished {
    /// Sends more of the body, as fast as Envoy takes it.
    async fn send(&mut self, mut bytes: Vec<u8>) {
        while !bytes.is_empty() && !self.reset {
            self.body.reserve_capacity(bytes.len());
            let capacity = std::future::poll_fn(|context| self.body.poll_capacity(context)).await;
            let Some(Ok(capacity)) = capacity else {
                self.reset = true;
                return;
            };
            let rest = bytes.split_off(capacity.min(bytes.len()));
            self.reset = self.body.send_data(bytes.into(), false).is_err();
            bytes = rest;
        }
    }
}

async fn begin(
    connection: &mut SendRequest<hyper::body::Bytes>,
    gateway: &RunningGateway,
    bytes: usize,
) -> anyhow::Result<Unfinished> {
    let uri: Uri = format!("{}/v1/chat/completions", gateway.url()).parse()?;
    let request = Request::post(uri)
        .header("authorization", format!("Bearer {APP_KEY}"))
        .header("content-type", "application/json")
        .body(())?;
    *connection = connection.clone().ready().await?;
    let (answer, body) = connection.send_request(request, false)?;
    let mut unfinished = Unfinished { body, _answer: answer, reset: false };
    unfinished.send(br#"{"model":"smol","messages":[{"role":"user","content":""#.to_vec()).await;
    unfinished.send(vec![b'x'; bytes]).await;
    Ok(unfinished)
}

async fn running(gateway: &RunningGateway, envoy: &EnvoyAdmin, requests: u64) -> anyhow::Result<()> {
    let name = format!("http.default/llm/{}.downstream_rq_active", gateway.port());
    poll::until("the requests run", || async {
        let active = envoy.stat(&name)?;
        anyhow::ensure!(active == requests, "{active}");
        Ok(())
    })
    .await
}

/// MiB of memory that Envoy has of the machine now: its own figures are some seconds old.
fn resident(gateway: &RunningGateway) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.envoy_id()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib / 1024)
}
