//! Certificates of the mesh change twice a minute, everywhere and in every one of these tests (tests/lab/mesh/values.yaml). Here
//! streams of tokens run through it for five minutes, by a Gateway and at the runner itself, and the books are right.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures::future::{try_join, try_join_all};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tollgate_tests::lab::books;
use tollgate_tests::lab::caller::Caller;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;

use crate::gateway::GATEWAY;
use crate::members;
use crate::sidecars::host;

e2e! {
    no_stream_breaks_while_certificates_change,
}

/// How long new streams begin.
const LOAD: Duration = Duration::from_secs(300);
/// Each way has streams of both lengths all the time. The longer ones take about as long as a certificate is in use, on two busy
/// cores. The runner answers four at a time.
const TOKENS: [u32; 2] = [400, 100];
/// What a certificate of half a minute gives in five minutes, and a little less.
const ROTATIONS: usize = 8;
/// In the middle of so many streams of each way, the certificate of each place changes.
const SEEN: usize = 4;
/// Between two looks at a certificate.
const LOOK: Duration = Duration::from_secs(2);
const TOLD: Duration = Duration::from_secs(30);

/// A stream that has come to its end.
struct Stream {
    began: Instant,
    ended: Instant,
    tokens: u64,
}

/// Where TLS is made with a certificate of the mesh.
struct Place {
    name: &'static str,
    address: String,
    /// What it shows, in PEM.
    shown: String,
    /// When it showed another one: between these looks.
    rotations: Vec<(Instant, Instant)>,
}

/// What has happened so far.
#[derive(Default)]
struct Progress {
    streams: AtomicU64,
    tokens: AtomicU64,
}

async fn no_stream_breaks_while_certificates_change(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (ns, runner) = ("rotation", host("rotation"));
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    let web = members::caller(&lab, ns, "web").await?;
    let stranger = members::caller(&lab, ns, "stranger").await?;
    members::apply(&lab, ns, GATEWAY).await?;
    lab.kubectl(&["-n", ns, "wait", "--for=condition=Programmed", WAIT, "gateway/llm"]).await?.success()?;
    stranger.answered(&runner, 401, "the runner's sidecar has its filter").await?;
    let gateway = format!("llm-tollgate.{ns}:8443");
    let first = poll::within(PATIENCE, "the Gateway leads to the runner", || stream(&web, &gateway, 8)).await?;

    let caller = lab.field(&["-n", ns, "pod", "web"], "{.status.podIP}").await?;
    let mut places = [
        Place::new("the Gateway", gateway.clone()),
        Place::new("the runner's sidecar", format!("{runner}:80")),
        // It has no Service. Its sidecar takes what comes to any port.
        Place::new("the caller's sidecar", format!("{caller}:8000")),
        Place::new("the control plane", "tollgate.tollgate-system:18002".to_owned()),
    ];
    let (end, progress) = (Instant::now() + LOAD, Progress::default());
    let asked = |host| try_join_all(TOKENS.map(|length| streams(&web, host, length, end, &progress)));
    let both = try_join(asked(&gateway), asked(&runner));
    let ((by_gateway, direct), ()) = try_join(both, watch(&lab, &mut places, end, &progress)).await?;
    let [by_gateway, direct] = [by_gateway, direct].map(|streams| streams.into_iter().flatten().collect::<Vec<_>>());

    for place in &places {
        let Place { name, rotations, .. } = place;
        let [seen_by_gateway, seen_direct] = [&by_gateway, &direct].map(|streams| place.seen_by(streams));
        println!(
            "    {name}: {} rotations, in the middle of {seen_by_gateway} of {} streams by the Gateway and {seen_direct} of {} others",
            rotations.len(),
            by_gateway.len(),
            direct.len()
        );
        anyhow::ensure!(rotations.len() >= ROTATIONS, "{name}: {} rotations", rotations.len());
        anyhow::ensure!(seen_by_gateway >= SEEN && seen_direct >= SEEN, "{name}: too few streams see a rotation");
    }

    // No token is lost on the way to the books, and none is charged twice.
    let all = || by_gateway.iter().chain(&direct).chain([&first]);
    let (requests, tokens) = (u64::try_from(all().count())?, all().map(|stream| stream.tokens).sum::<u64>());
    println!("    {requests} streams, {tokens} tokens");
    let rows = books::rows(&lab, &format!("{ns}/web"), requests).await?;
    let used = books::tokens(&rows);
    anyhow::ensure!(used == tokens, "{tokens} tokens came, and {used} are in the books: {rows:?}");
    poll::within(PATIENCE, "both budgets are settled", || async {
        let spent = books::spent(&lab, &format!("{ns}/web")).await?;
        let once = ["both", "own"].map(|policy| (format!("{ns}/{policy}"), tokens));
        anyhow::ensure!(spent == once, "{tokens} were used: {spent:?}");
        Ok(())
    })
    .await?;

    // The certificates of the beginning are long over. Those of now are good for connections that are new.
    lab.kubectl(&["-n", ns, "delete", "pod", "-l", "app=runner"]).await?.success()?;
    lab.kubectl(&["-n", ns, "rollout", "status", "deployment/runner", WAIT]).await?.success()?;
    for host in [&gateway, &runner] {
        web.answered(host, 200, "another Pod of the runner answers").await?;
    }
    Ok(())
}

/// Streams one after the other until this time.
async fn streams(
    web: &Caller<'_>,
    host: &str,
    length: u32,
    end: Instant,
    progress: &Progress,
) -> anyhow::Result<Vec<Stream>> {
    let mut done = Vec::new();
    while Instant::now() < end {
        let one = stream(web, host, length).await?;
        progress.streams.fetch_add(1, Ordering::Relaxed);
        progress.tokens.fetch_add(one.tokens, Ordering::Relaxed);
        done.push(one);
    }
    Ok(done)
}

/// One stream of exactly so many tokens.
///
/// # Errors
/// When it breaks, lacks its end, or has other tokens than its usage says.
async fn stream(web: &Caller<'_>, host: &str, length: u32) -> anyhow::Result<Stream> {
    let body = json!({
        "model": "smol", "max_tokens": length, "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "Count from one to one thousand, in words."}],
        // Of this model server alone: it does not end earlier, and each token is text of its own. Parts of one character come
        // in one event.
        "ignore_eos": true, "grammar": "root ::= [a-z ]+",
    })
    .to_string();
    let url = format!("http://{host}/v1/chat/completions");
    let began = Instant::now();
    let request = ["--no-buffer", "--max-time", "600", &url, "-H", "content-type: application/json", "-d", &body];
    let answer = web.ask(&request).await?.expect(200)?;
    let ended = Instant::now();

    let mut events = answer.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect::<Vec<_>>();
    anyhow::ensure!(events.pop() == Some("[DONE]"), "it has no end: {:?}", events.last());
    let events: Vec<Value> = events.into_iter().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let has_content = |event: &&Value| {
        event.pointer("/choices/0/delta/content").and_then(Value::as_str).is_some_and(|content| !content.is_empty())
    };
    let came = u64::try_from(events.iter().filter(has_content).count())?;
    let usage = events.last().and_then(|event| event.get("usage")).context("no usage")?;
    let told = |name: &str| usage.get(name).and_then(Value::as_u64).with_context(|| format!("no {name}: {usage}"));
    let (input, output) = (told("prompt_tokens")?, told("completion_tokens")?);
    anyhow::ensure!(output == u64::from(length) && came == output, "{came} of {length} tokens came: {usage}");
    Ok(Stream { began, ended, tokens: input + output })
}

/// Looks at the certificates until this time, and tells how far it is.
async fn watch(lab: &Lab, places: &mut [Place], end: Instant, progress: &Progress) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (mut before, mut told) = (begun, begun);
    for place in &mut *places {
        place.shown = place.shows(lab).await?;
    }
    while Instant::now() < end {
        sleep(LOOK).await;
        let now = Instant::now();
        for place in &mut *places {
            let shown = place.shows(lab).await?;
            if shown != place.shown {
                place.rotations.push((before, Instant::now()));
                place.shown = shown;
            }
        }
        before = now;
        if now.duration_since(told) >= TOLD {
            told = now;
            let [streams, tokens] = [&progress.streams, &progress.tokens].map(|count| count.load(Ordering::Relaxed));
            let rotations: Vec<usize> = places.iter().map(|place| place.rotations.len()).collect();
            let seconds = begun.elapsed().as_secs();
            println!("    after {seconds} s: {streams} streams, {tokens} tokens, rotations {rotations:?}");
        }
    }
    Ok(())
}

// === impl Place ===

impl Place {
    fn new(name: &'static str, address: String) -> Self {
        Self { name, address, shown: String::new(), rotations: Vec::new() }
    }

    /// The certificate that it shows to anybody, before it asks for one.
    async fn shows(&self, lab: &Lab) -> anyhow::Result<String> {
        let connect = ["openssl", "s_client", "-alpn", "istio,http/1.1,h2", "-connect", &self.address];
        let said = lab.exec(&connect).await?;
        let (_, rest) = said.out.split_once("-----BEGIN CERTIFICATE-----").with_context(|| format!("{said:?}"))?;
        let (certificate, _) = rest.split_once("-----END CERTIFICATE-----").context("a certificate has an end")?;
        Ok(certificate.to_owned())
    }

    /// How many of these streams ran before and after a rotation here.
    fn seen_by(&self, streams: &[Stream]) -> usize {
        let sees = |stream: &Stream| {
            self.rotations.iter().any(|(before, after)| stream.began < *before && *after < stream.ended)
        };
        streams.iter().filter(|stream| sees(stream)).count()
    }
}
