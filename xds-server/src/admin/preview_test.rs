//! For looking at the page: `cargo test -p tollgate admin::preview_test -- --ignored --nocapture`.

use tollgate_core::ir::{CalendarUnit, Limit, Mode, ScopePart, Window};
use tollgate_core::status::{Finding, Origin, Severity, Spot};
use tollgate_proto::v1::{self, Settlement, SyncRequest, Usage};

use super::*;
use crate::ledger::tests::{TTL, limit, limits, used};

fn budgets() -> Vec<Limit> {
    let daily = limit(100_000, vec![ScopePart::Consumer, ScopePart::Model]);
    let window = Window::Calendar { unit: CalendarUnit::Month, time_zone: "Europe/Berlin".into() };
    let team = Limit {
        id: "default/teams/monthly".into(),
        policy: "teams".into(),
        name: "monthly".into(),
        window,
        ..limit(5_000_000, vec![ScopePart::Label("team".into())])
    };
    let all = Limit {
        id: "default/all/hourly".into(),
        policy: "all".into(),
        name: "hourly".into(),
        mode: Mode::Shadow,
        ..limit(250_000, vec![])
    };
    vec![daily, team, all]
}

fn spend(worker: u64, limit: &str, scope: &[&str], spent: u64, leased: u64) -> [SyncRequest; 2] {
    let bucket = v1::Bucket { limit: limit.into(), scope: scope.iter().map(|part| (*part).to_owned()).collect() };
    let call = |sequence| SyncRequest { proxy: "envoy".into(), epoch: 1, worker, sequence, ..SyncRequest::default() };
    let tokens = spent + leased;
    let wants = vec![v1::Want { bucket: Some(bucket.clone()), wish: tokens, least: tokens }];
    let settlements =
        vec![Settlement { bucket: Some(bucket), window_start: 0, from_lease: 0, charged: 0, released: 0 }];
    let mut settle = SyncRequest { settlements, ..call(2) };
    settle.settlements[0].charged = spent;
    settle.settlements[0].from_lease = spent;
    [SyncRequest { wants, ..call(1) }, settle]
}

async fn traffic(ledger: &Ledger) {
    let daily = "default/per-consumer/daily";
    let budgets = [
        (daily, vec!["research-app", "smol"], 34_120, 3_000),
        (daily, vec!["research-app", "gpt-4o-mini"], 86_411, 1_250),
        (daily, vec!["billing/invoice-reader-with-a-rather-long-name", "smol"], 100_000, 0),
        (daily, vec!["support-bot", "claude-sonnet"], 812, 500),
        ("default/teams/monthly", vec!["research"], 1_204_733, 4_250),
        ("default/teams/monthly", vec!["support"], 90_312, 500),
        ("default/all/hourly", vec![], 224_001, 0),
    ];
    for (worker, (limit, scope, spent, leased)) in (1..).zip(budgets) {
        let [lease, mut settle] = spend(worker, limit, &scope, spent, leased);
        let answer = ledger.sync(lease).await.unwrap();
        settle.settlements[0].window_start = answer.grants[0].window_start;
        ledger.sync(settle).await.unwrap();
    }
    let usage = [
        ("research-app", "smol", "runner-a", 412, 61_233, 18_410, 0, 0, 0),
        ("research-app", "smol", "runner-b", 57, 8_902, 2_212, 0, 0, 3),
        ("research-app", "gpt-4o-mini", "openai", 1_288, 1_402_118, 311_090, 988_211, 120_334, 0),
        ("billing/invoice-reader-with-a-rather-long-name", "smol", "runner-a", 96, 88_000, 12_000, 0, 0, 1),
        ("support-bot", "claude-sonnet", "anthropic", 9, 700, 112, 0, 0, 0),
    ];
    for (sequence, row) in (1..).zip(usage) {
        let (consumer, model, backend, requests, input, output, cached, reasoning, estimated) = row;
        let usage = (0..requests)
            .map(|n| Usage {
                backend: backend.into(),
                input_tokens: input / requests + u64::from(n == 0) * (input % requests),
                output_tokens: output / requests + u64::from(n == 0) * (output % requests),
                cached_input_tokens: cached / requests,
                reasoning_tokens: reasoning / requests,
                estimated: n < estimated,
                ..used(consumer, model, 0)
            })
            .collect();
        let call =
            SyncRequest { proxy: "envoy".into(), epoch: 1, worker: 99, sequence, usage, ..SyncRequest::default() };
        ledger.sync(call).await.unwrap();
    }
}

fn status(bad: bool) -> Status {
    let proxy = |node: &str, connected| Proxy { node: node.into(), connected, acked: true, nacks: vec![] };
    let mut gateways = vec![Gateway {
        name: "default/llm".into(),
        programmed: true,
        listeners: vec![Listener { name: "http".into(), address: "127.0.0.1:8080".into(), protocol: "HTTP".into() }],
        proxies: vec![proxy("default/llm~1", true)],
    }];
    let mut findings = vec![];
    if bad {
        let message = "Error adding/updating listener(s) edge/public/https: Failed to load certificate chain".into();
        let nacks = vec![Refused { resource: "Listener edge/public/https".into(), message }];
        gateways.push(Gateway {
            name: "edge/public".into(),
            programmed: false,
            listeners: vec![Listener {
                name: "https".into(),
                address: "0.0.0.0:8443".into(),
                protocol: "HTTPS".into(),
            }],
            proxies: vec![
                Proxy { acked: false, nacks, ..proxy("edge/public~7f3a", true) },
                proxy("edge/public~91c0", false),
            ],
        });
        findings.push(Finding {
            severity: Severity::Error,
            reason: "UnsupportedValue".into(),
            origin: Some(Origin::new("ModelPool", "default", "chat")),
            spot: Some(Spot { file: "config/20-models.yaml".into(), line: 14 }),
            field: "spec.models[0].targets[1].weight".into(),
            message: "weight is \"a lot\", not a number".into(),
            hint: "use a whole number from 0 to 1000000".into(),
        });
        findings.push(Finding {
            severity: Severity::Warning,
            reason: "NoKey".into(),
            origin: Some(Origin::new("Consumer", "default", "support-bot")),
            spot: Some(Spot { file: "config/30-consumers.yaml".into(), line: 3 }),
            field: String::new(),
            message: "it has neither keys nor identities, so nobody can be it".into(),
            hint: String::new(),
        });
    }
    Status { gateways, findings, generation: 12, ready: true, waiting_for: vec![] }
}

#[tokio::test]
#[ignore = "serves the page until it is stopped"]
async fn preview() {
    let dir = tempfile::tempdir().unwrap();
    let empty = std::env::var_os("EMPTY").is_some();
    let ledger = Ledger::open(dir.path(), limits(if empty { vec![] } else { budgets() }), TTL).unwrap();
    let published = match empty {
        true => Status { waiting_for: vec!["no input has been read yet".into()], ..Status::default() },
        false => {
            traffic(&ledger).await;
            status(std::env::var_os("BAD").is_some())
        }
    };
    let (_keep, status) = watch::channel(Arc::new(published));
    let router = routers(ledger, status, Metrics::default()).all;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    axum::serve(listener, router).await.unwrap();
}
