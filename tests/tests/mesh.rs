//! A gateway in a mesh that is STRICT, and callers of the gateway in the mesh: sidecars as istiod makes them, certificates as
//! Istio's agent writes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tollgate_tests::client::Client;
use tollgate_tests::gateway::{RunningGateway, Setup};
use tollgate_tests::mesh::{Authority, Holds, Sidecar, folder, identity};
use tollgate_tests::process::free_port;
use tollgate_tests::tap::{Behaviour, Seen, Tap};
use tollgate_tests::{client, config, poll};

use crate::suite::{Shared, e2e};

e2e! {
    members_of_the_mesh_are_reached_by_its_certificates_and_nobody_in_their_place,
    plain_and_meshed_pods_of_a_service_are_reached,
    certificates_change_under_a_stream,
    a_proxy_without_its_certificate_is_not_started,
    callers_are_known_by_their_certificates,
    certificates_change_under_the_streams_of_callers,
}

/// A gateway and a sidecar in front of a backend.
struct Meshed {
    authority: Authority,
    /// The folders of their certificates.
    gateway_folder: PathBuf,
    sidecar: Sidecar,
    tap: Tap,
}

// === impl Meshed ===

impl Meshed {
    async fn start(shared: &Shared, setup: &Setup) -> anyhow::Result<Self> {
        let home = setup.folder().path().parent().context("a folder of the test")?.to_owned();
        let (authority, tap) = (Authority::new()?, shared.tap().await?);
        let (gateway_folder, sidecar_folder) = (folder(&home, "gateway"), folder(&home, "sidecar"));
        authority.issue(&gateway_folder, &identity("gateway"), Holds::Now, &authority)?;
        authority.issue(&sidecar_folder, &identity("runner"), Holds::Now, &authority)?;
        let sidecar = Sidecar::inbound(&shared.tools, &sidecar_folder, &identity("gateway"), tap.port()).await?;
        Ok(Self { authority, gateway_folder, sidecar, tap })
    }

    /// The Service `runner`, whose one Pod is behind the sidecar.
    async fn gateway(&self, setup: Setup, more: &str) -> anyhow::Result<RunningGateway> {
        let certificates = self.gateway_folder.to_str().context("a path in UTF-8")?.to_owned();
        let gateway = config::gateway(setup.port());
        setup
            .file("gateway.yaml", &config::documents(&[gateway, ROUTE.to_owned()]))?
            .file("service.yaml", &service(&[(self.sidecar.port(), "runner-1")]))?
            .file("pod.yaml", &pod("runner-1", "istio", "runner"))?
            .file("more.yaml", more)?
            .arguments(&["--mesh-certificates", &certificates])
            .start()
            .await
    }
}

const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app}
spec: {parentRefs: [{name: llm}], rules: [{backendRefs: [{name: runner, port: 80}]}]}
";

/// The Service `runner` with these ports of Pods.
fn service(pods: &[(u16, &str)]) -> String {
    let mut documents =
        vec!["apiVersion: v1\nkind: Service\nmetadata: {name: runner}\nspec: {ports: [{port: 80}]}\n".to_owned()];
    documents.extend(pods.iter().map(|(port, pod)| {
        format!(
            "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {pod}, labels: {{kubernetes.io/service-name: runner}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1], targetRef: {{kind: Pod, name: {pod}}}}}]
ports: [{{port: {port}}}]
"
        )
    }));
    config::documents(&documents)
}

fn pod(name: &str, tls_mode: &str, account: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{security.istio.io/tlsMode: {tls_mode}}}}}
spec: {{serviceAccountName: {account}, containers: []}}
"
    )
}

async fn status(port: u16) -> anyhow::Result<u16> {
    let answer = client::direct().get(format!("http://127.0.0.1:{port}/")).header("x-forwarded-client-cert", FORGED);
    Ok(answer.send().await?.status().as_u16())
}

/// A client may say anything of itself.
const FORGED: &str = "URI=spiffe://cluster.local/ns/default/sa/admin";

async fn answers(port: u16, what: &str, expected: u16) -> anyhow::Result<()> {
    poll::until(what, || async {
        let status = status(port).await?;
        anyhow::ensure!(status == expected, "{status} and not {expected}");
        Ok(())
    })
    .await
}

async fn members_of_the_mesh_are_reached_by_its_certificates_and_nobody_in_their_place(
    shared: Arc<Shared>,
) -> anyhow::Result<()> {
    let setup = shared.setup("members_of_the_mesh_are_reached_by_its_certificates_and_nobody_in_their_place")?;
    let meshed = Meshed::start(&shared, &setup).await?;
    meshed.tap.behave(Behaviour::Status { code: 200, headers: Vec::new(), body: "here".to_owned() });
    let gateway = meshed.gateway(setup, "").await?;
    let (port, folder) = (gateway.port(), gateway.folder());
    answers(port, "the runner answers", 200).await?;
    // The runner knows who asks: the gateway by its certificate, and nobody by what a client says.
    let seen = meshed.tap.settled().await?;
    let told = seen.last().and_then(|seen| seen.header("x-forwarded-client-cert")).context("nobody is told of")?;
    anyhow::ensure!(told.contains(&format!("URI={}", identity("gateway"))), "{told}");
    anyhow::ensure!(!told.contains("admin"), "what a client says of itself is passed on: {told}");

    // Somebody else is where the runner should be.
    folder.write("pod.yaml", &pod("runner-1", "istio", "other"))?;
    answers(port, "another identity is refused", 503).await?;
    // In plain text nobody is let in.
    folder.write("pod.yaml", &pod("runner-1", "disabled", "runner"))?;
    answers(port, "plain text is refused", 503).await?;
    folder.write("pod.yaml", &pod("runner-1", "istio", "runner"))?;
    answers(port, "the runner answers again", 200).await?;

    let (ours, strange) = (&meshed.authority, Authority::new()?);
    let issue = |by: &Authority, account: &str, holds, trusted: &Authority| {
        by.issue(&meshed.gateway_folder, &identity(account), holds, trusted)
    };
    for (what, by, account, holds, trusted, expected) in [
        ("the runner's authority is not ours", ours, "gateway", Holds::Now, &strange, 503),
        ("our authority is not the runner's", &strange, "gateway", Holds::Now, ours, 503),
        ("our certificate has ended", ours, "gateway", Holds::Ended, ours, 503),
        ("we are somebody whom its policy does not take", ours, "other", Holds::Now, ours, 403),
    ] {
        issue(by, account, holds, trusted)?;
        answers(port, what, expected).await?;
        issue(ours, "gateway", Holds::Now, ours)?;
        answers(port, "the runner answers again", 200).await?;
    }
    Ok(())
}

/// One Pod has a sidecar and the other one has none.
async fn plain_and_meshed_pods_of_a_service_are_reached(shared: Arc<Shared>) -> anyhow::Result<()> {
    let setup = shared.setup("plain_and_meshed_pods_of_a_service_are_reached")?;
    let meshed = Meshed::start(&shared, &setup).await?;
    let tap = &meshed.tap;
    tap.behave(Behaviour::Status { code: 200, headers: Vec::new(), body: "here".to_owned() });
    let pods = service(&[(meshed.sidecar.port(), "runner-1"), (tap.port(), "runner-2")]);
    let gateway = meshed.gateway(setup, "").await?;
    gateway.folder().write("service.yaml", &pods)?;
    poll::until("both Pods answer", || async {
        anyhow::ensure!(status(gateway.port()).await? == 200, "one is not reached");
        let seen = tap.settled().await?;
        let by_sidecar = seen
            .iter()
            .filter(|seen| seen.header("x-forwarded-client-cert").is_some_and(|it| it.contains("sa/gateway")));
        let count = by_sidecar.count();
        anyhow::ensure!(count > 0 && count < seen.len(), "{count} of {} by the sidecar", seen.len());
        Ok(())
    })
    .await
}

/// The model's answer comes through the mesh while the gateway's certificate changes some times.
async fn certificates_change_under_a_stream(shared: Arc<Shared>) -> anyhow::Result<()> {
    const BACKEND: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat}
spec:
  parentRefs: [{name: llm}]
  rules: [{matches: [{path: {value: /v1}}], backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]}]
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: runner}
spec: {schema: OpenAI, service: {name: runner, port: 80}, tls: {mode: Istio}}
";
    const TOKENS: u32 = 200;
    let setup = shared.setup("certificates_change_under_a_stream")?;
    let meshed = Meshed::start(&shared, &setup).await?;
    let pool = config::pool("Anonymous", &[("*", &[config::Target::new("runner")], None)]);
    let gateway = meshed.gateway(setup, &config::documents(&[BACKEND.to_owned(), pool])).await?;
    let client = gateway.without_key();
    poll::until("the model answers", || async { client.chat("smol").await?.expect(200) }).await?;

    let body = client::long_stream("smol", TOKENS).to_string();
    let stream = tokio::spawn(async move { client.post("/v1/chat/completions", body).await });
    let mut changes = 0;
    while !stream.is_finished() {
        meshed.authority.issue(&meshed.gateway_folder, &identity("gateway"), Holds::Now, &meshed.authority)?;
        changes += 1;
        // Requests that begin meanwhile are answered too.
        let models = client::direct().get(format!("{}/", gateway.url())).send().await?;
        anyhow::ensure!(models.status().as_u16() != 503, "a request is not let through: {models:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let answer = stream.await??.expect(200)?;
    anyhow::ensure!(changes > 2, "the stream was too short: {changes} changes");
    anyhow::ensure!(answer.text().trim_end().ends_with("data: [DONE]"), "the stream was broken: {}", answer.text());
    // The usage is in the model's own answer; clients are shown what they ask for.
    let usage = meshed.tap.settled().await?.iter().filter_map(Seen::usage).next_back().context("no usage")?;
    anyhow::ensure!(usage.output == u64::from(TOKENS), "{usage:?}");
    Ok(())
}

async fn a_proxy_without_its_certificate_is_not_started(shared: Arc<Shared>) -> anyhow::Result<()> {
    let setup = shared.setup("a_proxy_without_its_certificate_is_not_started")?;
    let port = setup.port();
    let setup =
        setup.file("gateway.yaml", &config::gateway(port))?.arguments(&["--mesh-certificates", "/nowhere/at/all"]);
    let error = setup.start().await.err().context("it is started")?;
    let error = format!("{error:#}");
    anyhow::ensure!(
        error.contains("--mesh-certificates: /nowhere/at/all/cert-chain.pem cannot be read")
            && error.contains("OUTPUT_CERTS=/nowhere/at/all"),
        "{error}"
    );
    Ok(())
}

/// A gateway with a listener for members of the mesh, one for everybody, and a budget for each Consumer.
struct Called {
    authority: Authority,
    home: PathBuf,
    gateway_folder: PathBuf,
    gateway: RunningGateway,
    /// The port for everybody.
    plain: u16,
    tap: Tap,
}

const KEY: &str = "tg-key-of-keyed";
const WEB: &str = "\
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: web}
spec: {identities: [spiffe://cluster.local/ns/default/sa/web]}
";

// === impl Called ===

impl Called {
    async fn start(shared: &Shared, setup: Setup) -> anyhow::Result<Self> {
        let home = setup.folder().path().parent().context("a folder of the test")?.to_owned();
        let (authority, gateway_folder) = (Authority::new()?, folder(&home, "gateway"));
        authority.issue(&gateway_folder, &identity("gateway"), Holds::Now, &authority)?;
        let (port, plain, tap) = (setup.port(), free_port()?, shared.tap().await?);
        let gateway = format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: llm}}
spec:
  gatewayClassName: tollgate
  listeners:
  - {{name: mesh, port: {port}, protocol: HTTPS, tls: {{options: {{gateway.istio.io/tls-terminate-mode: ISTIO_MUTUAL}}}}}}
  - {{name: plain, port: {plain}, protocol: HTTP}}
"
        );
        let route = config::entry(port).split_once("---\n").context("a Gateway and its route")?.1.to_owned();
        let documents = [
            gateway,
            route,
            config::pool("Required", &[("*", &[config::Target::new("runner")], None)]),
            config::backend("runner", "OpenAI", tap.port(), ""),
            config::consumer("keyed", KEY, ""),
            config::budget(1_000_000, ""),
        ];
        let certificates = gateway_folder.to_str().context("a path in UTF-8")?.to_owned();
        let gateway = setup
            .file("gateway.yaml", &config::documents(&documents))?
            .file("web.yaml", WEB)?
            .arguments(&["--mesh-certificates", &certificates])
            .start()
            .await?;
        Ok(Self { authority, home, gateway_folder, gateway, plain, tap })
    }

    /// The sidecar of a caller that is `identity`, by a certificate of `authority`.
    async fn caller(
        &self,
        shared: &Shared,
        name: &str,
        identity: &str,
        by: &Authority,
        holds: Holds,
    ) -> anyhow::Result<Sidecar> {
        let folder = folder(&self.home, name);
        by.issue(&folder, identity, holds, &self.authority)?;
        Sidecar::outbound(&shared.tools, &folder, &self::identity("gateway"), self.gateway.port()).await
    }
}

async fn callers_are_known_by_their_certificates(shared: Arc<Shared>) -> anyhow::Result<()> {
    let setup = shared.setup("callers_are_known_by_their_certificates")?;
    let called = Called::start(&shared, setup).await?;
    let (gateway, ours) = (&called.gateway, &called.authority);
    let web = called.caller(&shared, "web", &identity("web"), ours, Holds::Now).await?;
    let stranger = called.caller(&shared, "stranger", &identity("stranger"), ours, Holds::Now).await?;

    let client = Client::new(&web.url(), None);
    client.chat("smol").await?.expect(200)?;
    let models = client.get("/v1/models").await?.expect(200)?;
    anyhow::ensure!(models.header("x-ratelimit-limit-tokens").is_none(), "no tokens are used by it");
    let rows = gateway.admin().usage_of("consumer=web", 1).await?;
    anyhow::ensure!(rows.iter().all(|row| row.route == "chat"), "{rows:?}");
    let budgets = gateway.admin().settled_budgets().await?;
    anyhow::ensure!(
        budgets.iter().any(|row| row.scope == serde_json::json!({"Consumer": "web"}) && row.spent > 0),
        "{budgets:?}"
    );

    // Whoever is no Consumer by its certificate needs a key. Whoever is one does not get another one's budget by a key.
    let unknown = Client::new(&stranger.url(), None).chat("smol").await?.expect(401)?;
    anyhow::ensure!(unknown.text().contains(&identity("stranger")), "{}", unknown.text());
    Client::new(&stranger.url(), Some(KEY)).chat("smol").await?.expect(200)?;
    Client::new(&web.url(), Some(KEY)).chat("smol").await?.expect(401)?;
    gateway.admin().usage_of("consumer=keyed", 1).await?;

    let seen = called.tap.settled().await?;
    anyhow::ensure!(seen.iter().all(|seen| seen.header("x-forwarded-client-cert").is_none()), "{seen:?}");

    // What a client says of itself counts for nothing, here or at the port for everybody.
    let body = || client::chat("smol", 8).to_string();
    let forged = format!("By=spiffe://x/y;Hash=00;URI={}", identity("web"));
    let headers = [("x-forwarded-client-cert", forged.as_str()), ("x-tollgate-consumer", "web")];
    for url in [stranger.url(), format!("http://127.0.0.1:{}", called.plain)] {
        Client::new(&url, None).post_with("/v1/chat/completions", &headers, body()).await?.expect(401)?;
        Client::new(&url, Some(&identity("web"))).chat("smol").await?.expect(401)?;
    }

    // The listener takes nobody but members of the mesh.
    let foreign = Authority::new()?;
    for (name, identity, by, holds) in [
        ("foreign", identity("web"), &foreign, Holds::Now),
        ("ended", identity("web"), ours, Holds::Ended),
        ("elsewhere", "spiffe://cluster.local.example/ns/default/sa/web".to_owned(), ours, Holds::Now),
    ] {
        let sidecar = called.caller(&shared, name, &identity, by, holds).await?;
        Client::new(&sidecar.url(), None).chat("smol").await?.expect(503).context(name)?;
    }
    let home = folder(&called.home, "web");
    let bare = Sidecar::without_certificate(&shared.tools, &home, &identity("gateway"), gateway.port()).await?;
    Client::new(&bare.url(), None).chat("smol").await?.expect(503).context("without a certificate")?;
    let answer = client::direct().get(format!("http://127.0.0.1:{}/v1/models", gateway.port())).send().await;
    anyhow::ensure!(answer.is_err(), "in plain text: {answer:?}");

    // An identity is taken away and given back while the gateway runs.
    gateway.folder().write("web.yaml", &WEB.replace("sa/web", "sa/other"))?;
    poll::until("it is no Consumer any more", || async { client.chat("smol").await?.expect(401) }).await?;
    gateway.folder().write("web.yaml", WEB)?;
    poll::until("it is one again", || async { client.chat("smol").await?.expect(200) }).await?;
    Ok(())
}

/// A caller streams while the certificate of the gateway changes some times.
async fn certificates_change_under_the_streams_of_callers(shared: Arc<Shared>) -> anyhow::Result<()> {
    const TOKENS: u32 = 200;
    let setup = shared.setup("certificates_change_under_the_streams_of_callers")?;
    let called = Called::start(&shared, setup).await?;
    let authority = &called.authority;
    let web = called.caller(&shared, "web", &identity("web"), authority, Holds::Now).await?;
    let client = Client::new(&web.url(), None);
    client.chat("smol").await?.expect(200)?;

    let streaming = Client::new(&web.url(), None);
    let body = client::long_stream("smol", TOKENS).to_string();
    let stream = tokio::spawn(async move { streaming.post("/v1/chat/completions", body).await });
    let mut changes: u64 = 0;
    while !stream.is_finished() {
        authority.issue(&called.gateway_folder, &identity("gateway"), Holds::Now, authority)?;
        changes += 1;
        client.get("/v1/models").await?.expect(200).context("a request is not let through")?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let answer = stream.await??.expect(200)?;
    anyhow::ensure!(changes > 2, "the stream was too short: {changes} changes");
    anyhow::ensure!(answer.text().trim_end().ends_with("data: [DONE]"), "the stream was broken: {}", answer.text());
    let rows = called.gateway.admin().usage_of("consumer=web", 2).await?;
    let output: u64 = rows.iter().map(|row| row.output_tokens).sum();
    anyhow::ensure!(output > u64::from(TOKENS), "tokens are lost: {rows:?}");
    Ok(())
}
