//! Planted keys are searched for in everything of a cluster that can be read, but Secrets.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::Value;
use tollgate_tests::lab::install::{CONTROL_PLANE, NAMESPACE};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE};
use tollgate_tests::poll;

use crate::chain::{self, Chain};
use crate::dump;
use crate::install::ACCOUNT;
use crate::shop;

e2e! {
    planted_keys_are_in_nothing_but_secrets,
}

const CLIENT_KEY: &str = "planted-client-key";
const CREDENTIAL: &str = "planted-credential";
const WRONG_KEY: &str = "planted-wrong-key";
const SPENT_KEY: &str = "planted-key-of-somebody-who-has-spent-it-all";
const UNUSED_KEY: &str = "planted-key-that-nobody-refers-to";
/// A proxy that tells what it goes by.
const WATCHED: &str = "planted-watched";

/// A pool at a provider that wants a key, and consumers whose keys are in Secrets.
const OBJECTS: &str = "
apiVersion: v1
kind: Secret
metadata: {name: provider, namespace: NAMESPACE}
stringData: {apiKey: planted-credential}
---
apiVersion: v1
kind: Secret
metadata: {name: client, namespace: NAMESPACE}
stringData: {apiKey: planted-client-key}
---
apiVersion: v1
kind: Secret
metadata: {name: spent, namespace: NAMESPACE}
stringData: {apiKey: planted-key-of-somebody-who-has-spent-it-all}
---
# Nobody refers to it.
apiVersion: v1
kind: Secret
metadata: {name: unused, namespace: NAMESPACE}
stringData: {apiKey: planted-key-that-nobody-refers-to}
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: client, namespace: NAMESPACE}
spec: {keys: [{secretRef: {name: client}, notAfter: '2099-01-01T00:00:00Z'}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: spent, namespace: NAMESPACE}
spec: {keys: [{secretRef: {name: spent}}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: provider, namespace: NAMESPACE}
spec:
  schema: OpenAI
  endpoint: {service: {name: runner, port: 8000}}
  tls: {mode: None}
  credential: {secretRef: {name: provider}}
---
# The key in the wrong place, as people paste it.
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: mistaken, namespace: NAMESPACE}
spec:
  schema: OpenAI
  endpoint: {service: {name: runner, port: 8000}}
  tls: {mode: None}
  credential: {secretRef: {name: nowhere}}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: provided, namespace: NAMESPACE}
spec:
  models:
  - {name: smol, targets: [{backendRef: {name: provider}}]}
  - {name: none, targets: [{backendRef: {name: mistaken}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: provided, namespace: NAMESPACE}
spec:
  parentRefs: [{name: llm}]
  hostnames: [provided.example]
  rules: [{matches: [{path: {value: /v1}}], backendRefs: [{group: tollgate.dev, kind: ModelPool, name: provided}]}]
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: provided, namespace: NAMESPACE}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: provided}]
  limits: [{name: hourly, tokens: 60, window: 1h, scope: [Consumer]}]
";

/// Keys that are taken, refused, rotated and spent, and a provider's credential: none is in a log, an event, an object, a
/// metric, an answer or a file of a Pod's but where it belongs.
async fn planted_keys_are_in_nothing_but_secrets(lab: Arc<Lab>) -> anyhow::Result<()> {
    let Chain { url, .. } = chain::chain(&lab, "planted", OBJECTS).await?;
    let mut said = String::new();
    for (key, status) in [(CLIENT_KEY, 200), (WRONG_KEY, 401), (SPENT_KEY, 429)] {
        let answer = poll::within(PATIENCE, key, || async {
            let answer = ask(&lab, &url, key, "smol").await?;
            anyhow::ensure!(answer.status == status, "{answer:?}");
            Ok(answer)
        })
        .await?;
        write!(said, "{}\n{}\n", answer.head, answer.body)?;
    }
    let answer = ask(&lab, &url, CLIENT_KEY, "none").await?;
    anyhow::ensure!(answer.status >= 400, "{answer:?}");
    said.push_str(&answer.body);
    poll::until("what was used is in the books", || async {
        anyhow::ensure!(chain::used(&lab, "planted", "spent").await? > 0, "not yet");
        Ok(())
    })
    .await?;

    let mut places = vec![("an answer".to_owned(), said), ("objects".to_owned(), objects(&lab).await?)];
    for (name, selector, namespace, port) in [
        ("the control plane's metrics", CONTROL_PLANE, NAMESPACE, 8080),
        ("a proxy's metrics", "gateway.networking.k8s.io/gateway-name=llm", "planted", 15021),
    ] {
        let address = lab.field(&["-n", namespace, "pods", "-l", selector], "{.items[0].status.podIP}").await?;
        places.push((name.to_owned(), shop::get(&lab, &format!("http://{address}:{port}/metrics")).await?.body));
    }
    dump::watched(&lab, "planted", "llm-tollgate", WATCHED).await?;
    let dump = poll::until("an Envoy has the credential, and does not say it", || async {
        let dump = dump::of(WATCHED)?;
        anyhow::ensure!(["credential/planted/provider", "[redacted]"].iter().all(|text| dump.contains(text)), "{dump}");
        Ok(dump)
    })
    .await?;
    places.push(("a dump of what an Envoy goes by".to_owned(), dump));
    dump::unwatched(&lab, "planted", WATCHED).await?;
    for command in [&["usage", "-o", "json"][..], &["status"]] {
        let exec = ["-n", NAMESPACE, "exec", "deploy/tollgate", "--", "/usr/local/bin/tollgate"];
        let output = lab.kubectl(&[&exec[..], command].concat()).await?;
        places.push((format!("tollgate {}", command.join(" ")), output.out + &output.err));
    }
    // Of the API server, which notes who asked for what, of its parts, and of all Pods.
    files(&lab.home().join("logs"), &mut places)?;
    files(&lab.home().join("audit.log"), &mut places)?;
    let empty: Vec<_> = ["an answer", "objects"].into_iter().filter(|name| is_empty(&places, name)).collect();
    anyhow::ensure!(empty.is_empty() && places.len() > 10, "nothing in {empty:?} of {}", places.len());
    let mut planted = [CLIENT_KEY, WRONG_KEY, CREDENTIAL, SPENT_KEY, UNUSED_KEY].map(str::to_owned).to_vec();
    // The search would have found them where they belong, in base64.
    for secret in ["client", "provider", "spent", "unused"] {
        planted.push(lab.field(&["-n", "planted", "secret", secret], "{.data.apiKey}").await?);
    }
    for (place, text) in &places {
        for secret in &planted {
            let found = text.lines().find(|line| line.contains(secret));
            anyhow::ensure!(found.is_none(), "{secret} in {place}: {found:?}");
        }
    }
    println!("    {} places", places.len());
    only_what_is_referred_to_is_read(&lab)
}

/// The API server has noted who asked for which Secret, as manifests/audit-policy.yaml has it do.
fn only_what_is_referred_to_is_read(lab: &Lab) -> anyhow::Result<()> {
    let log = std::fs::read_to_string(lab.home().join("audit.log"))?;
    let (mut ours, mut written) = (BTreeSet::new(), BTreeSet::new());
    for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        if text("/objectRef/resource") != "secrets" {
            continue;
        }
        let (verb, name) = (text("/verb"), text("/objectRef/name"));
        // No more of a Secret is in the log than that somebody asked for it.
        anyhow::ensure!(text("/level") == "Metadata", "{event}");
        // What is listed and watched is metadata alone, without which nobody would know that one has changed.
        match (text("/objectRef/namespace").as_str(), text("/user/username") == ACCOUNT, verb.as_str()) {
            ("planted", true, "get") => drop(ours.insert(name)),
            ("planted", false, "patch") => drop(written.insert(name)),
            _ => {}
        }
    }
    let expected = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    anyhow::ensure!(expected(&["client", "provider", "spent", "unused"]).is_subset(&written), "written: {written:?}");
    // `nowhere` is referred to, and is not there.
    anyhow::ensure!(ours == expected(&["client", "nowhere", "provider", "spent"]), "read: {ours:?}");
    Ok(())
}

async fn ask(lab: &Lab, url: &str, key: &str, model: &str) -> anyhow::Result<shop::Answer> {
    let body =
        format!(r#"{{"model": "{model}", "max_tokens": 20, "messages": [{{"role": "user", "content": "hello"}}]}}"#);
    let authorization = format!("authorization: Bearer {key}");
    let headers = ["-H", &authorization, "-H", "host: provided.example", "-H", "content-type: application/json"];
    shop::ask(lab, &[&[url, "-d", &body][..], &headers].concat()).await
}

/// All of all kinds that can be listed, events among them, but Secrets.
async fn objects(lab: &Lab) -> anyhow::Result<String> {
    let kinds = lab.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).await?.success()?.out;
    let kinds: Vec<&str> = kinds.lines().filter(|kind| *kind != "secrets").collect();
    anyhow::ensure!(kinds.contains(&"events"), "{kinds:?}");
    Ok(lab.kubectl(&["get", &kinds.join(","), "-A", "-o", "yaml"]).await?.success()?.out)
}

fn files(path: &Path, places: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            files(&entry?.path(), places)?;
        }
    } else if path.is_file() {
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        places.push((path.display().to_string(), String::from_utf8_lossy(&text).into_owned()));
    }
    Ok(())
}

fn is_empty(places: &[(String, String)], name: &str) -> bool {
    places.iter().all(|(place, text)| place != name || text.is_empty())
}
