//! Tollgate reads a cluster: `tollgate run --source kubernetes`, an Envoy of one's own against a real API server.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;
use tollgate_tests::cli::tollgate;
use tollgate_tests::gateway::{RunningGateway, Setup};
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::poll;
use tollgate_tests::tools::Tools;

e2e! {
    objects_of_a_cluster_are_served_as_they_are_now,
    secrets_are_read_where_they_are_referred_to,
    what_other_controllers_answer_for_is_left_alone,
    whoever_may_not_read_is_told_what_is_missing,
    a_namespace_is_enough,
}

/// A Gateway and a route that redirects `/old`, which takes no backend.
const ROUTE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: tollgate}
spec: {controllerName: tollgate.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm, namespace: NAMESPACE}
spec: {gatewayClassName: tollgate, listeners: [{name: http, port: PORT, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: moved, namespace: NAMESPACE}
spec:
  parentRefs: [{name: llm}]
  rules:
  - matches: [{path: {type: Exact, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {statusCode: 302}}]
";

/// A pool that one consumer may use. Nothing answers for its models, and no test asks for one.
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
spec: {models: [{name: smol, targets: [{backendRef: {name: runner}}]}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: runner, namespace: NAMESPACE}
spec: {schema: OpenAI, endpoint: {hostname: 127.0.0.1, port: 9}, tls: {mode: None}}
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: alice, namespace: NAMESPACE}
spec: {keys: [{secretRef: {name: alice}}]}
";

async fn objects_of_a_cluster_are_served_as_they_are_now(lab: Arc<Lab>) -> anyhow::Result<()> {
    let gateway = run(&lab, "edits", "").await?;
    answers(&gateway, "/old", 302).await?;
    let moved = ["-n", "edits", "patch", "httproute", "moved", "--type", "json", "-p"];
    let path = r#"[{"op": "replace", "path": "/spec/rules/0/matches/0/path/value", "value": "/new"}]"#;
    lab.kubectl(&[&moved[..], &[path]].concat()).await?.success()?;
    answers(&gateway, "/new", 302).await?;
    answers(&gateway, "/old", 404).await?;
    lab.kubectl(&["-n", "edits", "delete", "httproute", "moved"]).await?.success()?;
    answers(&gateway, "/new", 404).await
}

async fn secrets_are_read_where_they_are_referred_to(lab: Arc<Lab>) -> anyhow::Result<()> {
    let gateway = run(&lab, "secrets-read", POOL).await?;
    let lets_in = |key: &'static str, status: u16| {
        let client = gateway.client(key);
        poll::until("the key counts, or not", move || {
            let client = client.clone();
            async move { client.chat("unknown").await?.expect(status).map(|_| ()) }
        })
    };
    lets_in("first-of-alice", 401).await?;
    secret(&lab, "secrets-read", "alice", "first-of-alice").await?;
    secret(&lab, "secrets-read", "others", "nobodys-business").await?;
    lets_in("first-of-alice", 404).await?;
    secret(&lab, "secrets-read", "alice", "second-of-alice").await?;
    lets_in("second-of-alice", 404).await?;
    lets_in("first-of-alice", 401).await?;
    lab.kubectl(&["-n", "secrets-read", "delete", "secret", "alice"]).await?.success()?;
    lets_in("second-of-alice", 401).await?;
    anyhow::ensure!(!gateway.logs()?.contains("of-alice"), "a key is in a log");
    Ok(())
}

async fn what_other_controllers_answer_for_is_left_alone(lab: Arc<Lab>) -> anyhow::Result<()> {
    let gateway = run(&lab, "others", "").await?;
    // Nothing of it could be served here.
    lab.apply(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: others}
spec: {controllerName: example.com/other}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: theirs, namespace: others}
spec:
  gatewayClassName: others
  listeners: [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}]
  tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: theirs, namespace: others}
spec: {parentRefs: [{name: theirs}], rules: [{backendRefs: [{name: nowhere, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ours, namespace: others}
spec: {parentRefs: [{name: llm}], rules: [{matches: [{path: {value: /ours}}], filters: [{type: RequestRedirect, requestRedirect: {statusCode: 302}}]}]}
",
    )
    .await?;
    // By then all of it has been read.
    answers(&gateway, "/ours", 302).await?;
    poll::until("the status has what is ours, and nothing else", || async {
        let status = gateway.admin().status().await?;
        let of = |list: &str| status.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        let is = |object: &Value, field: &str, text: &str| object.get(field).and_then(Value::as_str) == Some(text);
        let mut names = of("objects");
        names.retain(|object| is(object, "namespace", "others"));
        names.iter_mut().for_each(|object| *object = object.get("name").cloned().unwrap_or_default());
        anyhow::ensure!(names == ["llm", "moved", "ours"], "{names:?}");
        let findings = of("findings");
        anyhow::ensure!(!findings.iter().any(|finding| is(finding, "severity", "error")), "{findings:?}");
        Ok(())
    })
    .await
}

async fn whoever_may_not_read_is_told_what_is_missing(lab: Arc<Lab>) -> anyhow::Result<()> {
    objects(&lab, "denied", 80, "").await?;
    let kubeconfig = account(&lab, "denied", "{apiGroups: ['*'], resources: [pods], verbs: [list]}").await?;
    let answer =
        tollgate(&Tools::find()?, &["validate", "--source", "kubernetes", "--kubeconfig", text(&kubeconfig)?])?;
    anyhow::ensure!(answer.code == Some(1), "{answer:?}");
    for expected in [
        "error: HTTPRoute may not be read: list is forbidden (a role with get, list and watch of \
         httproutes.gateway.networking.k8s.io;",
        "TokenPolicy may not be read",
    ] {
        anyhow::ensure!(answer.out.contains(expected), "{expected}: {answer:?}");
    }
    Ok(())
}

async fn a_namespace_is_enough(lab: Arc<Lab>) -> anyhow::Result<()> {
    objects(&lab, "enough", 80, POOL).await?;
    let kubeconfig = account(&lab, "enough", "{apiGroups: ['*'], resources: ['*'], verbs: [get, list, watch]}").await?;
    let arguments = ["validate", "--source", "kubernetes", "--kubeconfig", text(&kubeconfig)?, "--namespace", "enough"];
    let answer = tollgate(&Tools::find()?, &arguments)?;
    let expected = "error: Consumer enough/alice: spec.keys[0].secretRef: Secret enough/alice does not exist\n";
    anyhow::ensure!(answer.out == expected, "{answer:?}");
    secret(&lab, "enough", "alice", "key").await?;
    let answer = tollgate(&Tools::find()?, &arguments)?;
    anyhow::ensure!(answer.code == Some(0) && answer.out == "no findings\n", "{answer:?}");
    Ok(())
}

/// Runs a gateway on the objects of this namespace.
async fn run(lab: &Lab, namespace: &str, more: &str) -> anyhow::Result<RunningGateway> {
    let setup = Setup::new(&Tools::find()?, &format!("cluster-{namespace}"))?.cluster(&lab.kubeconfig());
    objects(lab, namespace, setup.port(), more).await?;
    setup.arguments(&["--namespace", namespace, "--concurrency", "1"]).start().await
}

/// Makes the objects of this namespace.
pub async fn objects(lab: &Lab, namespace: &str, port: u16, more: &str) -> anyhow::Result<()> {
    let all = if more.is_empty() { ROUTE.to_owned() } else { format!("{ROUTE}---{more}") };
    lab.apply(&all.replace("NAMESPACE", namespace).replace("PORT", &port.to_string())).await
}

async fn secret(lab: &Lab, namespace: &str, name: &str, key: &str) -> anyhow::Result<()> {
    let metadata = format!("{{name: {name}, namespace: {namespace}}}");
    lab.apply(&format!("apiVersion: v1\nkind: Secret\nmetadata: {metadata}\nstringData: {{apiKey: {key}}}\n")).await
}

/// The kubeconfig of a service account that has one rule in its own namespace.
pub async fn account(lab: &Lab, namespace: &str, rule: &str) -> anyhow::Result<PathBuf> {
    lab.apply(&format!(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: reader, namespace: {namespace}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: reader, namespace: {namespace}}}
rules: [{rule}, {{apiGroups: [''], resources: [markers], verbs: [get]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: reader, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}}
subjects: [{{kind: ServiceAccount, name: reader, namespace: {namespace}}}]
"
    ))
    .await?;
    let token = lab.kubectl(&["-n", namespace, "create", "token", "reader"]).await?.success()?.out;
    let whole = lab.kubectl(&["config", "view", "--raw", "-o", "json"]).await?.success()?.out;
    let mut kubeconfig: Value = serde_json::from_str(&whole)?;
    let user = kubeconfig.pointer_mut("/users/0/user").context("a kubeconfig has a user")?;
    *user = serde_json::json!({ "token": token.trim() });
    let path = lab.home().join(format!("{namespace}.kubeconfig"));
    std::fs::write(&path, kubeconfig.to_string())?;
    // The API server learns of a new role a moment later. Nobody else may read the markers, which there are none of.
    poll::until("the role is in force", || async {
        let asked = ["--kubeconfig", text(&path)?, "-n", namespace, "auth", "can-i", "get", "markers"];
        lab.kubectl(&asked).await?.success()
    })
    .await?;
    Ok(path)
}

fn text(path: &std::path::Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// Redirects are answers, and are not followed.
async fn answers(gateway: &RunningGateway, path: &str, status: u16) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
    let url = format!("{}{path}", gateway.url());
    poll::until(&format!("{path} answers {status}"), || async {
        let answer = client.get(&url).send().await?.status();
        anyhow::ensure!(answer == status, "{answer}");
        Ok(())
    })
    .await
}
