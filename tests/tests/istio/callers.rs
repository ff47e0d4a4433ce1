//! Callers at a Service of models: their own sidecars choose the runner, as istiod programs them.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_tests::lab::books;
use tollgate_tests::lab::caller::{self, Caller};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE};
use tollgate_tests::poll;

use crate::members;
use crate::sidecars::policy;

e2e! {
    a_callers_sidecar_in_a_mesh_leads_by_the_model,
}

/// The models of two namespaces, at one Service without Pods.
const MODELS: &str = "
apiVersion: v1
kind: Service
metadata: {name: llm, namespace: NAMESPACE}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: small, namespace: NAMESPACE}
spec: {schema: OpenAI, endpoint: {service: {name: runner, port: 80}}}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: large, namespace: NAMESPACE}
spec: {schema: OpenAI, endpoint: {service: {name: runner, namespace: NAMESPACE-large, port: 80}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: models, namespace: NAMESPACE-large}
spec:
  from: [{group: tollgate.dev, kind: ModelBackend, namespace: NAMESPACE}]
  to: [{group: '', kind: Service}]
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: chat, namespace: NAMESPACE}
spec:
  parentRefs: [{name: llm}]
  models:
  - {name: small, targets: [{backendRef: {name: small}, model: smol}]}
  - {name: large, targets: [{backendRef: {name: large}, model: smol}]}
";

async fn a_callers_sidecar_in_a_mesh_leads_by_the_model(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (ns, of_large) = ("asked", "asked-large");
    for namespace in [ns, of_large] {
        members::namespace(&lab, namespace).await?;
        members::runner(&lab, namespace).await?;
    }
    let web = members::caller(&lab, ns, "web").await?;
    let elsewhere = members::caller(&lab, of_large, "web").await?;
    members::apply(&lab, ns, &policy(1_000_000)).await?;
    members::apply(&lab, ns, MODELS).await?;

    let url = "http://llm.asked/v1/chat/completions";
    let ask = async |caller: &Caller<'_>, model: &str, status: u16| {
        let body = caller::question(model);
        let request = [url, "-H", "content-type: application/json", "-d", &body];
        poll::within(PATIENCE, &format!("{model} is answered by {status}"), || async {
            caller.ask(&request).await?.expect(status)
        })
        .await
    };
    // Without the filter nobody is led anywhere.
    poll::within(PATIENCE, "the filter is there", || async {
        let unknown = ask(&web, "unknown", 404).await?;
        anyhow::ensure!(unknown.body.contains("model_not_found"), "{unknown:?}");
        Ok(())
    })
    .await?;
    ask(&web, "small", 200).await?;
    ask(&web, "large", 200).await?;
    let listed = web.ask(&["http://llm.asked/v1/models"]).await?.expect(200)?;
    anyhow::ensure!(listed.body.contains("small") && listed.body.contains("large"), "{listed:?}");
    // The sidecar of the one with a policy has known the caller and charged it, and the other one was not asked for it.
    let rows = books::rows(&lab, &format!("{ns}/web"), 1).await?;
    let route = json!(format!("service/{ns}/runner"));
    anyhow::ensure!(rows.iter().all(|row| row.get("route") == Some(&route)), "{rows:?}");
    // What a client says in the header is taken away.
    let small = caller::question("small");
    let forged = ["-H", "x-tollgate-backend: asked/large", "-H", "content-type: application/json", "-d", &small];
    web.ask(&[&[url][..], &forged].concat()).await?.expect(200)?;
    books::rows(&lab, &format!("{ns}/web"), 2).await?;
    // Callers of other namespaces have no filter, and no runner at random.
    let plain = [url, "-H", "content-type: application/json", "-d", &small];
    elsewhere.ask(&plain).await?.expect(500)?;

    // The policy says that its filter is in the one Pod.
    poll::within(PATIENCE, "the policy is programmed", || async {
        let path = "{.status.ancestors[0].conditions[?(@.type=='Programmed')].message}";
        let message = lab.field(&["-n", ns, "tokenpolicy", "daily"], path).await?;
        anyhow::ensure!(message == "1 of 1 Pods carry the filter", "{message}");
        Ok(())
    })
    .await?;
    poll::within(PATIENCE, "istioctl shows the filter", || async {
        let routes = ["proxy-config", "routes", "web", "-n", ns, "--name", "80", "-o", "json"];
        let routes: Value = serde_json::from_str(&lab.istioctl(&routes).await?.success()?.out)?;
        anyhow::ensure!(routes.to_string().contains("tollgate/workload/asked/llm/outbound/request"), "{routes}");
        Ok(())
    })
    .await
}
