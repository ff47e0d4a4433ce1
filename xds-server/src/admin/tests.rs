//! The admin port over real HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tollgate_core::status::{
    Brief, Condition, ConditionType, Finding, ObjectStatus, Origin, Reason, Severity, Spot, Status as ObjectConditions,
    StatusKind,
};
use tollgate_proto::v1::{self, Settlement, SyncRequest};

use super::*;
use crate::ledger::Embedded;
use crate::ledger::tests::{TTL, bucket, consumer_limit, limits, request, sync, used, want};
use crate::report::{GatewayStatus, Listener, Nack, Proxy};
use crate::web;

struct Port {
    address: String,
    /// The ports for metrics and probes alone.
    scrapers: String,
    probes: String,
    ledger: Embedded,
    status: watch::Sender<Arc<Status>>,
    metrics: Metrics,
    _dir: tempfile::TempDir,
}

/// Knows one object.
struct OneObject;

impl Objects for OneObject {
    fn statuses(&self) -> Vec<ObjectStatus> {
        let conditions = [Condition::bad(ConditionType::Accepted, Reason::Invalid, "it has no models")];
        vec![ObjectStatus {
            kind: StatusKind::ModelPool,
            namespace: "default".into(),
            name: "chat".into(),
            brief: Brief::ModelPool { models: vec!["smol".into()] },
            status: ObjectConditions { conditions: conditions.into_iter().collect(), ..ObjectConditions::default() },
        }]
    }
}

async fn port() -> Port {
    port_of(Entrance::Open).await
}

async fn port_of(entrance: Entrance) -> Port {
    let dir = tempfile::tempdir().unwrap();
    let counted = crate::ledger::Metrics::new();
    let ledger = Embedded::open(dir.path(), limits(vec![consumer_limit(1000)]), TTL, counted.clone()).unwrap();
    let (status, metrics) = (watch::Sender::new(Arc::new(Status::default())), Metrics::default());
    metrics.add(|registry, consumers| counted.register(registry, consumers));
    let (handle, objects) = (Arc::new(ledger.clone()), Arc::new(OneObject));
    let routers = Routers::new(handle, status.subscribe(), objects, metrics.clone(), Consumers::LeftOut);
    let [address, scrapers, probes] =
        [serve(routers.all(entrance)), serve(routers.metrics()), serve(probes(status.subscribe()))];
    let (address, scrapers, probes) = (address.await, scrapers.await, probes.await);
    Port { address, scrapers, probes, ledger, status, metrics, _dir: dir }
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(web::serve(listener, "test", router, web::Limits::PEOPLE));
    address
}

impl Port {
    async fn get(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("{}{path}", self.address)).await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    async fn text(&self, path: &str) -> (StatusCode, String) {
        let response = self.get(path).await;
        (response.status(), response.text().await.unwrap())
    }

    /// Makes a lease of 100, of which one request uses 30.
    async fn traffic(&self) {
        let first = sync(&self.ledger, SyncRequest { wants: want(100, 100), ..request(1, 1) }).await.unwrap();
        let settlement = Settlement {
            bucket: Some(bucket()),
            window_start: first.grants[0].window_start,
            from_lease: 30,
            charged: 30,
            released: 0,
        };
        let report =
            SyncRequest { settlements: vec![settlement], usage: vec![used("app", "smol", 29)], ..request(1, 2) };
        sync(&self.ledger, report).await.unwrap();
    }
}

fn status() -> Status {
    Status {
        gateways: vec![GatewayStatus {
            name: "default/llm".into(),
            programmed: true,
            listeners: vec![Listener {
                name: "http".into(),
                address: "127.0.0.1:8080".into(),
                protocol: "HTTP".into(),
            }],
            proxies: vec![Proxy {
                node: "envoy-1".into(),
                connected: true,
                acked: false,
                nacks: vec![Nack { resource: "Cluster x".into(), message: "no".into() }],
            }],
        }],
        findings: vec![Finding {
            severity: Severity::Error,
            reason: Reason::UnsupportedValue,
            origin: Some(Origin::new("ModelPool", "default", "chat")),
            spot: Some(Spot { file: "pool.yaml".into(), line: 7 }),
            field: "spec.models[0].retries".into(),
            message: "retries is 99".into(),
            hint: "at most 10".into(),
        }],
        generation: 3,
        ready: true,
        waiting_for: vec![],
    }
}

#[tokio::test]
async fn usage_and_budgets_have_the_shape_of_the_contract() {
    let port = port().await;
    assert_eq!(port.json("/api/usage").await, json!({"rows": []}));
    assert_eq!(port.json("/api/budgets").await, json!({"rows": []}));
    port.traffic().await;
    let row = json!({
        "consumer": "app", "route": "chat", "model": "smol", "backend": "runner-a", "requests": 1,
        "input_tokens": 29, "output_tokens": 1, "cached_input_tokens": 0, "reasoning_tokens": 0,
        "estimated_requests": 0,
    });
    for path in ["", "?consumer=&model=&since=", "?consumer=app", "?consumer=default%2Fapp&since=1h", "?model=smol"] {
        assert_eq!(port.json(&format!("/api/usage{path}")).await, json!({"rows": [row.clone()]}), "{path}");
    }
    assert_eq!(port.json("/api/usage?consumer=other").await, json!({"rows": []}));
    let budgets = port.json("/api/budgets").await;
    let budget = &budgets["rows"][0];
    assert_eq!(budget["scope"], json!({"Consumer": "app"}));
    assert_eq!((&budget["policy"], &budget["limit"]), (&json!("per-consumer"), &json!("daily")));
    assert_eq!((&budget["tokens"], &budget["spent"], &budget["leased"]), (&json!(1000), &json!(30), &json!(70)));
    budget["window_start"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
}

#[tokio::test]
async fn a_plot_has_the_sums_of_usage_by_hour_and_by_day() {
    let port = port().await;
    assert_eq!(port.json("/api/usage/series").await, json!({"step": "day", "series": []}));
    let now = jiff::Timestamp::now().as_millisecond();
    let at = |days: i64, consumer: &str, model: &str, tokens| v1::Usage {
        ended_at: now - days * 86_400_000,
        ..used(consumer, model, tokens)
    };
    let usage =
        vec![at(0, "app", "smol", 5), at(3, "app", "gpt", 7), at(3, "other", "smol", 20), at(40, "app", "smol", 90)];
    sync(&port.ledger, SyncRequest { usage, ..request(1, 1) }).await.unwrap();
    let inputs = async |query: &str| {
        let plot = port.json(&format!("/api/usage/series?{query}")).await;
        let series = plot["series"].as_array().unwrap().iter().map(|series| {
            let points = series["points"].as_array().unwrap();
            let is_time = |point: &Value| point["start"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok();
            assert!(points.iter().all(is_time), "{points:?}");
            let inputs: Vec<u64> = points.iter().map(|point| point["input_tokens"].as_u64().unwrap()).collect();
            (series["name"].as_str().unwrap().to_owned(), inputs)
        });
        series.collect::<Vec<_>>()
    };
    let row = |name: &str, inputs: &[u64]| (name.to_owned(), inputs.to_vec());
    assert_eq!(inputs("").await, [row("app", &[90, 7, 5]), row("other", &[20])]);
    assert_eq!(inputs("since=30d&by=model&step=day").await, [row("smol", &[20, 5]), row("gpt", &[7])]);
    assert_eq!(inputs("since=30d&consumer=default%2Fapp&model=smol").await, [row("app", &[5])]);
    assert_eq!(inputs("step=hour&by=backend").await, [row("runner-a", &[27, 5])]);
    assert_eq!(inputs("since=500w&limit=1").await, inputs("limit=1").await, "days go as far back as there are any");

    // A consumer may be called `other`: what is of all others says of how many.
    let plot = port.json("/api/usage/series?limit=1").await;
    assert_eq!((&plot["series"][1]["name"], &plot["series"][1]["names"]), (&json!("other"), &json!(1)));
    assert_eq!(port.json("/api/usage/series").await["series"][1].get("names"), None);

    for (query, field) in [
        ("by=route", "by"),
        ("step=minute", "step"),
        ("step=hour&since=15d", "since"),
        ("since=x", "since"),
        ("limit=0", "limit"),
        ("limit=51", "limit"),
        ("user=app", "user"),
    ] {
        let response = port.get(&format!("/api/usage/series?{query}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["field"], field);
    }
}

#[tokio::test]
async fn a_bad_question_is_answered_with_field_and_hint() {
    let port = port().await;
    for (query, field) in [("since=yesterday", "since"), ("since=1", "since"), ("user=app", "user")] {
        let response = port.get(&format!("/api/usage?{query}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let body: BTreeMap<String, BTreeMap<String, String>> = response.json().await.unwrap();
        assert_eq!(body["error"]["field"], field);
        assert!(!body["error"]["hint"].is_empty());
    }
    assert_eq!(port.get("/api/nothing").await.status(), StatusCode::NOT_FOUND);
    port.ledger.close().await;
    assert_eq!(port.get("/api/usage").await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn probes_and_status_follow_the_control_plane() {
    let port = port().await;
    assert_eq!(port.text("/healthz").await, (StatusCode::OK, "ok\n".into()));
    let waiting = Status { waiting_for: vec!["no Envoy of default/llm is connected".into()], ..Status::default() };
    port.status.send_replace(Arc::new(waiting));
    let not_ready = (StatusCode::SERVICE_UNAVAILABLE, "no Envoy of default/llm is connected\n".into());
    assert_eq!(port.text("/readyz").await, not_ready);
    port.status.send_replace(Arc::new(status()));
    assert_eq!(port.text("/readyz").await, (StatusCode::OK, "ready\n".into()));
    let status = port.json("/api/status").await;
    assert_eq!(status["gateways"][0]["proxies"][0]["nacks"][0]["message"], "no");
    assert_eq!(status["findings"][0]["spot"], json!({"file": "pool.yaml", "line": 7}));
    assert_eq!((&status["generation"], &status["ready"]), (&json!(3), &json!(true)));
    let conditions =
        json!([{"type": "Accepted", "status": "False", "reason": "Invalid", "message": "it has no models"}]);
    let object = json!({
        "kind": "ModelPool", "namespace": "default", "name": "chat", "models": ["smol"], "conditions": conditions,
    });
    assert_eq!(status["objects"], json!([object]));
    assert_eq!(port.json("/api/status?objects=true").await, status);
    let without = port.json("/api/status?objects=false").await;
    assert_eq!((&without["generation"], without.get("objects")), (&json!(3), None));
    for wrong in ["/api/status?objects=no", "/api/status?object=false"] {
        assert_eq!(port.get(wrong).await.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn metrics_move() {
    let port = port().await;
    port.traffic().await;
    port.status.send_replace(Arc::new(status()));
    port.metrics.nack("default/llm", "Cluster");
    port.metrics.reload_refused();
    let (_, text) = port.text("/metrics").await;
    for line in [
        "tollgate_proxies_connected{gateway=\"default/llm\"} 1",
        "tollgate_gateway_programmed{gateway=\"default/llm\"} 1",
        "tollgate_resources_refused{gateway=\"default/llm\"} 1",
        "tollgate_nacks_total{gateway=\"default/llm\",kind=\"Cluster\"} 1",
        "tollgate_reloads_total{result=\"Refused\"} 1",
        "tollgate_reloads_total{result=\"Taken\"} 0",
        "tollgate_snapshot_generation 3",
        "tollgate_findings{severity=\"Error\"} 1",
        "tollgate_ledger_calls_total{outcome=\"Applied\"} 2",
        "tollgate_ledger_lease_holders 1",
        "tollgate_ledger_leased_tokens 70",
        "tollgate_ledger_writable 1",
        "tollgate_ledger_commit_calls_count",
        "tollgate_ledger_call_seconds_count 2",
        "tollgate_tokens_total{consumer=\"app\",model=\"smol\",kind=\"Input\"} 29",
        "tollgate_requests_total{consumer=\"app\",model=\"smol\"} 1",
        "tollgate_estimated_requests_total{consumer=\"app\",model=\"smol\"} 0",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} is not in\n{text}");
    }
    port.status.send_replace(Arc::new(Status::default()));
    assert!(!port.text("/metrics").await.1.contains("proxies_connected{"));
}

#[tokio::test]
async fn consumers_and_models_in_metrics_are_bounded() {
    let port = port().await;
    let usage = (0..1500).map(|n| used("app", &format!("made-up-{n}"), 1)).collect();
    sync(&port.ledger, SyncRequest { usage, ..request(1, 1) }).await.unwrap();
    let (_, text) = port.text("/metrics").await;
    assert_eq!(text.lines().filter(|line| line.starts_with("tollgate_requests_total")).count(), 1001);
    assert!(text.contains("tollgate_requests_total{consumer=\"other\",model=\"other\"} 500"), "{text}");
}

/// What a page's policy says of it: the style and the script that it has, and no others.
fn check_policy(policy: &str, html: &str) {
    for (element, directive) in [("style", "style-src"), ("script", "script-src")] {
        let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
        let inside = html.split(&begin).skip(1).map(|rest| rest.split(&end).next().unwrap());
        let hashes: Vec<String> = inside.map(page::source).collect();
        let allowed = policy.split("; ").find_map(|part| part.strip_prefix(directive)).unwrap_or(" 'none'");
        let expected = if hashes.is_empty() { "'none'".to_owned() } else { hashes.join(" ") };
        assert_eq!(allowed.trim(), expected, "{element}");
    }
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    assert!(!html.contains("http://") && !html.contains("https://"), "it needs no network");
    assert!(!html.contains("style=") && !html.contains("onclick"), "nothing is inline that a hash does not name");
}

#[tokio::test]
async fn the_page_runs_nothing_but_itself() {
    let port = port().await;
    let response = port.get("/").await;
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    let html = response.text().await.unwrap();
    check_policy(&policy, &html);
    assert!(policy.contains("require-trusted-types-for 'script'"), "{policy}");
    for dangerous in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
        assert!(!html.contains(dangerous), "{dangerous}");
    }
    assert!(!html.contains("logout"), "nobody has logged in");
}

const TOKEN: &str = "a-token-for-the-tests-of-this-port";

/// A port with a token, and its file.
async fn guarded() -> (Port, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{TOKEN}\n")).unwrap();
    (port_of(Entrance::by(TokenFile::open(file.path()).unwrap())).await, file)
}

/// A browser that shows what is answered, and follows nothing.
fn browser() -> reqwest::Client {
    let policy = reqwest::redirect::Policy::none();
    reqwest::Client::builder().redirect(policy).no_proxy().timeout(Duration::from_secs(120)).build().unwrap()
}

async fn log_in(port: &Port, token: &str) -> reqwest::Response {
    let form = format!("token={token}");
    let post = browser().post(format!("{}/login", port.address));
    post.header("content-type", "application/x-www-form-urlencoded").body(form).send().await.unwrap()
}

#[tokio::test]
async fn with_a_token_everything_but_probes_wants_it() {
    let (port, file) = guarded().await;
    port.status.send_replace(Arc::new(status()));
    let get = async |path: &str, authorization: Option<&str>| {
        let mut get = browser().get(format!("{}{path}", port.address)).header("host", "tollgate.example");
        if let Some(value) = authorization {
            get = get.header("authorization", value);
        }
        get.send().await.unwrap()
    };
    let right = format!("Bearer {TOKEN}");
    for path in
        ["/", "/api/usage", "/api/usage/series", "/api/budgets", "/api/status", "/metrics", "/nothing", "/login/x"]
    {
        let nothing = get(path, None).await;
        assert_eq!(nothing.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(nothing.headers()["www-authenticate"], "Bearer realm=\"tollgate\"");
        assert!(nothing.text().await.unwrap().contains("--admin-token-file"), "{path}");
        let expected = if path.len() > 1 && !path.starts_with("/api") && path != "/metrics" { 404 } else { 200 };
        assert_eq!(get(path, Some(&right)).await.status(), expected, "{path}");
    }
    assert_eq!(get("/api/usage", Some(&right.replace("Bearer", "bearer"))).await.status(), StatusCode::OK);
    assert_eq!(get("/api/usage", Some("Basic dG9sbGdhdGU6")).await.status(), StatusCode::UNAUTHORIZED);
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(port.get(probe).await.status(), StatusCode::OK, "{probe}");
        assert_eq!(get(probe, None).await.status(), StatusCode::MISDIRECTED_REQUEST, "it names Gateways");
    }
    std::fs::write(file.path(), "another-token-for-these-tests").unwrap();
    let old = get("/api/usage", Some(&right)).await;
    assert_eq!(old.status(), StatusCode::UNAUTHORIZED);
    assert!(old.headers()["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    assert_eq!(get("/api/usage", Some("Bearer another-token-for-these-tests")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn wrong_tokens_are_counted_and_the_right_one_waits_too() {
    let (port, _file) = guarded().await;
    let session = log_in(&port, TOKEN).await;
    let cookie = session.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let show = async |authorization: String| {
        let get = browser().get(format!("{}/api/usage", port.address)).header("authorization", authorization);
        get.send().await.unwrap()
    };
    for wrong in 0..10 {
        let status = match wrong % 3 {
            0 => show("Bearer x".to_owned()).await.status(),
            1 => show(format!("Bearer {TOKEN}{wrong}")).await.status(),
            _ => log_in(&port, "wrong").await.status(),
        };
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    for response in [show(format!("Bearer {TOKEN}")).await, log_in(&port, TOKEN).await] {
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    }
    let get = browser().get(format!("{}/api/usage", port.address)).header("cookie", cookie);
    assert_eq!(get.send().await.unwrap().status(), StatusCode::OK, "who has logged in goes on");
}

#[tokio::test]
async fn a_person_logs_in_by_a_form_and_out_again() {
    let (port, file) = guarded().await;
    let open = async |path: &str, cookie: &str| {
        let get = browser().get(format!("{}{path}", port.address)).header("accept", "text/html,*/*;q=0.8");
        get.header("cookie", cookie).send().await.unwrap()
    };
    for (path, form) in [("/", "login"), ("/api/usage", "../login"), ("/a/b/", "../../login")] {
        let led = open(path, "").await;
        assert_eq!((led.status(), &led.headers()["location"]), (StatusCode::SEE_OTHER, &form.parse().unwrap()));
    }
    let form = open("/login", "").await;
    let policy = form.headers()["content-security-policy"].to_str().unwrap().to_owned();
    check_policy(&policy, &form.text().await.unwrap());

    let wrong = log_in(&port, "not-the-token").await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(wrong.headers().contains_key("www-authenticate") && !wrong.headers().contains_key("set-cookie"));
    assert!(wrong.text().await.unwrap().contains("this is not the token"));

    let right = log_in(&port, TOKEN).await;
    assert_eq!((right.status(), &right.headers()["location"]), (StatusCode::SEE_OTHER, &"./".parse().unwrap()));
    let set = right.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(set.contains("; HttpOnly; SameSite=Strict") && !set.contains("Path"), "{set}");
    let cookie = format!("other=1; {}", set.split(';').next().unwrap());
    let page = open("/", &cookie).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.text().await.unwrap().contains("logout"));
    assert_eq!(open("/api/usage", &cookie).await.status(), StatusCode::OK);
    assert_eq!(open("/", "tollgate_session=").await.status(), StatusCode::SEE_OTHER);
    let of_a_proxy = browser().get(format!("{}/api/usage", port.address)).header("cookie", &cookie);
    let of_a_proxy = of_a_proxy.header("authorization", "Bearer of-the-proxy").send().await.unwrap();
    assert_eq!(of_a_proxy.status(), StatusCode::OK, "what a proxy adds takes nothing away");

    let log_out = async |site: &str| {
        let post = browser().post(format!("{}/logout", port.address)).header("sec-fetch-site", site);
        post.header("cookie", &cookie).send().await.unwrap()
    };
    assert_eq!(log_out("same-site").await.status(), StatusCode::FORBIDDEN, "the page of another port");
    assert_eq!(open("/", &cookie).await.status(), StatusCode::OK);
    let out = log_out("same-origin").await;
    assert_eq!(out.status(), StatusCode::SEE_OTHER);
    assert!(out.headers()["set-cookie"].to_str().unwrap().contains("=; Max-Age=0"));
    assert_eq!(open("/", &cookie).await.status(), StatusCode::SEE_OTHER);

    let set = log_in(&port, TOKEN).await.headers()["set-cookie"].to_str().unwrap().to_owned();
    let cookie = set.split(';').next().unwrap();
    assert_eq!(open("/", cookie).await.status(), StatusCode::OK);
    std::fs::write(file.path(), "another-token-for-these-tests").unwrap();
    assert_eq!(open("/", cookie).await.status(), StatusCode::SEE_OTHER, "a new token ends the sessions of the old one");
}

#[tokio::test]
async fn a_name_that_could_be_anybodys_gets_nothing() {
    let port = port().await;
    port.status.send_replace(Arc::new(status()));
    let get = async |url: String, host: &'static [u8]| {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(120)).build().unwrap();
        let request = client.get(url).header("host", axum::http::HeaderValue::from_bytes(host).unwrap());
        request.send().await.unwrap().status()
    };
    for path in ["/", "/api/usage", "/api/budgets", "/api/status", "/metrics", "/readyz", "/healthz", "/nothing"] {
        for name in [&b"rebound.example"[..], b"rebound\xff.example"] {
            let status = get(format!("{}{path}", port.address), name).await;
            assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "{path}");
        }
        let expected = if path == "/nothing" { StatusCode::NOT_FOUND } else { StatusCode::OK };
        assert_eq!(get(format!("{}{path}", port.address), b"localhost:19000").await, expected, "{path}");
    }
    // The separate ports answer to any name, and they answer nothing else.
    let scraped = async |path: &str| get(format!("{}{path}", port.scrapers), b"anything.example").await;
    assert_eq!((scraped("/metrics").await, scraped("/readyz").await), (StatusCode::OK, StatusCode::NOT_FOUND));
    let probed = async |path: &str| get(format!("{}{path}", port.probes), b"anything.example").await;
    assert_eq!((probed("/readyz").await, probed("/api/usage").await), (StatusCode::OK, StatusCode::NOT_FOUND));
}

#[tokio::test]
async fn the_share_of_estimated_requests_is_there_for_each_consumer_and_scrapers_see_none() {
    let port = port().await;
    let estimated = v1::Usage { estimated_requests: 1, ..used("other", "smol", 5) };
    let usage = vec![used("other", "smol", 5), estimated.clone(), estimated, used("app", "smol", 1)];
    sync(&port.ledger, SyncRequest { usage, ..request(1, 1) }).await.unwrap();
    let (_, text) = port.text("/metrics").await;
    for line in [
        "tollgate_requests_total{consumer=\"other\",model=\"smol\"} 3",
        "tollgate_estimated_requests_total{consumer=\"other\",model=\"smol\"} 2",
        "tollgate_estimated_requests_total{consumer=\"app\",model=\"smol\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let scraped = reqwest::get(format!("{}/metrics", port.scrapers)).await.unwrap().text().await.unwrap();
    for line in [
        "tollgate_requests_total{model=\"smol\"} 4",
        "tollgate_estimated_requests_total{model=\"smol\"} 2",
        "tollgate_tokens_total{model=\"smol\",kind=\"Input\"} 16",
    ] {
        assert!(scraped.contains(line), "{line} is not in\n{scraped}");
    }
    assert!(!scraped.contains("consumer=") && !scraped.contains("other"), "{scraped}");
}

/// Every row once and in one order, whatever the size of the pages.
async fn pages(port: &Port, path: &str, limit: usize) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut next = String::new();
    loop {
        let page = port.json(&format!("{path}limit={limit}&continue={next}")).await;
        let more = page["rows"].as_array().unwrap().clone();
        assert!(more.len() <= limit);
        rows.extend(more);
        match page["next"].as_str() {
            Some(after) => next = after.to_owned(),
            None => return rows,
        }
    }
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let port = port().await;
    let usage = (0..1234).map(|n| v1::Usage { backend: format!("b-{n}"), ..used("app", "smol", 1) }).collect();
    sync(&port.ledger, SyncRequest { usage, ..request(1, 1) }).await.unwrap();
    let first = port.json("/api/usage").await;
    assert_eq!(first["rows"].as_array().unwrap().len(), 1000, "as many as by default");
    assert!(first["next"].is_string());
    for path in ["/api/usage?", "/api/usage?since=1h&", "/api/usage?consumer=app&"] {
        let all = pages(&port, path, 10_000).await;
        assert_eq!(all.len(), 1234);
        assert_eq!(pages(&port, path, 617).await, all, "{path}");
        assert_eq!(pages(&port, path, 100).await, all, "{path}");
    }
    assert_eq!(pages(&port, "/api/usage?consumer=other&", 10).await.len(), 0);

    let consumers = ["app", "team/app", "other", "research-app", "support-bot"];
    let wants = consumers.map(|name| {
        let bucket = v1::Bucket { scope: vec![name.to_owned()], ..bucket() };
        v1::Want { bucket: Some(bucket), wish: 1, least: 1 }
    });
    sync(&port.ledger, SyncRequest { wants: wants.to_vec(), ..request(1, 2) }).await.unwrap();
    let all = pages(&port, "/api/budgets?", 1000).await;
    assert_eq!(all.len(), consumers.len());
    for limit in [1, 2, 5] {
        assert_eq!(pages(&port, "/api/budgets?", limit).await, all);
    }
    for (query, field) in
        [("limit=0", "limit"), ("limit=10001", "limit"), ("limit=x", "limit"), ("continue=zz", "continue")]
    {
        for list in ["usage", "budgets"] {
            let response = port.get(&format!("/api/{list}?{query}")).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            assert_eq!(response.json::<Value>().await.unwrap()["error"]["field"], field);
        }
    }
}
