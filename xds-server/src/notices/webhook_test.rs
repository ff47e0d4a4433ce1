//! A webhook with a real receiver, and the real ledger on its file.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tollgate_proto::v1::{Settlement, SyncRequest};

use super::{InvalidWebhook, Place, Webhook};
use crate::ledger::tests::{TTL, bucket, consumer_limit, limits, request, sync};
use crate::ledger::{self, Crossings, Embedded, Receipts};
use crate::report::{Consumers, Metrics, Status};

const PATIENCE: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_millis(20);

/// What takes the events.
#[derive(Debug, Clone, Default)]
struct Receiver(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// The answers, first to last; afterwards it takes everything.
    answers: Vec<u16>,
    got: Vec<(HeaderMap, Value)>,
}

struct World {
    dir: tempfile::TempDir,
    receiver: Receiver,
    url: String,
    metrics: Metrics,
}

struct Run {
    ledger: Embedded,
    webhook: JoinHandle<()>,
}

// === impl Receiver ===

impl Receiver {
    async fn serve(&self) -> String {
        async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
            let mut inner = receiver.0.lock().unwrap();
            let answer = if inner.answers.is_empty() { 204 } else { inner.answers.remove(0) };
            inner.got.push((headers, serde_json::from_str(&body).unwrap()));
            StatusCode::from_u16(answer).unwrap()
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?secret=s3cret", listener.local_addr().unwrap());
        let router = Router::new().route("/hook", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    /// What has come as soon as there is so much.
    async fn got(&self, count: usize) -> Vec<(HeaderMap, Value)> {
        let come = async {
            while self.0.lock().unwrap().got.len() < count {
                sleep(SOON).await;
            }
        };
        timeout(PATIENCE, come).await.unwrap_or_else(|_| panic!("{:?}", self.0.lock().unwrap().got));
        // No more than that comes.
        sleep(SOON * 10).await;
        let got = self.0.lock().unwrap().got.clone();
        assert_eq!(got.len(), count, "{got:?}");
        got
    }
}

// === impl World ===

impl World {
    async fn new(answers: &[u16]) -> Self {
        let receiver = Receiver::default();
        receiver.0.lock().unwrap().answers = answers.to_vec();
        let url = receiver.serve().await;
        Self { dir: tempfile::tempdir().unwrap(), receiver, url, metrics: Metrics::default() }
    }

    /// The ledger with its webhook, as the control plane starts them.
    fn open(&self, token: Option<&Path>) -> Run {
        let crossings = Crossings::new(Receipts::Given);
        let place = Place::new(&self.url, token.map(Path::to_owned)).unwrap();
        let webhook = Webhook::new(place, &self.metrics).unwrap().trying_again_after(SOON);
        let webhook = tokio::spawn(webhook.run(crossings.follow()));
        let metrics = ledger::Metrics::new().telling(crossings);
        let ledger = Embedded::open(self.dir.path(), limits(vec![consumer_limit(1000)]), TTL, metrics).unwrap();
        Run { ledger, webhook }
    }

    /// Waits until so many are counted: whoever was answered counts it a moment later.
    async fn counts(&self, expected: &[(&str, u64)]) {
        let counted = async {
            while expected.iter().any(|(result, count)| self.deliveries(result) != *count) {
                sleep(SOON).await;
            }
        };
        let all = || expected.iter().map(|(result, _)| self.deliveries(result)).collect::<Vec<_>>();
        timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("{expected:?}: {:?}", all()));
    }

    fn deliveries(&self, result: &str) -> u64 {
        let text = self.metrics.text(&Status::default(), Consumers::LeftOut).unwrap();
        let name = format!("tollgate_webhook_deliveries_total{{result=\"{result}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }
}

// === impl Run ===

impl Run {
    async fn spends(&self, sequence: u64, tokens: u64) {
        let settlement =
            Settlement { bucket: Some(bucket()), window_start: 0, from_lease: 0, charged: tokens, released: 0 };
        let settlements = vec![settlement];
        sync(&self.ledger, SyncRequest { settlements, ..request(1, sequence) }).await.unwrap();
    }

    /// As a process that is killed: nothing that was not written is known any more.
    async fn end(self) {
        self.webhook.abort();
        let _ = self.webhook.await;
        self.ledger.close().await;
    }
}

fn data<'a>(got: &'a (HeaderMap, Value), name: &str) -> &'a Value {
    &got.1["data"][name]
}

#[tokio::test]
async fn a_crossing_is_posted_as_a_cloud_event_with_the_token_of_the_file() {
    let world = World::new(&[]).await;
    let token = world.dir.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let run = world.open(Some(&token));
    run.spends(1, 850).await;
    let first = world.receiver.got(1).await.remove(0);
    assert_eq!(first.0["content-type"], "application/cloudevents+json; charset=utf-8");
    assert_eq!(first.0["authorization"], "Bearer first");
    let event = &first.1;
    assert_eq!((&event["specversion"], &event["type"]), (&"1.0".into(), &"dev.tollgate.budget.threshold".into()));
    assert_eq!(event["source"], "/apis/tollgate.dev/namespaces/default/tokenpolicies/per-consumer");
    assert_eq!(event["subject"], "daily");
    assert_eq!(data(&first, "scope"), &serde_json::json!({"Consumer": "app"}));
    for (name, value) in [("threshold", 80), ("spent", 850), ("tokens", 1000)] {
        assert_eq!(data(&first, name), &Value::from(value));
    }
    std::fs::write(&token, "second").unwrap();
    run.spends(2, 200).await;
    let second = world.receiver.got(2).await.remove(1);
    assert_eq!(
        (&second.0["authorization"], data(&second, "threshold")),
        (&"Bearer second".parse().unwrap(), &100.into())
    );
    assert_ne!(second.1["id"], event["id"]);
    run.end().await;
}

#[tokio::test]
async fn a_receiver_that_is_down_for_a_while_gets_all_of_it_in_order() {
    let world = World::new(&[503, 500, 401, 429, 302]).await;
    let run = world.open(None);
    run.spends(1, 850).await;
    run.spends(2, 200).await;
    let got = world.receiver.got(7).await;
    let thresholds: Vec<_> = got.iter().map(|got| data(got, "threshold").as_u64().unwrap()).collect();
    assert_eq!(thresholds, [80, 80, 80, 80, 80, 80, 100]);
    let ids: std::collections::BTreeSet<_> = got.iter().map(|got| got.1["id"].to_string()).collect();
    assert_eq!(ids.len(), 2, "the same event has the same id");
    world.counts(&[("Failed", 5), ("Delivered", 2)]).await;
    run.end().await;
}

#[tokio::test]
async fn what_the_receiver_will_never_take_holds_up_nobody() {
    let world = World::new(&[422]).await;
    let run = world.open(None);
    run.spends(1, 1000).await;
    world.receiver.got(2).await;
    world.counts(&[("GivenUp", 1), ("Delivered", 1)]).await;
    run.end().await;
}

#[tokio::test]
async fn after_a_restart_what_was_taken_is_not_sent_again_and_what_was_not_is() {
    let world = World::new(&[204, 500]).await;
    let run = world.open(None);
    run.spends(1, 850).await;
    world.receiver.got(1).await;
    world.counts(&[("Delivered", 1)]).await;
    // The receipt is durable within a second; here, three times that.
    sleep(Duration::from_secs(3)).await;
    run.spends(2, 150).await;
    let come = async {
        while world.deliveries("Failed") < 1 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, come).await.unwrap();
    run.end().await;
    let before = world.receiver.0.lock().unwrap().got.len();
    let again = world.open(None);
    let got = world.receiver.got(before + 1).await;
    assert_eq!(data(got.last().unwrap(), "threshold"), 100);
    assert_eq!(got.last().unwrap().1["id"], got[1].1["id"]);
    // Nor is anything sent of a budget that goes on.
    again.spends(3, 10).await;
    world.receiver.got(before + 1).await;
    again.end().await;
}

#[tokio::test]
async fn a_ledger_that_another_one_has_now_tells_nothing_more() {
    let world = World::new(&[500; 1000]).await;
    let Run { ledger, webhook } = world.open(None);
    let run = Run { ledger: ledger.clone(), webhook };
    run.spends(1, 850).await;
    timeout(PATIENCE, async {
        while world.deliveries("Failed") < 2 {
            sleep(SOON).await;
        }
    })
    .await
    .unwrap();
    // As when another replica leads.
    ledger.close().await;
    // What was under way ends, and then there is nothing more.
    let rests = async {
        loop {
            let before = world.deliveries("Failed");
            sleep(SOON * 20).await;
            if world.deliveries("Failed") == before {
                return;
            }
        }
    };
    timeout(PATIENCE, rests).await.expect("it goes on");
    run.end().await;
}

#[test]
fn a_webhook_is_a_url_without_a_password() {
    let wrong = |url: &str| Place::new(url, None).unwrap_err();
    assert!(matches!(wrong("hook"), InvalidWebhook::NoUrl(_)));
    assert!(matches!(wrong("ftp://host/"), InvalidWebhook::Scheme));
    assert!(matches!(wrong("https://me:pass@host/"), InvalidWebhook::Credential));
    Place::new("https://hooks.example/services/x", None).unwrap();
}
