//! Tollgate writes what it knows into the objects: `kubectl get -o yaml` says what works and what does not.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::RwLock;
use tollgate_tests::gateway::{RunningGateway, Setup};
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::poll;
use tollgate_tests::process::{self, Process};
use tollgate_tests::tools::Tools;

use crate::source::{account, objects};

e2e! {
    a_gateway_is_programmed_when_an_envoy_has_it,
    a_route_says_what_its_references_lack,
    what_other_controllers_wrote_is_kept,
    what_envoy_refuses_is_on_the_gateway,
    our_own_kinds_say_what_is_wrong,
    columns_say_who_uses_what_and_whether_it_is_ready,
    whoever_may_not_write_is_told_what_is_missing,
    a_killed_leader_is_replaced,
}

/// Control planes that write statuses share the GatewayClass, and say of it what fits their own proxies. Whoever counts writes
/// is alone.
pub static WRITERS: RwLock<()> = RwLock::const_new(());

const CONTROLLER: &str = "tollgate.dev/gateway-controller";

/// A Gateway stays programmed while its Envoys are away, but not for much longer than this.
const MISSED: Duration = Duration::from_secs(15);

/// Its backend is missing, or in another namespace.
const BROKEN: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: missing, namespace: NAMESPACE}
spec: {parentRefs: [{name: llm}], rules: [{matches: [{path: {value: /missing}}], backendRefs: [{name: nowhere, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: abroad, namespace: NAMESPACE}
spec: {parentRefs: [{name: llm}], rules: [{matches: [{path: {value: /abroad}}], backendRefs: [{name: web, namespace: NAMESPACE-abroad, port: 80}]}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE-abroad}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NAMESPACE-abroad}
spec: {ports: [{port: 80}]}
";

const GRANT: &str = "
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: web, namespace: granted-abroad}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: granted}], to: [{group: '', kind: Service}]}
";

async fn a_gateway_is_programmed_when_an_envoy_has_it(lab: Arc<Lab>) -> anyhow::Result<()> {
    let _writers = WRITERS.write().await;
    let setup = setup("programmed")?;
    // A control plane whose Envoys stay away.
    objects(&lab, "programmed", setup.port(), "").await?;
    let mut alone =
        Serving::start(&lab, "programmed-alone", &["--leader-election", "false", "--namespace", "programmed"])?;
    let gateway = ["-n", "programmed", "gateway", "llm"];
    poll::until("nobody took it", || async {
        is(&lab, &gateway, "/status/conditions", "Programmed", "False", "Pending").await?;
        is(&lab, &gateway, "/status/conditions", "Accepted", "True", "Accepted").await
    })
    .await?;
    alone.process.kill()?;
    let mut running = start(&lab, setup, &["programmed"]).await?;
    // What /api/status says is ready has been taken by Envoy.
    let ready = Instant::now();
    poll::until("an Envoy took it", || async {
        is(&lab, &gateway, "/status/conditions", "Programmed", "True", "Programmed").await?;
        is(&lab, &gateway, "/status/listeners/0/conditions", "Programmed", "True", "Programmed").await
    })
    .await?;
    println!("    {:?} from the ACK to the status, kubectl included", ready.elapsed());
    poll::until("the Gateway and its class say the rest", || async {
        let found = get(&lab, &gateway).await?;
        anyhow::ensure!(found.pointer("/status/listeners/0/attachedRoutes") == Some(&1.into()), "{found}");
        anyhow::ensure!(found.pointer("/status/addresses/0/value") == Some(&"127.0.0.1".into()), "{found}");
        for (about, reason) in [("Accepted", "Accepted"), ("SupportedVersion", "SupportedVersion")] {
            is(&lab, &["gatewayclass", "tollgate"], "/status/conditions", about, "True", reason).await?;
        }
        let class = get(&lab, &["gatewayclass", "tollgate"]).await?;
        let features = class.pointer("/status/supportedFeatures").and_then(Value::as_array).context("no features")?;
        anyhow::ensure!(features.iter().any(|feature| feature.get("name") == Some(&"Gateway".into())), "{class}");
        let accepted = ["-n", "programmed", "httproute", "moved"];
        is(&lab, &accepted, "/status/parents/0/conditions", "Accepted", "True", "Accepted").await
    })
    .await?;

    // Another route is one more write of the Gateway, and a change of it none.
    let before = rested(&running).await?;
    let patch = r#"[{"op": "replace", "path": "/spec/rules/0/matches/0/path/value", "value": "/other"}]"#;
    lab.kubectl(&["-n", "programmed", "patch", "httproute", "moved", "--type", "json", "-p", patch])
        .await?
        .success()?;
    let route = ["-n", "programmed", "httproute", "moved"];
    poll::until("the new generation was looked at", || async {
        let found = get(&lab, &route).await?;
        let observed = found.pointer("/status/parents/0/conditions/0/observedGeneration");
        anyhow::ensure!(observed.is_some() && observed == found.pointer("/metadata/generation"), "{found}");
        Ok(())
    })
    .await?;
    let after = rested(&running).await?;
    anyhow::ensure!(after == before + 1, "{before} and {after} writes");

    // A restart writes nothing, although its Envoy is away for a while.
    let mut again = 0;
    loop {
        let versions = versions(&lab, &[&gateway, &route]).await?;
        running.process().stop().await?;
        let away = Instant::now();
        running.restart().await?;
        let (away, count) = (away.elapsed(), rested(&running).await?);
        if versions == self::versions(&lab, &[&gateway, &route]).await? && count == 0 {
            break;
        }
        // An Envoy that is away for too long is missed, which says nothing here.
        again += 1;
        anyhow::ensure!(away > MISSED && again < 5, "a restart of {away:?} wrote {count} times");
    }
    knows_the_definitions(&lab).await
}

/// The count of writes, once nothing more is added to it. The cluster has a write before it is counted.
async fn rested(gateway: &RunningGateway) -> anyhow::Result<u64> {
    poll::until("nothing more is written", || async {
        let before = writes(gateway).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let after = writes(gateway).await?;
        anyhow::ensure!(before == after, "{before}, then {after}");
        Ok(after)
    })
    .await
}

/// The class says whether it does, and the old version is there again in the end. The caller counts writes, and nobody else
/// may change a class meanwhile.
async fn knows_the_definitions(lab: &Lab) -> anyhow::Result<()> {
    let says = |verdict: &'static str, reason: &'static str| {
        poll::until("the class says so", move || async move {
            is(lab, &["gatewayclass", "tollgate"], "/status/conditions", "SupportedVersion", verdict, reason).await
        })
    };
    let definition = "gatewayclasses.gateway.networking.k8s.io";
    let version = "gateway.networking.k8s.io/bundle-version";
    let known =
        lab.field(&["crd", definition], r"{.metadata.annotations.gateway\.networking\.k8s\.io/bundle-version}").await?;
    says("True", "SupportedVersion").await?;
    let set = async |to: &str| {
        lab.kubectl(&["annotate", "--overwrite", "crd", definition, &format!("{version}={to}")]).await?.success()
    };
    set("v9.9.9").await?;
    let unknown = says("False", "UnsupportedVersion").await;
    set(&known).await?;
    unknown?;
    says("True", "SupportedVersion").await
}

async fn a_route_says_what_its_references_lack(lab: Arc<Lab>) -> anyhow::Result<()> {
    let _writers = WRITERS.read().await;
    let setup = setup("granted")?;
    objects(&lab, "granted", setup.port(), BROKEN).await?;
    let _running = start(&lab, setup, &["granted", "granted-abroad"]).await?;
    let says = |name: &'static str, verdict: &'static str, reason: &'static str| {
        let lab = &lab;
        poll::until("the route says so", move || async move {
            let route = ["-n", "granted", "httproute", name];
            is(lab, &route, "/status/parents/0/conditions", "ResolvedRefs", verdict, reason).await
        })
    };
    says("missing", "False", "BackendNotFound").await?;
    says("abroad", "False", "RefNotPermitted").await?;
    lab.apply(GRANT).await?;
    says("abroad", "True", "ResolvedRefs").await?;
    poll::until("the Gateway counts its routes", || async {
        let found = get(&lab, &["-n", "granted", "gateway", "llm"]).await?;
        anyhow::ensure!(found.pointer("/status/listeners/0/attachedRoutes") == Some(&3.into()), "{found}");
        Ok(())
    })
    .await
}

async fn what_other_controllers_wrote_is_kept(lab: Arc<Lab>) -> anyhow::Result<()> {
    let _writers = WRITERS.read().await;
    let setup = setup("kept")?;
    objects(&lab, "kept", setup.port(), "").await?;
    let theirs = r#"{"status": {"parents": [{
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "theirs"},
        "controllerName": "example.com/other",
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "theirs",
            "lastTransitionTime": "2020-01-01T00:00:00Z"}]}]}}"#;
    let patch = ["-n", "kept", "patch", "httproute", "moved", "--subresource", "status", "--type", "merge", "-p"];
    lab.kubectl(&[&patch[..], &[theirs]].concat()).await?.success()?;
    let written: Value = serde_json::from_str(theirs)?;
    let _running = start(&lab, setup, &["kept"]).await?;
    let route = ["-n", "kept", "httproute", "moved"];
    let parents = |count: usize| {
        let (lab, route) = (&lab, &route);
        poll::until("there are so many parents", move || async move {
            let found = get(lab, route).await?;
            let parents = found.pointer("/status/parents").and_then(Value::as_array).cloned().unwrap_or_default();
            anyhow::ensure!(parents.len() == count, "{found}");
            Ok(parents)
        })
    };
    let found = parents(2).await?;
    anyhow::ensure!(found.first() == written.pointer("/status/parents/0"), "{found:?}");
    anyhow::ensure!(found.iter().any(|parent| parent.get("controllerName") == Some(&CONTROLLER.into())), "{found:?}");
    // What is ours goes with its parent.
    let other = r#"[{"op": "replace", "path": "/spec/parentRefs/0/name", "value": "theirs"}]"#;
    lab.kubectl(&["-n", "kept", "patch", "httproute", "moved", "--type", "json", "-p", other]).await?.success()?;
    let found = parents(1).await?;
    anyhow::ensure!(found.first() == written.pointer("/status/parents/0"), "{found:?}");
    Ok(())
}

async fn what_envoy_refuses_is_on_the_gateway(lab: Arc<Lab>) -> anyhow::Result<()> {
    let _writers = WRITERS.read().await;
    let setup = setup("refused")?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    objects(&lab, "refused", setup.port(), "").await?;
    let _running = start(&lab, setup, &["refused"]).await?;
    let add = format!(
        r#"[{{"op": "add", "path": "/spec/listeners/-", "value": {{"name": "taken", "port": {port}, "protocol": "HTTP"}}}}]"#
    );
    lab.kubectl(&["-n", "refused", "patch", "gateway", "llm", "--type", "json", "-p", &add]).await?.success()?;
    let gateway = ["-n", "refused", "gateway", "llm"];
    poll::until("Envoy refuses the listener", || async {
        is(&lab, &gateway, "/status/listeners/1/conditions", "Programmed", "False", "Invalid").await?;
        let found = get(&lab, &gateway).await?.to_string();
        anyhow::ensure!(found.contains("refuses Listener") && found.contains("in use"), "{found}");
        Ok(())
    })
    .await
}

async fn our_own_kinds_say_what_is_wrong(lab: Arc<Lab>) -> anyhow::Result<()> {
    let _writers = WRITERS.read().await;
    let setup = setup("own")?;
    let consumer = "
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: alice, namespace: NAMESPACE}
spec: {keys: [{secretRef: {name: alice}}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: broken, namespace: NAMESPACE}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: moved}], limits: [{name: a, tokens: 1, window: day, timeZone: Mars/Base}]}
";
    objects(&lab, "own", setup.port(), consumer).await?;
    let _running = start(&lab, setup, &["own"]).await?;
    let alice = ["-n", "own", "consumer", "alice"];
    poll::until("the key's Secret is missing", || async {
        is(&lab, &alice, "/status/conditions", "ResolvedRefs", "False", "SecretNotFound").await?;
        let policy = get(&lab, &["-n", "own", "tokenpolicy", "broken"]).await?;
        let text = policy.get("status").context("no status yet")?.to_string();
        anyhow::ensure!(text.contains("\"Accepted\"") && text.contains("\"False\""), "{policy}");
        Ok(())
    })
    .await?;
    // A policy that is refused closes what it names, so there is an event of it.
    poll::until("there is an event", || async {
        let about = ["-n", "own", "events", "--field-selector", "involvedObject.name=broken"];
        let found = get(&lab, &about).await?;
        let note = found.pointer("/items/0/message").and_then(Value::as_str).unwrap_or_default();
        anyhow::ensure!(note.contains("spec.limits[0].timeZone"), "{found}");
        Ok(())
    })
    .await?;
    poll::until("the last generation was looked at", || async {
        let found = get(&lab, &alice).await?;
        let (observed, last) = (found.pointer("/status/observedGeneration"), found.pointer("/metadata/generation"));
        anyhow::ensure!(observed == last, "{found}");
        Ok(())
    })
    .await
}

/// A pool of two backends. One is a Service that has no endpoint yet.
const POOL: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: NAMESPACE}
spec:
  parentRefs: [{name: llm}]
  rules: [{matches: [{path: {value: /v1}}], backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]}]
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: chat, namespace: NAMESPACE}
spec: {models: [{name: smol, targets: [{backendRef: {name: provider}}, {backendRef: {name: runner}}]}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: provider, namespace: NAMESPACE}
spec: {schema: OpenAI, endpoint: {hostname: 127.0.0.1, port: 9}, tls: {mode: None}}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: runner, namespace: NAMESPACE}
spec: {schema: OpenAI, endpoint: {service: {name: runner, port: 80}}, tls: {mode: None}}
---
apiVersion: v1
kind: Service
metadata: {name: runner, namespace: NAMESPACE}
spec: {ports: [{port: 80}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: app, namespace: NAMESPACE}
spec: {keys: [{sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b}]}
";

const ENDPOINT: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: runner-1, namespace: columns, labels: {kubernetes.io/service-name: runner}}
addressType: IPv4
endpoints: [{addresses: [10.1.2.3]}]
ports: [{port: 8000}]
";

async fn columns_say_who_uses_what_and_whether_it_is_ready(lab: Arc<Lab>) -> anyhow::Result<()> {
    let _writers = WRITERS.read().await;
    objects(&lab, "columns", 80, POOL).await?;
    let mut serving = Serving::start(&lab, "columns", &["--leader-election", "false", "--namespace", "columns"])?;
    let shows = |kind: &'static str, name: &'static str, expected: &'static [(&'static str, &'static str)]| {
        let lab = &lab;
        poll::until("the columns say so", move || async move {
            let output = lab.kubectl(&["-n", "columns", "get", kind, name]).await?.success()?.out;
            let row = columns(&output)?;
            let is = |(column, cell): &&(&str, &str)| row.get(*column).is_some_and(|found| found == cell);
            anyhow::ensure!(expected.iter().all(|pair| is(&pair)), "{output}");
            Ok(())
        })
    };
    shows("modelpools", "chat", &[("MODELS", "smol"), ("BACKENDS", "2"), ("READY", "1"), ("USED BY", "1")]).await?;
    shows("modelbackends", "runner", &[("USED BY", "1"), ("ACCEPTED", "True")]).await?;
    shows("consumers", "app", &[("KEYS", "1"), ("SPENT TODAY", ""), ("ACCEPTED", "True")]).await?;
    for (kind, name) in [("modelpool", "chat"), ("consumer", "app")] {
        poll::until("the status names who uses it", || async {
            let found = get(&lab, &["-n", "columns", kind, name]).await?;
            anyhow::ensure!(found.pointer("/status/usedBy/objects/0/name") == Some(&"chat".into()), "{found}");
            Ok(())
        })
        .await?;
    }

    lab.apply(ENDPOINT).await?;
    shows("modelpools", "chat", &[("BACKENDS", "2"), ("READY", "2")]).await?;
    lab.kubectl(&["-n", "columns", "delete", "httproute", "chat"]).await?.success()?;
    shows("modelpools", "chat", &[("READY", "2"), ("USED BY", "0")]).await?;
    serving.process.kill()
}

/// The one row of a table of kubectl, by column. Two spaces end a head.
fn columns(table: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let (head, row) = table.split_once('\n').context("no table")?;
    let starts: Vec<usize> = (0..head.len())
        .filter(|place| head.get(..*place).is_some_and(|before| before.is_empty() || before.ends_with("  ")))
        .filter(|place| head.get(*place..).is_some_and(|rest| !rest.starts_with(' ')))
        .collect();
    let ends = starts.iter().skip(1).copied().chain([usize::MAX]);
    let cell = |line: &str, (start, end): (usize, usize)| {
        line.get(start..end.min(line.len())).unwrap_or_default().trim().to_owned()
    };
    Ok(starts.iter().copied().zip(ends).map(|place| (cell(head, place), cell(row, place))).collect())
}

async fn whoever_may_not_write_is_told_what_is_missing(lab: Arc<Lab>) -> anyhow::Result<()> {
    let _writers = WRITERS.read().await;
    let setup = setup("readonly")?;
    objects(&lab, "readonly", setup.port(), "").await?;
    let reads = "{apiGroups: ['*'], resources: ['*'], verbs: [get, list, watch]}";
    let kubeconfig = account(&lab, "readonly", reads).await?;
    let arguments = ["--write-status", "--namespace", "readonly", "--concurrency", "1"];
    // It serves all the same.
    let running = setup.cluster(&kubeconfig).arguments(&arguments).start().await?;
    poll::until("the log says so", || async {
        let logs = running.logs()?;
        let told =
            logs.matches("the status of HTTPRoute readonly/moved may not be written (a role with get of").count();
        anyhow::ensure!(told == 1 && logs.contains("patch of httproutes/status.gateway.networking.k8s.io"), "{told}");
        Ok(())
    })
    .await?;
    let found = get(&lab, &["-n", "readonly", "httproute", "moved"]).await?;
    anyhow::ensure!(found.get("status").is_none(), "{found}");
    Ok(())
}

async fn a_killed_leader_is_replaced(lab: Arc<Lab>) -> anyhow::Result<()> {
    let _writers = WRITERS.read().await;
    objects(&lab, "elected", 80, "").await?;
    let arguments = ["--lease-namespace", "elected", "--namespace", "elected"];
    let leads = async |serving: &Serving| -> anyhow::Result<bool> {
        let text = tollgate_tests::admin::Admin::new(serving.admin).text("/metrics").await?;
        let value = text.lines().find_map(|line| line.strip_prefix("tollgate_leader "));
        Ok(value.context("it does not say whether it leads")? == "1")
    };
    let mut first = Serving::start(&lab, "elected-first", &arguments)?;
    let comes_to_lead = async |serving: &Serving| {
        poll::until("it leads", || async {
            anyhow::ensure!(leads(serving).await?, "it does not");
            Ok(())
        })
        .await
    };
    comes_to_lead(&first).await?;
    let mut second = Serving::start(&lab, "elected-second", &arguments)?;
    poll::until("the second one is there", || leads(&second)).await?;
    let lease = async || get(&lab, &["-n", "elected", "lease", "tollgate-controller"]).await;
    let holder = |lease: &Value| lease.pointer("/spec/holderIdentity").and_then(Value::as_str).map(str::to_owned);
    let before = lease().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = lease().await?;
    if holder(&after) != holder(&before) {
        // On a machine that stood still. Nobody takes a Lease before it was silent for as long as it is given.
        let time = |lease: &Value, field: &str| -> anyhow::Result<Timestamp> {
            let time = lease.pointer(field).and_then(Value::as_str).context("it has a time")?;
            Ok(time.parse()?)
        };
        let silent = time(&before, "/spec/renewTime")?.duration_until(time(&after, "/spec/acquireTime")?);
        anyhow::ensure!(silent.as_secs() >= 9, "it was taken after {silent:?}: {before}, then {after}");
    }
    poll::until("one of them leads", || async {
        let both = [leads(&first).await?, leads(&second).await?];
        anyhow::ensure!(both[0] != both[1], "{both:?}");
        Ok(())
    })
    .await?;
    let route = ["-n", "elected", "httproute", "moved"];
    poll::until("the leader writes", || async {
        let before = get(&lab, &route).await?;
        anyhow::ensure!(before.pointer("/status/parents/0").is_some(), "{before}");
        Ok(())
    })
    .await?;
    // On such a machine it is the other one by now.
    if leads(&second).await? {
        std::mem::swap(&mut first, &mut second);
    }

    first.process.kill()?;
    let killed = Instant::now();
    comes_to_lead(&second).await?;
    println!("    replaced after {:?}", killed.elapsed());
    let patch = r#"[{"op": "replace", "path": "/spec/parentRefs/0/sectionName", "value": "nowhere"}]"#;
    lab.kubectl(&["-n", "elected", "patch", "httproute", "moved", "--type", "json", "-p", patch]).await?.success()?;
    poll::until("the new leader writes", || async {
        is(&lab, &route, "/status/parents/0/conditions", "Accepted", "False", "NoMatchingParent").await
    })
    .await?;

    // One that stops lets the next one lead at once: the Lease is nobody's by the time that it has ended, or the next one's.
    let third = Serving::start(&lab, "elected-third", &arguments)?;
    poll::until("the third one is there", || leads(&third)).await?;
    comes_to_lead(&second).await?;
    let before = holder(&lease().await?);
    second.process.stop().await?;
    let (stopped, after) = (Instant::now(), holder(&lease().await?));
    anyhow::ensure!(after != before, "the Lease was not given back: {after:?}");
    comes_to_lead(&third).await?;
    println!("    replaced {:?} after one that stopped", stopped.elapsed());
    Ok(())
}

fn setup(namespace: &str) -> anyhow::Result<Setup> {
    Setup::new(&Tools::find()?, &format!("statuses-{namespace}"))
}

/// Runs a gateway on these namespaces that writes statuses.
async fn start(lab: &Lab, setup: Setup, namespaces: &[&str]) -> anyhow::Result<RunningGateway> {
    let namespaces: Vec<&str> = namespaces.iter().flat_map(|namespace| ["--namespace", namespace]).collect();
    let setup = setup.cluster(&lab.kubeconfig()).arguments(&["--write-status", "--concurrency", "1"]);
    setup.arguments(&namespaces).start().await
}

/// A control plane alone.
pub struct Serving {
    pub process: Process,
    admin: u16,
}

// === impl Serving ===

impl Serving {
    pub fn start(lab: &Lab, name: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_as(&lab.kubeconfig(), name, arguments)
    }

    /// With the rights of this kubeconfig.
    pub fn start_as(kubeconfig: &Path, name: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let tools = Tools::find()?;
        let home: PathBuf = tools.logs.join(name);
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        std::fs::create_dir_all(&home)?;
        let admin = process::free_port()?;
        let address = format!("127.0.0.1:{admin}");
        let mut command = Command::new(&tools.tollgate);
        command.args(["serve", "--source", "kubernetes", "--kubeconfig"]).arg(kubeconfig);
        command.args(["--xds", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--probes", "127.0.0.1:0"]);
        command.args(["--admin", &address, "--state"]).arg(home.join("state")).args(arguments);
        let process = Process::start(command.env("RUST_LOG", "debug,h2=info,hyper=info"), &home.join("tollgate.log"))?;
        Ok(Self { process, admin })
    }
}

pub async fn get(lab: &Lab, object: &[&str]) -> anyhow::Result<Value> {
    let output = lab.kubectl(&[&["get", "-o", "json"], object].concat()).await?.success()?;
    Ok(serde_json::from_str(&output.out)?)
}

async fn versions(lab: &Lab, objects: &[&[&str]]) -> anyhow::Result<Vec<String>> {
    let mut versions = Vec::new();
    for object in objects {
        versions.push(lab.field(object, "{.metadata.resourceVersion}").await?);
    }
    Ok(versions)
}

/// Whether the object has this condition.
pub async fn is(
    lab: &Lab,
    object: &[&str],
    list: &str,
    about: &str,
    verdict: &str,
    reason: &str,
) -> anyhow::Result<()> {
    let found = get(lab, object).await?;
    let conditions = found.pointer(list).and_then(Value::as_array).into_iter().flatten();
    let text = |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).map(str::to_owned);
    let condition = conditions.into_iter().find(|condition| text(condition, "type").as_deref() == Some(about));
    let condition = condition.with_context(|| format!("no {about}: {found}"))?;
    let is = (text(condition, "status"), text(condition, "reason"));
    anyhow::ensure!(is == (Some(verdict.to_owned()), Some(reason.to_owned())), "{condition}");
    Ok(())
}

/// How often it has written a status.
async fn writes(gateway: &RunningGateway) -> anyhow::Result<u64> {
    let text = gateway.admin().text("/metrics").await?;
    let line = text.lines().find_map(|line| line.strip_prefix("tollgate_status_writes_total{result=\"Written\"} "));
    line.context("no counter of writes")?.parse().context("a number")
}
