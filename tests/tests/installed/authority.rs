//! The CA of the control plane: a Secret that somebody else may replace, as cert-manager does.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::json;
use tollgate_tests::lab::install::NAMESPACE;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, WAIT};
use tollgate_tests::poll;

use crate::shop::{self, Load};

e2e! {
    another_ca_is_taken_by_all_and_no_request_fails,
}

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  parentRefs: [{name: shop}]
  rules:
  - matches: [{path: {type: Exact, value: /NAME}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: NAME.example}}]
";

/// In one step, without a bundle of both. The proxies' certificates are worth nothing then, and a control plane that starts
/// anew knows no other CA. Still the same Pods come back to it, and nobody who asks them notices anything.
async fn another_ca_is_taken_by_all_and_no_request_fails(lab: Arc<Lab>) -> anyhow::Result<()> {
    let address = shop::web(&lab, "authority", "").await?;
    let load = Load::start(&lab, &format!("http://{address}/"), 200, &[])?;
    let before = proxies(&lab, "authority").await?;
    replace(&lab, "authority", "shop-tollgate").await?;
    hear(&lab, "authority", &address, "later").await?;
    anyhow::ensure!(proxies(&lab, "authority").await? == before, "other Pods serve now");
    load.stop()?.all_right()
}

/// Makes a route of this name, and waits until the proxies of the shop at this address have heard of it.
pub async fn hear(lab: &Lab, namespace: &str, address: &str, name: &str) -> anyhow::Result<()> {
    lab.apply(&ROUTE.replace("NAMESPACE", namespace).replace("NAME", name)).await?;
    poll::until("the proxies hear of a route", || async {
        let answer = shop::get(lab, &format!("http://{address}/{name}")).await?;
        anyhow::ensure!(answer.status == 302, "{answer:?}");
        Ok(())
    })
    .await
}

/// Another CA, and then a control plane that knows no other. A ConfigMap of a Gateway's proxies says when they hear of it.
pub async fn replace(lab: &Lab, namespace: &str, proxies: &str) -> anyhow::Result<()> {
    let (certificate, key) = ca()?;
    let patch = json!({"stringData": {"tls.crt": certificate, "tls.key": key, "ca.crt": certificate}}).to_string();
    lab.kubectl(&["-n", NAMESPACE, "patch", "secret", "tollgate-authority", "-p", &patch]).await?.success()?;
    poll::until("the proxies' ConfigMap has the new CA", || async {
        let found = lab.field(&["-n", namespace, "configmap", proxies], r"{.data.ca\.pem}").await?;
        anyhow::ensure!(found.trim() == certificate.trim(), "{found}");
        Ok(())
    })
    .await?;
    lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", "deployment/tollgate"]).await?.success()?;
    started(lab).await
}

/// Waits until the control plane serves.
pub async fn started(lab: &Lab) -> anyhow::Result<()> {
    let rollout = ["-n", NAMESPACE, "rollout", "status", "deployment/tollgate", WAIT];
    lab.kubectl(&rollout).await?.success().map(drop)
}

/// Which Pods a shop's proxies are.
pub async fn proxies(lab: &Lab, namespace: &str) -> anyhow::Result<String> {
    let label = "gateway.networking.k8s.io/gateway-name=shop";
    lab.field(&["-n", namespace, "pods", "-l", label], "{.items[*].metadata.uid}").await
}

/// A certificate and its key, PEM.
fn ca() -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}
