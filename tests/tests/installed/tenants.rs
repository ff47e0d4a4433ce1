//! What one namespace may do to another: nothing that was not granted, and no longer than it is.

use std::sync::Arc;
use std::time::Instant;

use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, WAIT};
use tollgate_tests::poll;

use crate::shop;

e2e! {
    a_grant_that_goes_cuts_traffic_at_once,
    no_tenant_takes_over_what_is_anothers,
    invalid_objects_disturb_nobody,
}

/// A route to a Service in another namespace, and the grant for it.
const ABROAD: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: abroad, namespace: NAMESPACE}
spec:
  parentRefs: [{name: shop}]
  rules: [{matches: [{path: {value: /abroad}}], backendRefs: [{name: web, namespace: NAMESPACE-abroad, port: 80}]}]
---
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE-abroad}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NAMESPACE-abroad}
spec: {ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: web, namespace: NAMESPACE-abroad}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: NAMESPACE}], to: [{group: '', kind: Service, name: web}]}
";

async fn a_grant_that_goes_cuts_traffic_at_once(lab: Arc<Lab>) -> anyhow::Result<()> {
    let address = shop::web(&lab, "grants", ABROAD).await?;
    // Its endpoints are the Pods of the other Service.
    let slice = lab
        .kubectl(&["-n", "grants", "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}"])
        .await?;
    lab.apply(&SLICE.replace("ADDRESS", slice.out.trim())).await?;
    let url = format!("http://{address}/abroad");
    let answers = |status: u16| {
        let (lab, url) = (Arc::clone(&lab), url.clone());
        poll::until("the route answers so", move || {
            let (lab, url) = (Arc::clone(&lab), url.clone());
            async move {
                let answer = shop::get(&lab, &url).await?;
                anyhow::ensure!(answer.status == status, "{answer:?}");
                Ok(())
            }
        })
    };
    answers(200).await?;
    lab.kubectl(&["-n", "grants-abroad", "delete", "referencegrant", "web"]).await?.success()?;
    let gone = Instant::now();
    answers(500).await?;
    println!(
        "    cut {:.0} ms after the grant was gone, kubectl and curl included",
        gone.elapsed().as_secs_f64() * 1e3
    );
    let reason = "--for=jsonpath={.status.parents[0].conditions[?(@.type=='ResolvedRefs')].reason}=RefNotPermitted";
    lab.kubectl(&["-n", "grants", "wait", "httproute/abroad", WAIT, reason]).await?.success()?;
    // What is not concerned goes on.
    let answer = shop::get(&lab, &format!("http://{address}/")).await?;
    anyhow::ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

const SLICE: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: grants-abroad, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [ADDRESS]}]
";

/// A Gateway that takes routes of its own namespace only, and one that takes all. In the latter, the older of two routes
/// for the same requests has them.
const TENANTS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared, namespace: NAMESPACE}
spec:
  gatewayClassName: tollgate
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: older, namespace: NAMESPACE}
spec:
  parentRefs: [{name: shared}]
  hostnames: [shop.example]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";

const INTRUDER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: intruder}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a, namespace: intruder}
spec:
  parentRefs: [{name: shop, namespace: tenants}, {name: shared, namespace: tenants}]
  hostnames: [shop.example]
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: intruder.example}}]}]
";

async fn no_tenant_takes_over_what_is_anothers(lab: Arc<Lab>) -> anyhow::Result<()> {
    let closed = shop::web(&lab, "tenants", TENANTS).await?;
    let shared = shop::address(&lab, "tenants", "shared").await?;
    let host = ["-H", "host: shop.example"];
    let answers = async |address: &str, status: u16| {
        let url = format!("http://{address}/");
        let answer = shop::ask(&lab, &[&[url.as_str()][..], &host].concat()).await?;
        anyhow::ensure!(answer.status == status, "{answer:?}");
        anyhow::Ok(())
    };
    poll::until("the owner's route answers", || answers(&shared, 200)).await?;
    lab.apply(INTRUDER).await?;
    let condition =
        |parent: u8| format!("--for=jsonpath={{.status.parents[{parent}].conditions[?(@.type=='Accepted')].reason}}");
    for (parent, reason) in [(0, "NotAllowedByListeners"), (1, "Accepted")] {
        let wait = format!("{}={reason}", condition(parent));
        lab.kubectl(&["-n", "intruder", "wait", "httproute/a", WAIT, &wait]).await?.success()?;
    }
    for _ in 0..20 {
        answers(&shared, 200).await?;
        answers(&closed, 200).await?;
    }
    // What the owner does not answer for is free for others.
    lab.kubectl(&["-n", "tenants", "delete", "httproute", "older"]).await?.success()?;
    poll::until("the other one has it now", || answers(&shared, 302)).await?;
    answers(&closed, 200).await
}

/// Objects that the API server takes and that cannot work.
const INVALID: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: broken, namespace: NAMESPACE}
spec:
  gatewayClassName: tollgate
  listeners:
  - {name: a, port: 80, protocol: NONSENSE}
  - {name: b, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: missing}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: nowhere, namespace: NAMESPACE}
spec:
  parentRefs: [{name: shop}, {name: missing}]
  rules: [{matches: [{path: {value: /nowhere}}], backendRefs: [{name: missing, port: 80}]}]
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: broken, namespace: NAMESPACE}
spec: {models: [{name: m, targets: [{backendRef: {name: missing}}]}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: broken, namespace: NAMESPACE}
spec: {targetRefs: [{group: tollgate.dev, kind: ModelPool, name: missing}], limits: [{name: l, tokens: 1, window: 1h}]}
";

async fn invalid_objects_disturb_nobody(lab: Arc<Lab>) -> anyhow::Result<()> {
    let address = shop::web(&lab, "disturbed", "").await?;
    let load = shop::Load::start(&lab, &format!("http://{address}/"), 200, &[])?;
    lab.apply(&INVALID.replace("NAMESPACE", "disturbed")).await?;
    poll::until("what is wrong is said", || async {
        let resolved = "{.status.parents[0].conditions[?(@.type=='ResolvedRefs')].reason}";
        let reason = lab.field(&["-n", "disturbed", "httproute", "nowhere"], resolved).await?;
        anyhow::ensure!(reason == "BackendNotFound", "{reason}");
        let accepted = "{.status.conditions[?(@.type=='Accepted')].reason}";
        let reason = lab.field(&["-n", "disturbed", "gateway", "broken"], accepted).await?;
        anyhow::ensure!(reason == "ListenersNotValid", "{reason}");
        Ok(())
    })
    .await?;
    // A valid object that comes later acts.
    let route = ABROAD.split("---").next().unwrap_or_default().replace("NAMESPACE", "disturbed");
    lab.apply(&route.replace("namespace: disturbed-abroad, ", "")).await?;
    poll::until("a new route answers", || async {
        let answer = shop::get(&lab, &format!("http://{address}/abroad")).await?;
        anyhow::ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .await?;
    lab.kubectl(&["-n", "disturbed", "delete", "gateway", "broken"]).await?.success()?;
    load.stop()?.all_right()
}
