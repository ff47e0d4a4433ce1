//! Scoped routes: where a host's routes are found by its name, and else by a filter that asks again. Every request must
//! be answered as it is from one table, and nothing may pass our own filter on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use hyper::{Request, Uri};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate_tests::client::{Answer, chat};
use tollgate_tests::config;
use tollgate_tests::elsewhere::Elsewhere;
use tollgate_tests::envoy_admin::EnvoyAdmin;
use tollgate_tests::gateway::RunningGateway;
use tollgate_tests::poll;
use tollgate_tests::process;
use tollgate_tests::tap::Behaviour;
use tollgate_tests::xxh64;

use crate::fixtures::{APP_KEY, Drains, models};
use crate::suite::{Shared, e2e};

e2e! {
    both_forms_answer_alike,
    in_scopes_changes_act_without_a_drop,
    a_pool_behind_a_wildcard_is_never_unfiltered,
    a_table_crosses_the_limit_without_a_drop,
    a_listener_that_is_scoped_again_has_its_scopes,
    a_key_of_the_same_hash_finds_nothing,
}

const SCOPED: [&str; 2] = ["--scoped-routes-above", "0"];
const ONE_TABLE: [&str; 2] = ["--scoped-routes-above", "1000000"];

// === the two forms ===

/// Generated routes, the same on two gateways of which one is scoped, and generated requests to both.
async fn both_forms_answer_alike(shared: Arc<Shared>) -> anyhow::Result<()> {
    const REQUESTS: usize = 400;
    let tap = shared.tap().await?;
    tap.behave(Behaviour::Answer { content_type: "application/json", body: b"{}".to_vec() });
    for seed in 0..from_environment("TOLLGATE_SCOPE_ROUNDS", 2)? {
        let mut random = StdRng::seed_from_u64(seed);
        let routes = generated_routes(&mut random);
        let mut gateways = Vec::new();
        for (form, arguments) in [("one", ONE_TABLE), ("scoped", SCOPED)] {
            let setup = shared.setup(&format!("both_forms_answer_alike_{form}"))?.arguments(&arguments);
            let second = process::free_port()?;
            let entry = listeners(setup.port(), second);
            let setup = setup
                .file("entry.yaml", &entry)?
                .file("routes.yaml", &routes)?
                .file("models.yaml", &models(&tap))?
                .file("app.yaml", &config::consumer("app", APP_KEY, ""))?;
            let gateway = setup.start().await?;
            let mut ports = Vec::new();
            for port in [gateway.port(), second] {
                let stream = TcpStream::connect(("127.0.0.1", port)).await?;
                let (http2, connection) = h2::client::handshake(stream).await?;
                tokio::spawn(connection);
                ports.push(Entrance { port, http2 });
            }
            gateways.push((gateway, ports));
        }
        let mut found = 0;
        for number in 0..REQUESTS {
            let (request, which) = (generated_request(&mut random), usize::from(random.random_ratio(1, 4)));
            let mut answers = Vec::new();
            for (_, ports) in &mut gateways {
                let entrance = ports.get_mut(which).context("two ports")?;
                answers.push(request.send(entrance).await.with_context(|| format!("{request:?}"))?);
            }
            let [one, scoped] = &answers[..] else { anyhow::bail!("two answers") };
            anyhow::ensure!(
                one == scoped,
                "seed {seed}, request {number} {request:?} to port {which}: one table says {one:?}, scopes say {scoped:?}"
            );
            found += usize::from(one.0 != 404);
        }
        anyhow::ensure!(found > REQUESTS / 10, "only {found} requests had a route");
    }
    Ok(())
}

/// A port of a gateway and an HTTP/2 connection to it.
struct Entrance {
    port: u16,
    http2: h2::client::SendRequest<hyper::body::Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Http1,
    AbsoluteForm,
    Http2,
}

#[derive(Debug)]
struct Asked {
    wire: Wire,
    host: String,
    path: &'static str,
    kind: bool,
    key: bool,
    steers: Option<&'static str>,
}

/// Status, `location` and body.
type Said = (u16, Option<String>, String);

// === impl Asked ===

impl Asked {
    async fn send(&self, entrance: &mut Entrance) -> anyhow::Result<Said> {
        let uri = format!("http://{}{}", self.host, self.path);
        match uri.parse::<Uri>() {
            Ok(uri) if self.wire == Wire::Http2 => self.by_http2(uri, entrance).await,
            _ => self.by_http1(entrance.port).await,
        }
    }

    fn headers(&self, port: u16) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        if self.kind {
            headers.push(("x-kind", "a".to_owned()));
        }
        if self.key {
            headers.push(("authorization", format!("Bearer {APP_KEY}")));
        }
        if let Some(host) = self.steers {
            headers.push(("x-tollgate-scope", format!("default/llm/{port}{host}")));
        }
        headers
    }

    async fn by_http1(&self, port: u16) -> anyhow::Result<Said> {
        let Self { host, path, .. } = self;
        let (target, host) = match self.wire {
            Wire::AbsoluteForm if !host.is_empty() => (format!("http://{host}{path}"), "a.example.com"),
            _ => ((*path).to_owned(), host.as_str()),
        };
        let headers: String = self.headers(port).iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n").as_bytes()).await?;
        // Envoy would wait a second for us to close a connection first, so the end is found by the length.
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                let length: usize = header("content-length").unwrap_or("0").parse()?;
                if body.len() >= length {
                    let status = head.split(' ').nth(1).context("no status")?.parse()?;
                    return Ok((status, header("location").map(str::to_owned), body.to_owned()));
                }
            }
            anyhow::ensure!(stream.read_buf(&mut answer).await? > 0, "the connection ended: {answer:?}");
        }
    }

    async fn by_http2(&self, uri: Uri, entrance: &mut Entrance) -> anyhow::Result<Said> {
        let mut request = Request::get(uri);
        for (name, value) in self.headers(entrance.port) {
            request = request.header(name, value);
        }
        entrance.http2 = entrance.http2.clone().ready().await?;
        let (answer, _) = entrance.http2.send_request(request.body(())?, true)?;
        let (head, mut body) = answer.await?.into_parts();
        let mut text = String::new();
        while let Some(chunk) = body.data().await {
            text.push_str(&String::from_utf8_lossy(&chunk?));
        }
        let location = head.headers.get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((head.status.as_u16(), location, text))
    }
}

fn generated_request(random: &mut StdRng) -> Asked {
    const HOSTS: [&str; 16] = [
        "a.example.com",
        "b.example.com",
        "x.a.example.com",
        "y.x.a.example.com",
        "z.y.x.a.example.com",
        "q.example.com",
        "example.com",
        "other.org",
        "www.other.org",
        "a.b.other.org",
        "unknown.net",
        "localhost",
        "127.0.0.1",
        "[::1]",
        "a.example.com.",
        ".example.com",
    ];
    const ODD: [&str; 5] = ["", "*.example.com", "*", "a.example.com|", "default/llm/8080"];
    const PORTS: [&str; 8] = ["", "", "", ":80", ":8080", ":99999", ":", ":80:80"];
    let mut host = match random.random_range(0..12) {
        0 => (*ODD.choose(random).unwrap_or(&"")).to_owned(),
        _ => format!("{}{}", HOSTS.choose(random).unwrap_or(&""), PORTS.choose(random).unwrap_or(&"")),
    };
    if random.random_ratio(1, 4) {
        host = host.chars().map(|c| if random.random() { c.to_ascii_uppercase() } else { c }).collect();
    }
    Asked {
        wire: *[Wire::Http1, Wire::Http1, Wire::AbsoluteForm, Wire::Http2].choose(random).unwrap_or(&Wire::Http1),
        host,
        path: ["/", "/x", "/x/y", "/x/y/z", "/z", "/xy"].choose(random).unwrap_or(&"/"),
        kind: random.random(),
        key: random.random_ratio(1, 8),
        steers: random
            .random_ratio(1, 5)
            .then(|| ["", "|a.example.com", "|other.org"].choose(random).copied())
            .flatten(),
    }
}

/// Listeners that share a port and take requests from each other, and one on a port of its own.
fn listeners(port: u16, second: u16) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: llm}}
spec:
  gatewayClassName: tollgate
  listeners:
  - {{name: any, port: {port}, protocol: HTTP}}
  - {{name: wild, port: {port}, protocol: HTTP, hostname: '*.example.com'}}
  - {{name: deep, port: {port}, protocol: HTTP, hostname: '*.a.example.com'}}
  - {{name: one, port: {port}, protocol: HTTP, hostname: a.example.com}}
  - {{name: second, port: {second}, protocol: HTTP}}
"
    )
}

fn generated_routes(random: &mut StdRng) -> String {
    const SECTIONS: [&str; 5] = ["any", "wild", "deep", "one", "second"];
    const HOSTNAMES: [&str; 11] = [
        "a.example.com",
        "b.example.com",
        "x.a.example.com",
        "y.x.a.example.com",
        "*.example.com",
        "*.a.example.com",
        "*.x.a.example.com",
        "example.com",
        "other.org",
        "*.other.org",
        "www.other.org",
    ];
    let documents: Vec<String> = (0..30)
        .map(|number| {
            let some = |random: &mut StdRng, of: &[&str], most: usize| {
                let count = random.random_range(0..=most);
                let mut some: Vec<String> = of.choose_multiple(random, count).map(|one| format!("'{one}'")).collect();
                some.sort();
                some
            };
            let sections = some(random, &SECTIONS, 2);
            let parents = if sections.is_empty() {
                "{name: llm}".to_owned()
            } else {
                let parents: Vec<_> =
                    sections.iter().map(|section| format!("{{name: llm, sectionName: {section}}}")).collect();
                parents.join(", ")
            };
            let hostnames = some(random, &HOSTNAMES, 3).join(", ");
            let hostnames = if hostnames.is_empty() { String::new() } else { format!("  hostnames: [{hostnames}]\n") };
            let rules: String =
                (0..random.random_range(1..=2)).map(|rule| generated_rule(random, number, rule)).collect();
            format!(
                "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r{number}}}
spec:
  parentRefs: [{parents}]
{hostnames}  rules:
{rules}"
            )
        })
        .collect();
    config::documents(&documents)
}

/// Most rules redirect to a place of their own. The others lead to the pool, where a request without a key gets 401.
fn generated_rule(random: &mut StdRng, route: usize, rule: usize) -> String {
    let (kind, path) =
        *[("PathPrefix", "/"), ("PathPrefix", "/x"), ("PathPrefix", "/x/y"), ("Exact", "/x"), ("Exact", "/z")]
            .choose(random)
            .unwrap_or(&("PathPrefix", "/"));
    let headers = if random.random_ratio(1, 4) { ", headers: [{name: x-kind, value: a}]" } else { "" };
    let action = if random.random_ratio(1, 4) {
        "    backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]\n".to_owned()
    } else {
        format!(
            "    filters: [{{type: RequestRedirect, requestRedirect: {{port: 4000, path: {{type: ReplaceFullPath, replaceFullPath: /r{route}-{rule}}}}}}}]\n"
        )
    };
    format!("  - matches: [{{path: {{type: {kind}, value: {path}}}{headers}}}]\n{action}")
}

// === changes ===

/// Routes of exact hosts and of wildcards change, come and go under traffic. Every request is answered, by a route of
/// its own host, and no listener notices. TOLLGATE_SCOPE_CHANGES makes more changes.
async fn in_scopes_changes_act_without_a_drop(shared: Arc<Shared>) -> anyhow::Result<()> {
    let setup = shared.setup("in_scopes_changes_act_without_a_drop")?.arguments(&SCOPED);
    let entry = config::gateway(setup.port());
    let mut setup = setup.file("entry.yaml", &entry)?;
    let mut versions = [0_u64; HOSTS];
    for host in 0..HOSTS {
        setup = setup.file(&format!("h{host}.yaml"), &redirect(host, 0))?;
    }
    let gateway = setup.start().await?;
    let before = Drains::of(&gateway.envoy()?)?;
    let traffic = Asking::start(&gateway, 3);
    let mut random = StdRng::seed_from_u64(5);
    for change in 0..from_environment("TOLLGATE_SCOPE_CHANGES", 100)? {
        let host = random.random_range(0..HOSTS);
        let version = versions.get_mut(host).context("a host")?;
        *version += 1;
        gateway.folder().write(&format!("h{host}.yaml"), &redirect(host, *version))?;
        answers_with(&gateway, &name_of(host), Some(&format!("/h{host}-v{version}"))).await?;
        if change.is_multiple_of(10) {
            // One host more, and one less.
            let (file, name) = (format!("h{}.yaml", HOSTS + host), name_of(HOSTS + host));
            gateway.folder().write(&file, &redirect(HOSTS + host, 0))?;
            answers_with(&gateway, &name, Some(&format!("/h{}-v0", HOSTS + host))).await?;
            gateway.folder().remove(&file)?;
            answers_with(&gateway, &name, None).await?;
        }
    }
    let asked = traffic.stop().await?;
    anyhow::ensure!(Drains::of(&gateway.envoy()?)? == before, "a listener was changed or drained");
    println!("{asked} requests beside the changes");
    Ok(())
}

/// One host more than one table may have, and one less again: the listener changes, and no request fails, not even on a
/// connection from before.
async fn a_table_crosses_the_limit_without_a_drop(shared: Arc<Shared>) -> anyhow::Result<()> {
    // The listener's own hostname counts as well.
    let limit = (HOSTS + 1).to_string();
    let setup = shared.setup("a_table_crosses_the_limit_without_a_drop")?.arguments(&["--scoped-routes-above", &limit]);
    let entry = config::gateway(setup.port());
    let mut setup = setup.file("entry.yaml", &entry)?;
    for host in 0..HOSTS {
        setup = setup.file(&format!("h{host}.yaml"), &redirect(host, 0))?;
    }
    let gateway = setup.start().await?;
    let traffic = Asking::start(&gateway, 3);
    let (file, name) = (format!("h{HOSTS}.yaml"), name_of(HOSTS));
    for version in 1..=3 {
        gateway.folder().write(&file, &redirect(HOSTS, version))?;
        answers_with(&gateway, &name, Some(&format!("/h{HOSTS}-v{version}"))).await?;
        traffic.more(50).await?;
        gateway.folder().remove(&file)?;
        answers_with(&gateway, &name, None).await?;
        traffic.more(50).await?;
        gateway.folder().write("h0.yaml", &redirect(0, version))?;
        answers_with(&gateway, &name_of(0), Some(&format!("/h0-v{version}"))).await?;
    }
    traffic.stop().await?;
    Ok(())
}

/// Envoy forgets all scopes with the last listener that looks among them, and does not ask again when there is one again.
async fn a_listener_that_is_scoped_again_has_its_scopes(shared: Arc<Shared>) -> anyhow::Result<()> {
    let parts = Elsewhere::new(&shared.tools, "a_listener_that_is_scoped_again_has_its_scopes")?;
    let port = process::free_port()?;
    parts.conf.write("entry.yaml", &config::gateway(port))?;
    for host in [1, 2] {
        parts.conf.write(&format!("h{host}.yaml"), &redirect(host, 0))?;
    }
    let _control = parts.serve(&["--scoped-routes-above", "3"])?;
    parts.bootstrap("24h")?;
    let envoy = parts.envoy_with(1, &["--drain-time-s", "1"])?;
    let url = format!("http://127.0.0.1:{port}");
    answers_at(&url, &name_of(1), Some("/h1-v0")).await?;
    let admin = EnvoyAdmin::of(envoy.id())?;
    for version in 1..=2 {
        parts.conf.write("h3.yaml", &redirect(3, version))?;
        for (host, version) in [(3, version), (1, 0), (2, 0)] {
            answers_at(&url, &name_of(host), Some(&format!("/h{host}-v{version}"))).await?;
        }
        parts.conf.remove("h3.yaml")?;
        answers_at(&url, &name_of(3), None).await?;
        poll::until("nothing looks among the scopes any more", || async {
            let draining = admin.stat("listener_manager.total_filter_chains_draining")?;
            anyhow::ensure!(draining == 0, "{draining} are drained");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Every fifth is a wildcard.
const HOSTS: usize = 20;

fn is_wildcard(host: usize) -> bool {
    host.is_multiple_of(5)
}

/// A name that the host's route serves.
fn name_of(host: usize) -> String {
    if is_wildcard(host) { format!("any.of.h{host}.test") } else { format!("h{host}.test") }
}

/// The route of a host, which redirects to a place that says whose route it is.
fn redirect(host: usize, version: u64) -> String {
    let hostname = if is_wildcard(host) { format!("'*.h{host}.test'") } else { format!("h{host}.test") };
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: h{host}}}
spec:
  parentRefs: [{{name: llm}}]
  hostnames: [{hostname}]
  rules: [{{filters: [{{type: RequestRedirect, requestRedirect: {{path: {{type: ReplaceFullPath, replaceFullPath: /h{host}-v{version}}}}}}}]}}]
"
    )
}

fn without_redirects() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?)
}

/// The path of the `location` that this host is sent to.
async fn location(http: &reqwest::Client, url: &str, host: &str) -> anyhow::Result<Option<String>> {
    let answer = http.get(url).header("host", host).send().await?;
    let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
    let location = location.and_then(|location| location.parse::<Uri>().ok()).map(|uri| uri.path().to_owned());
    let expected = if location.is_some() { 302 } else { 404 };
    anyhow::ensure!(answer.status() == expected, "{host}: {} {location:?}", answer.status());
    Ok(location)
}

/// Waits until new connections have this answer.
async fn answers_with(gateway: &RunningGateway, host: &str, wanted: Option<&str>) -> anyhow::Result<()> {
    answers_at(&gateway.url(), host, wanted).await
}

async fn answers_at(url: &str, host: &str, wanted: Option<&str>) -> anyhow::Result<()> {
    poll::until(&format!("{host} is answered with {wanted:?}"), || async {
        let location = location(&without_redirects()?, url, host).await?;
        anyhow::ensure!(location.as_deref() == wanted, "{location:?}");
        Ok(())
    })
    .await
}

/// Clients that ask for the hosts that are always there, in every spelling, on connections that they keep.
struct Asking {
    over: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

// === impl Asking ===

impl Asking {
    fn start(gateway: &RunningGateway, clients: u64) -> Self {
        let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..clients).map(|seed| {
            let (over, asked, url) = (Arc::clone(&over), Arc::clone(&asked), gateway.url());
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed);
                let http = without_redirects()?;
                while !over.load(Ordering::Relaxed) {
                    let host = random.random_range(0..HOSTS);
                    let name = match random.random_range(0..4) {
                        0 => name_of(host).to_uppercase(),
                        1 => format!("{}:8080", name_of(host)),
                        _ => name_of(host),
                    };
                    let location = location(&http, &url, &name).await?;
                    let own = location.as_deref().is_some_and(|path| path.starts_with(&format!("/h{host}-v")));
                    anyhow::ensure!(own, "{name} was answered with {location:?}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        Self { clients: clients.collect(), over, asked }
    }

    /// Waits until so many more requests are answered.
    async fn more(&self, answers: usize) -> anyhow::Result<()> {
        let wanted = self.asked.load(Ordering::Relaxed) + answers;
        poll::until("clients go on", || async {
            anyhow::ensure!(self.asked.load(Ordering::Relaxed) >= wanted, "not yet");
            Ok(())
        })
        .await
    }

    /// How many requests were answered, all of them as they should.
    async fn stop(self) -> anyhow::Result<usize> {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await??;
        }
        Ok(self.asked.load(Ordering::Relaxed))
    }
}

// === keys ===

/// Envoy compares hashes of keys, and a client writes the host. So a client of one port can write a host whose key has
/// the hash of another port's, and must not get there.
async fn a_key_of_the_same_hash_finds_nothing(shared: Arc<Shared>) -> anyhow::Result<()> {
    let setup = shared.setup("a_key_of_the_same_hash_finds_nothing")?.arguments(&SCOPED);
    let (port, inside) = (setup.port(), process::free_port()?);
    let route = |name: &str, hostname: &str| {
        redirect(0, 0)
            .replace("metadata: {name: h0}", &format!("metadata: {{name: {name}}}"))
            .replace("parentRefs: [{name: llm}]", "parentRefs: [{name: llm, sectionName: inside}]")
            .replace("  hostnames: ['*.h0.test']\n", hostname)
    };
    let entry = config::gateway(port) + &format!("  - {{name: inside, port: {inside}, protocol: HTTP}}\n");
    let gateway = setup
        .file("entry.yaml", &entry)?
        .file("all.yaml", &route("all", ""))?
        .file("one.yaml", &route("one", "  hostnames: [in.test]\n"))?
        .start()
        .await?;
    let http = without_redirects()?;
    let inside_url = format!("http://127.0.0.1:{inside}");
    for (begin, scope) in [("", ""), ("in.test:", "|in.test")] {
        let key = format!("default/llm/{inside}{scope}");
        let host = host_with_hash(&format!("default/llm/{port}|"), begin, xxh64::hash(key.as_bytes()))?;
        let found = location(&http, &inside_url, &host).await?;
        anyhow::ensure!(found.is_some(), "{host} has no route on its own port either");
        let found = location(&http, &gateway.url(), &host).await?;
        anyhow::ensure!(found.is_none(), "{host} is answered by another port's route: {found:?}");
    }
    Ok(())
}

/// A host that begins so, whose key in the table has this hash.
fn host_with_hash(table: &str, begin: &str, wanted: u64) -> anyhow::Result<String> {
    const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut random = StdRng::seed_from_u64(3);
    let may_stand = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte);
    // One in some ten thousand has letters only.
    for _ in 0..10_000_000 {
        let mut first = format!("{table}{begin}").into_bytes();
        while first.len() < 32 {
            first.push(*LETTERS.choose(&mut random).context("a letter")?);
        }
        let first: [u8; 32] = first.try_into().map_err(|_| anyhow::anyhow!("the table's name is too long"))?;
        let last = xxh64::last_for(&first, wanted);
        if last.iter().all(may_stand) {
            let key = String::from_utf8([&first[..], &last].concat())?;
            return Ok(key.strip_prefix(table).context("the key begins with the table")?.to_owned());
        }
    }
    anyhow::bail!("no host was found")
}

// === the filter ===

/// Which filters a request has is decided when it arrives, before a wildcard's route is found for it. Whatever a client
/// writes as its host, and whatever it writes into the header that finds the route, the pool asks for a key.
async fn a_pool_behind_a_wildcard_is_never_unfiltered(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (tap, open) = (shared.tap().await?, shared.tap().await?);
    let quick = || Behaviour::Answer { content_type: "application/json", body: COMPLETION.to_vec() };
    tap.behave(quick());
    open.behave(quick());
    let setup = shared.setup("a_pool_behind_a_wildcard_is_never_unfiltered")?.arguments(&SCOPED);
    let (entry, routes) = (config::gateway(setup.port()), pool_and_open(open.port()));
    let gateway = setup
        .file("entry.yaml", &entry)?
        .file("routes.yaml", &routes)?
        .file("models.yaml", &models(&tap))?
        .file("app.yaml", &config::consumer("app", APP_KEY, ""))?
        .start()
        .await?;
    let table = format!("default/llm/{}", gateway.port());
    let steering = [table.clone(), format!("{table}|open.test"), format!("{table}|exact.pool.test"), String::new()];
    let hosts = ["a.pool.test", "B.Pool.TEST", "x.y.pool.test:8080", "exact.pool.test", "EXACT.pool.test:1"];
    let path = "/v1/chat/completions";
    let body = chat("smol", 2).to_string();
    let mut with_key = 0;
    for host in hosts {
        for steering in &steering {
            let headers = [("host", host), ("x-tollgate-scope", steering.as_str())];
            for client in [gateway.without_key(), gateway.client("another-key")] {
                let answer = client.post_with(path, &headers, body.clone()).await?.expect(401)?;
                anyhow::ensure!(code(&answer)?.as_deref() == Some("invalid_api_key"), "{}", answer.text());
            }
            gateway.client(APP_KEY).post_with(path, &headers, body.clone()).await?.expect(200)?;
            with_key += 1;
        }
        // More than a connection's buffer holds: only the route allows that.
        let large =
            serde_json::json!({"model": "smol", "messages": [{"role": "user", "content": "x".repeat(3 << 20)}]});
        gateway.client(APP_KEY).post_with(path, &[("host", host)], large.to_string()).await?.expect(200)?;
        with_key += 1;
    }
    let seen = tap.seen();
    anyhow::ensure!(seen.len() == with_key, "{} requests reached the pool's backend", seen.len());

    // The route that needs no key is served in every spelling as well, and leads to nothing else.
    for host in ["open.test", "OPEN.test:9", "any.open.test", "Any.Open.test"] {
        for steering in &steering {
            let headers = [("host", host), ("x-tollgate-scope", steering.as_str())];
            gateway.without_key().post_with(path, &headers, body.clone()).await?.expect(200)?;
        }
    }
    anyhow::ensure!(open.seen().len() == 4 * steering.len(), "{} requests", open.seen().len());
    for host in ["pool.test", "unknown.test", "open.test.pool", "exact.pool.test.unknown.test"] {
        gateway.client(APP_KEY).post_with(path, &[("host", host)], body.clone()).await?.expect(404)?;
    }
    for seen in seen.iter().chain(&open.seen()) {
        let told = seen.headers.iter().find(|(name, _)| name.starts_with("x-tollgate"));
        anyhow::ensure!(told.is_none(), "a backend was told {told:?}");
    }
    gateway.admin().usage_of("consumer=app", u64::try_from(with_key)?).await?;
    Ok(())
}

const COMPLETION: &[u8] = br#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;

fn code(answer: &Answer) -> anyhow::Result<Option<String>> {
    Ok(answer.json()?.pointer("/error/code").and_then(serde_json::Value::as_str).map(str::to_owned))
}

/// The pool behind a wildcard and an exact name, and beside it a Service that anybody may call.
fn pool_and_open(port: u16) -> String {
    let route = |name: &str, hostnames: &str, backend: &str| {
        format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: llm}}]
  hostnames: [{hostnames}]
  rules: [{{backendRefs: [{backend}]}}]
"
        )
    };
    config::documents(&[
        route("chat", "'*.pool.test', exact.pool.test", "{group: tollgate.dev, kind: ModelPool, name: chat}"),
        route("open", "open.test, '*.open.test'", "{name: app, port: 80}"),
        config::service(port),
    ])
}

fn from_environment(name: &str, default: u64) -> anyhow::Result<u64> {
    std::env::var(name).map_or(Ok(default), |value| value.parse().context("a number is expected"))
}
