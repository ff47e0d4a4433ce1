//! Routes to Services, where only Envoy shows that they do what the Gateway API says: mirrors, CORS, retries, calls of
//! gRPC, WebSocket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use hyper::Request;
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate_tests::client::{chat, direct};
use tollgate_tests::config::{self, Target};
use tollgate_tests::gateway::RunningGateway;
use tollgate_tests::poll;
use tollgate_tests::process;
use tollgate_tests::tap::Behaviour;

use crate::fixtures::{APP_KEY, models};
use crate::suite::{Shared, e2e};

e2e! {
    a_request_is_mirrored_and_allowed_to_other_origins,
    what_a_backend_does_not_answer_is_tried_again,
    a_call_reaches_a_port_that_says_nothing_by_http2,
    a_connection_is_upgraded_to_websocket,
    a_browser_asks_a_pool_without_a_key,
    a_backend_that_changes_keeps_the_endpoints_of_its_service,
    a_session_stays_at_its_endpoint_while_that_is_there,
}

const ORIGIN: &str = "https://app.example.com";

/// A Service with one port, whose one endpoint is a port of this machine.
fn service(name: &str, endpoint: u16, app_protocol: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{port: 80{app_protocol}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{port: {endpoint}}}]
"
    )
}

async fn start(shared: &Shared, test: &str, routes: &str, services: &[String]) -> anyhow::Result<RunningGateway> {
    let setup = shared.setup(test)?;
    let gateway = config::gateway(setup.port());
    let setup = setup.file("gateway.yaml", &gateway)?.file("routes.yaml", routes)?;
    setup.file("services.yaml", &config::documents(services))?.start().await
}

// === requests ===

async fn a_request_is_mirrored_and_allowed_to_other_origins(shared: Arc<Shared>) -> anyhow::Result<()> {
    const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: llm}]
  rules:
  - matches: [{path: {value: /mirror}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}}}]
    backendRefs: [{name: app, port: 80}]
  - matches: [{path: {value: /cors}}]
    filters: [{type: CORS, cors: {allowOrigins: ['https://*.example.com'], allowMethods: ['*'], allowHeaders: [x-a], allowCredentials: true}}]
    backendRefs: [{name: app, port: 80}]
";
    let (app, copy) = (shared.tap().await?, shared.tap().await?);
    for tap in [&app, &copy] {
        tap.behave(Behaviour::Answer { content_type: "text/plain", body: b"hello".to_vec() });
    }
    let services = [service("app", app.port(), ""), service("copy", copy.port(), "")];
    let gateway = start(&shared, "a_request_is_mirrored", ROUTES, &services).await?;
    let at = |path: &str| format!("http://127.0.0.1:{}{path}", gateway.port());
    let http = direct();

    let answer = http.get(at("/mirror/a?b=c")).header("host", "www.example.com").send().await?;
    anyhow::ensure!(answer.status() == 200, "{}", answer.status());
    let seen = poll::until("the copy arrives", || async { copy.seen().pop().context("nothing was mirrored") }).await?;
    anyhow::ensure!(seen.target == "/mirror/a?b=c" && seen.header("host") == Some("www.example.com"), "{seen:?}");
    anyhow::ensure!(app.seen().len() == 1, "{:?}", app.seen());

    let ask = |origin: &str| {
        let request = http.request(reqwest::Method::OPTIONS, at("/cors")).header("origin", origin);
        request.header("access-control-request-method", "PUT").send()
    };
    let allowed = ask(ORIGIN).await?;
    let header = |name: &str| allowed.headers().get(name).and_then(|value| value.to_str().ok());
    let said =
        ["access-control-allow-origin", "access-control-allow-methods", "access-control-allow-credentials"].map(header);
    anyhow::ensure!(said == [Some(ORIGIN), Some("PUT"), Some("true")], "{said:?}");
    let refused = ask("https://example.org").await?;
    anyhow::ensure!(!refused.headers().contains_key("access-control-allow-origin"), "{refused:?}");
    anyhow::ensure!(app.seen().len() == 1, "a backend was asked: {:?}", app.seen());
    Ok(())
}

async fn what_a_backend_does_not_answer_is_tried_again(shared: Arc<Shared>) -> anyhow::Result<()> {
    const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: llm}]
  rules:
  - matches: [{path: {value: /status}}]
    retry: {codes: [503], attempts: 3, backoff: 1ms}
    backendRefs: [{name: flaky, port: 80}]
  - matches: [{path: {value: /other-status}}]
    retry: {codes: [500], attempts: 3, backoff: 1ms}
    backendRefs: [{name: flaky, port: 80}]
  - matches: [{path: {value: /silence}}]
    retry: {backoff: 1ms}
    timeouts: {backendRequest: 3s}
    backendRefs: [{name: silent, port: 80}]
  - matches: [{path: {value: /connection}}]
    retry: {attempts: 10, backoff: 1ms}
    backendRefs: [{name: half, port: 80}]
";
    const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let attempts = Arc::new(AtomicUsize::new(0));
    let flaky = every_third_is_good(&attempts, BAD).await?;
    let silent = every_third_is_good(&attempts, "").await?;
    let gone = process::ClosedPort::new()?;
    let services = [
        service("flaky", flaky, ""),
        service("silent", silent, ""),
        service("half", raw(|_| GOOD.to_owned()).await?, ""),
        service("gone", gone.port(), "")
            .replace("name: gone-1", "name: half-2")
            .replace("service-name: gone", "service-name: half"),
    ];
    let gateway = start(&shared, "what_a_backend_does_not_answer", ROUTES, &services).await?;
    let http = direct();
    for (path, status, count) in [("/status", 200, 3), ("/other-status", 503, 1), ("/silence", 200, 3)] {
        attempts.store(0, Ordering::Relaxed);
        let answer = http.get(format!("http://127.0.0.1:{}{path}", gateway.port())).send().await?;
        let tried = attempts.load(Ordering::Relaxed);
        anyhow::ensure!((answer.status().as_u16(), tried) == (status, count), "{path}: {tried} attempts, {answer:?}");
    }
    for _ in 0..4 {
        let answer = http.get(format!("http://127.0.0.1:{}/connection", gateway.port())).send().await?;
        anyhow::ensure!(answer.status() == 200, "{answer:?}");
    }
    Ok(())
}

async fn a_browser_asks_a_pool_without_a_key(shared: Arc<Shared>) -> anyhow::Result<()> {
    const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat}
spec:
  parentRefs: [{name: llm}]
  rules:
  - filters: [{type: CORS, cors: {allowOrigins: ['https://app.example.com'], allowHeaders: [authorization, content-type]}}]
    backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]
";
    let tap = shared.tap().await?;
    let setup = shared.setup("a_browser_asks_a_pool")?;
    let entry = config::documents(&[config::gateway(setup.port()), ROUTE.to_owned()]);
    let setup = setup.file("entry.yaml", &entry)?.file("models.yaml", &models(&tap))?;
    let gateway = setup.file("app.yaml", &config::consumer("app", APP_KEY, ""))?.start().await?;
    let at = format!("http://127.0.0.1:{}/v1/chat/completions", gateway.port());
    let http = direct();
    let asked = http.request(reqwest::Method::OPTIONS, &at).header("origin", ORIGIN);
    let asked = asked.header("access-control-request-method", "POST").send().await?;
    let refused = http.post(&at).header("origin", ORIGIN).body(chat("smol", 1).to_string()).send().await?;
    for (answer, status) in [(&asked, 200), (&refused, 401)] {
        let origin = answer.headers().get("access-control-allow-origin").and_then(|value| value.to_str().ok());
        anyhow::ensure!(answer.status() == status && origin == Some(ORIGIN), "{answer:?}");
    }
    anyhow::ensure!(tap.seen().is_empty(), "{:?}", tap.seen());
    Ok(())
}

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A backend of which every third answer is good.
async fn every_third_is_good(attempts: &Arc<AtomicUsize>, bad: &'static str) -> anyhow::Result<u16> {
    let attempts = Arc::clone(attempts);
    raw(move |_| {
        let is_good = attempts.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        if is_good { GOOD.to_owned() } else { bad.to_owned() }
    })
    .await
}

/// A backend that answers the head of a request with these bytes. After a switch of protocols it says what it hears, and
/// after nothing it stays silent.
async fn raw(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move { serve_raw(stream, &*answer).await });
        }
    });
    Ok(port)
}

async fn serve_raw(mut stream: TcpStream, answer: &(dyn Fn(&str) -> String + Send + Sync)) -> std::io::Result<()> {
    let head = head_of(&mut stream).await?;
    let answer = answer(&head);
    stream.write_all(answer.as_bytes()).await?;
    if answer.is_empty() {
        std::future::pending::<()>().await;
    }
    if answer.starts_with("HTTP/1.1 101") {
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await?;
    }
    Ok(())
}

/// Reads up to the empty line.
async fn head_of(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

// === calls ===

async fn a_call_reaches_a_port_that_says_nothing_by_http2(shared: Arc<Shared>) -> anyhow::Result<()> {
    const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls}
spec:
  parentRefs: [{name: llm}]
  rules:
  - matches: [{method: {service: a.Echo, method: Say}}]
    backendRefs: [{name: calls, port: 80}]
  - matches: [{method: {service: a.Absent}}]
    backendRefs: [{name: absent, port: 80}]
";
    let calls = echo().await?;
    let gateway = start(&shared, "a_call_reaches_a_port", ROUTES, &[service("calls", calls, "")]).await?;
    let (client, connection) = h2::client::handshake(TcpStream::connect(("127.0.0.1", gateway.port())).await?).await?;
    tokio::spawn(connection);
    let status_of = |path: &'static str, content: &'static str| {
        let mut client = client.clone();
        async move {
            let uri = format!("http://calls.example.com{path}");
            let request = Request::post(uri).header("content-type", content).header("te", "trailers").body(())?;
            let (answer, _) = client.send_request(request, true)?;
            let (head, mut body) = answer.await?.into_parts();
            while let Some(bytes) = body.data().await {
                bytes?;
            }
            let trailers = body.trailers().await?.unwrap_or_default();
            let grpc = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
            let grpc = grpc.and_then(|status| status.to_str().ok()).unwrap_or("none").to_owned();
            anyhow::Ok((head.status.as_u16(), grpc))
        }
    };
    for (path, content, status, grpc) in [
        ("/a.Echo/Say", "application/grpc", 200, "0"),
        // Unimplemented.
        ("/a.Echo/Shout", "application/grpc+proto", 200, "12"),
        // Unavailable.
        ("/a.Absent/Say", "application/grpc", 200, "14"),
        ("/a.Echo/Say", "application/json", 404, "none"),
    ] {
        let said = status_of(path, content).await?;
        anyhow::ensure!(said == (status, grpc.to_owned()), "{path} {content}: {said:?}");
    }
    Ok(())
}

/// A backend that speaks nothing but HTTP/2, and answers every call well.
async fn echo() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move { answer_calls(stream).await });
        }
    });
    Ok(port)
}

async fn answer_calls(stream: TcpStream) -> anyhow::Result<()> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (_, mut respond) = accepted?;
        let head = hyper::Response::builder().header("content-type", "application/grpc").body(())?;
        let mut stream = respond.send_response(head, false)?;
        stream.send_data(Bytes::from_static(&[0; 5]), false)?;
        let trailers = [(hyper::header::HeaderName::from_static("grpc-status"), hyper::header::HeaderValue::from(0))];
        stream.send_trailers(trailers.into_iter().collect())?;
    }
    Ok(())
}

// === WebSocket ===

async fn a_connection_is_upgraded_to_websocket(shared: Arc<Shared>) -> anyhow::Result<()> {
    const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: llm}]
  rules:
  - {matches: [{path: {value: /ws}}], backendRefs: [{name: ws, port: 80}]}
  - {matches: [{path: {value: /plain}}], backendRefs: [{name: plain, port: 80}]}
";
    let backend = raw(|head| {
        if head.to_ascii_lowercase().contains("\r\nupgrade: websocket\r\n") {
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_owned()
        } else {
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        }
    })
    .await?;
    let services = [service("ws", backend, ", appProtocol: kubernetes.io/ws"), service("plain", backend, "")];
    let gateway = start(&shared, "a_connection_is_upgraded", ROUTES, &services).await?;
    let upgrade = |path: &'static str| {
        let port = gateway.port();
        async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let head = format!(
                "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: \
                 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            let answer = head_of(&mut stream).await?;
            anyhow::Ok((stream, answer))
        }
    };
    let (mut stream, answer) = upgrade("/ws").await?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    stream.write_all(b"ping").await?;
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await?;
    anyhow::ensure!(&heard == b"ping", "{heard:?}");
    let (_, refused) = upgrade("/plain").await?;
    anyhow::ensure!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    Ok(())
}

/// Envoy warms a cluster that has changed, and does not ask for endpoints that it has already. It waits for them without limit.
async fn a_backend_that_changes_keeps_the_endpoints_of_its_service(shared: Arc<Shared>) -> anyhow::Result<()> {
    let app = shared.tap().await?;
    let backend = |more: &str| {
        format!(
            "apiVersion: tollgate.dev/v1alpha1\nkind: ModelBackend\nmetadata: {{name: runner}}\nspec:\n  \
             schema: OpenAI\n  endpoint: {{service: {{name: app, port: 80}}}}\n  tls: {{mode: None}}\n  {more}\n"
        )
    };
    let models = |more: &str| {
        let pool = config::pool("Required", &[("smol", &[Target::new("runner")], None)]);
        let secret = config::secret("credential", "the-credential");
        config::documents(&[pool, backend(more), secret, service("app", app.port(), "")])
    };
    let setup = shared.setup("a_backend_that_changes")?;
    let entry = config::entry(setup.port());
    let setup = setup.file("entry.yaml", &entry)?.file("models.yaml", &models(""))?;
    let gateway = setup.file("app.yaml", &config::consumer("app", APP_KEY, ""))?.start().await?;
    let client = gateway.client(APP_KEY);
    client.chat("smol").await?.expect(200)?;
    gateway.folder().write("models.yaml", &models("credential: {secretRef: {name: credential}}"))?;
    poll::until("the backend is sent its credential", || async {
        client.chat("smol").await?.expect(200)?;
        let seen = app.seen().pop().context("nothing arrived")?;
        anyhow::ensure!(seen.header("authorization") == Some("Bearer the-credential"), "{seen:?}");
        Ok(())
    })
    .await
}

async fn a_session_stays_at_its_endpoint_while_that_is_there(shared: Arc<Shared>) -> anyhow::Result<()> {
    const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: llm}]
  rules:
  - matches: [{path: {value: /cookie}}]
    sessionPersistence: {sessionName: at, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}
    backendRefs: [{name: app, port: 80}]
  - matches: [{path: {value: /header}}]
    sessionPersistence: {sessionName: x-session, type: Header}
    backendRefs: [{name: app, port: 80}]
  - matches: [{path: {value: /none}}]
    backendRefs: [{name: app, port: 80}]
";
    let taps = [shared.tap().await?, shared.tap().await?];
    for (tap, body) in taps.iter().zip(["one", "two"]) {
        tap.behave(Behaviour::Status { code: 200, headers: Vec::new(), body: body.to_owned() });
    }
    let one = service("app", taps[0].port(), "");
    let two = service("app", taps[1].port(), "").replace("name: app-1", "name: app-2");
    let both = [one.clone(), two.split_once("---\n").context("a Service and its slice")?.1.to_owned()];
    let gateway = start(&shared, "a_session_stays", ROUTES, &both).await?;
    let at = |path: &str| format!("http://127.0.0.1:{}{path}", gateway.port());
    let http = direct();
    let ask = async |path: &str, (name, value): (&str, &str)| {
        let answer = http.get(at(path)).header(name, value).send().await?;
        let told = ["set-cookie", "x-session"].map(|name| {
            let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned)
        });
        anyhow::Ok((told, answer.text().await?))
    };
    let differs = async |path: &str, header: (&str, &str)| {
        let mut bodies = BTreeSet::new();
        for _ in 0..20 {
            bodies.insert(ask(path, header).await?.1);
        }
        anyhow::Ok(bodies)
    };
    let none = ("accept", "*/*");
    for path in ["/cookie", "/header", "/none"] {
        anyhow::ensure!(differs(path, none).await?.len() == 2, "{path}: without a session both are asked");
    }
    let ([cookie, _], body) = ask("/cookie/a", none).await?;
    let cookie = cookie.context("no cookie")?;
    anyhow::ensure!(cookie.contains("Max-Age=3600") && cookie.contains("Path=/cookie"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    anyhow::ensure!(differs("/cookie/b", ("cookie", &cookie)).await? == BTreeSet::from([body]), "the session moves");
    let ([_, header], of_header) = ask("/header", none).await?;
    let header = header.context("no header")?;
    let stays = differs("/header", ("x-session", &header)).await?;
    anyhow::ensure!(stays == BTreeSet::from([of_header.clone()]), "the session moves");
    anyhow::ensure!(differs("/none", ("cookie", &cookie)).await?.len() == 2, "a rule without sessions keeps one");

    // Its endpoint goes, and the session goes on at the other one.
    let left = if of_header == "one" { service("app", taps[1].port(), "") } else { one };
    gateway.folder().write("services.yaml", &left)?;
    poll::until("another endpoint answers", || async {
        let (_, body) = ask("/header", ("x-session", &header)).await?;
        anyhow::ensure!(body != of_header, "{body}");
        Ok(())
    })
    .await
}
