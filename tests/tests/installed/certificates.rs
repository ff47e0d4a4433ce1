//! The CA from elsewhere, as the chart asks for it: the real cert-manager makes and renews it, and the real definitions of
//! External Secrets take what is asked of them.

use std::sync::Arc;

use rustix::process::Signal;
use tollgate_tests::lab::cert_manager::CertManager;
use tollgate_tests::lab::install::{CONTROL_PLANE, NAMESPACE, VALUES};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, WAIT};
use tollgate_tests::poll;

use crate::shop::{self, Load};
use crate::{authority, faults};

e2e! {
    what_the_chart_asks_of_others_is_what_they_take,
    cert_manager_renews_the_ca_and_no_request_fails,
    a_release_waits_for_the_ca_that_cert_manager_makes,
}

const SECRET: &str = "tollgate-authority";
const CERTIFICATE: &str = "certificate.cert-manager.io/tollgate-authority";

/// By a root of this cluster.
const BY_ROOT: [&str; 3] = [
    "certificates.source=cert-manager",
    "certificates.issuerRef.name=root",
    "certificates.issuerRef.kind=ClusterIssuer",
];
/// By its own key.
const BY_ITSELF: [&str; 3] =
    ["certificates.source=cert-manager", "certificates.issuerRef.name=itself", "certificates.issuerRef.kind=Issuer"];
const FROM_A_VAULT: [&str; 4] = [
    "certificates.source=external-secret",
    "certificates.secretStoreRef.name=vault",
    "certificates.secretStoreRef.kind=ClusterSecretStore",
    "certificates.remoteRef.key=tollgate/ca",
];
const KEY_FROM_A_VAULT: [&str; 6] = [
    "providerKeys[0].name=openai",
    "providerKeys[0].externalSecret.secretStoreRef.name=vault",
    "providerKeys[0].externalSecret.secretStoreRef.kind=ClusterSecretStore",
    "providerKeys[0].externalSecret.remoteRef.key=openai",
    "providerKeys[0].externalSecret.remoteRef.property=key",
    "providerKeys[0].externalSecret.refreshInterval=15m",
];

const ROOT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: cert-manager}
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: itself}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: root, namespace: cert-manager}
spec:
  secretName: root
  isCA: true
  commonName: root
  duration: 87600h
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {name: itself, kind: ClusterIssuer}
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: root}
spec: {ca: {secretName: root}}
";

const ITSELF: &str = "
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: itself, namespace: tollgate-system}
spec: {selfSigned: {}}
";

/// What `cmctl renew` writes into the status of a Certificate.
const RENEW: &str = r#"[{"op": "add", "path": "/status/conditions/-", "value":
    {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "somebody has asked for it"}}]"#;

/// The Secret, as PEM.
#[derive(PartialEq)]
struct Ca {
    certificate: String,
    key: String,
    trusted: String,
}

/// An API server with the definitions of those who are asked refuses any field that they do not have.
async fn what_the_chart_asks_of_others_is_what_they_take(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.install_cert_manager().await?;
    lab.install_external_secrets().await?;
    for (source, kind) in [(&BY_ROOT[..], "Certificate"), (&FROM_A_VAULT, "ExternalSecret")] {
        let templates = ["templates/certificates.yaml", "templates/providers.yaml"];
        let rendered = lab.render(&templates, &[source, &KEY_FROM_A_VAULT].concat()).await?;
        let objects: Vec<&str> = rendered.split("---\n").filter(|object| object.contains("kind: ")).collect();
        let kinds: Vec<_> =
            objects.iter().flat_map(|object| object.lines().filter_map(|l| l.strip_prefix("kind: "))).collect();
        anyhow::ensure!(kinds == [kind, "ExternalSecret"], "{rendered}");
        for object in objects {
            let strictly = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
            lab.kubectl_with(&strictly, object).await?.success()?;
            let planted = object.replace("\nspec:\n", "\nspec:\n  planted: here\n");
            let refused = lab.kubectl_with(&strictly, &planted).await?;
            anyhow::ensure!(refused.code != Some(0) && refused.err.contains("planted"), "{planted}{refused:?}");
        }
    }
    lab.remove_external_secrets().await?;
    lab.remove_cert_manager().await
}

/// A release that had a CA of its own is given one below a root, which is renewed then. Nobody who asks the proxies notices
/// anything, and their Pods stay.
async fn cert_manager_renews_the_ca_and_no_request_fails(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.install_cert_manager().await?;
    let manager = CertManager::start(&lab)?;
    lab.apply(ROOT).await?;
    let address = shop::web(&lab, "certified", "").await?;
    let load = Load::start(&lab, &format!("http://{address}/"), 200, &[])?;
    let (pods, own) = (authority::proxies(&lab, "certified").await?, ca(&lab).await?);

    lab.upgrade(&BY_ROOT).await?;
    issued(&lab).await?;
    let first = ca(&lab).await?;
    anyhow::ensure!(first.certificate != first.trusted, "the root signs by itself");
    anyhow::ensure!(first.key == own.key, "the key from before is gone");
    shown(&lab, &first).await?;
    authority::hear(&lab, "certified", &address, "first").await?;

    let second = renew(&lab, &first).await?;
    anyhow::ensure!(second.trusted == first.trusted, "another root");
    shown(&lab, &second).await?;
    authority::hear(&lab, "certified", &address, "second").await?;
    // The same proxies come back to a control plane that has never had the first one.
    begin_anew(&lab).await?;
    authority::hear(&lab, "certified", &address, "third").await?;
    anyhow::ensure!(authority::proxies(&lab, "certified").await? == pods, "other Pods serve now");
    load.stop()?.all_right()?;

    shop::web(&lab, "certified-later", "").await?;
    lab.upgrade(&[]).await?;
    drop(manager);
    lab.remove_cert_manager().await
}

/// Nothing of a release from before is there, and cert-manager comes after it. Until there is a CA the control plane is alive,
/// not ready, and ends when it is asked to.
async fn a_release_waits_for_the_ca_that_cert_manager_makes(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.uninstall().await?;
    lab.kubectl(&["-n", NAMESPACE, "delete", "secret", SECRET]).await?.success()?;
    lab.install_cert_manager().await?;
    lab.apply(ITSELF).await?;
    lab.helm("upgrade", &["--install"], &[&VALUES[..], &BY_ITSELF].concat()).await?;
    waits(&lab).await?;
    let pod = lab.pod(NAMESPACE, CONTROL_PLANE).await?;
    faults::signal(faults::process_of(&pod)?, Signal::TERM)?;
    poll::until("it has ended by itself", || async {
        let ended = "{.status.containerStatuses[0].lastState.terminated.exitCode}";
        let code = lab.field(&["-n", NAMESPACE, "pod", &pod], ended).await?;
        anyhow::ensure!(code == "0", "{code}");
        Ok(())
    })
    .await?;
    waits(&lab).await?;

    let manager = CertManager::start(&lab)?;
    authority::started(&lab).await?;
    issued(&lab).await?;
    let address = shop::web(&lab, "awaited", "").await?;
    let first = ca(&lab).await?;
    // A root that is renewed is another certificate of the same key, so everybody is still trusted by everybody.
    let second = renew(&lab, &first).await?;
    poll::until("the proxies' ConfigMap has the new root", || async {
        let found = lab.field(&["-n", "awaited", "configmap", "shop-tollgate"], r"{.data.ca\.pem}").await?;
        anyhow::ensure!(found.trim() == second.trusted.trim(), "{found}");
        Ok(())
    })
    .await?;
    begin_anew(&lab).await?;
    authority::hear(&lab, "awaited", &address, "later").await?;

    lab.upgrade(&[]).await?;
    drop(manager);
    lab.remove_cert_manager().await
}

/// Waits until the control plane waits.
async fn waits(lab: &Lab) -> anyhow::Result<()> {
    let secret = lab.kubectl(&["-n", NAMESPACE, "get", "secret", SECRET]).await?;
    anyhow::ensure!(secret.err.contains("NotFound"), "{secret:?}");
    poll::until("the control plane waits for the CA", || async {
        let pods = ["-n", NAMESPACE, "pods", "-l", CONTROL_PLANE];
        let address = lab.field(&pods, "{.items[0].status.podIP}").await?;
        shop::get(lab, &format!("http://{address}:8081/healthz")).await?.expect(200)?;
        let answer = shop::get(lab, &format!("http://{address}:8081/readyz")).await?.expect(503)?;
        anyhow::ensure!(answer.body.contains(&format!("{NAMESPACE}/{SECRET}")), "{answer:?}");
        Ok(())
    })
    .await
}

/// Another Pod of the control plane in the place of the one that is there, in a Deployment that stays as the chart made it.
async fn begin_anew(lab: &Lab) -> anyhow::Result<()> {
    lab.kubectl(&["-n", NAMESPACE, "delete", "pod", "-l", CONTROL_PLANE]).await?.success()?;
    authority::started(lab).await
}

/// Waits until cert-manager has made what was asked for.
async fn issued(lab: &Lab) -> anyhow::Result<()> {
    let ready = ["-n", NAMESPACE, "wait", "--for=condition=Ready", WAIT, CERTIFICATE];
    lab.kubectl(&ready).await?.success().map(drop)
}

/// Another certificate of the same key.
async fn renew(lab: &Lab, before: &Ca) -> anyhow::Result<Ca> {
    let patch = ["-n", NAMESPACE, "patch", CERTIFICATE, "--subresource=status", "--type=json", "-p", RENEW];
    lab.kubectl(&patch).await?.success()?;
    let renewed = poll::until("cert-manager has renewed the CA", || async {
        let now = ca(lab).await?;
        anyhow::ensure!(now != *before, "it is the same");
        Ok(now)
    })
    .await?;
    anyhow::ensure!(renewed.certificate != before.certificate, "the certificate is the same");
    anyhow::ensure!(renewed.key == before.key, "another key");
    issued(lab).await?;
    Ok(renewed)
}

/// Waits until the control plane shows this CA, which goes with each certificate that it signs.
async fn shown(lab: &Lab, ca: &Ca) -> anyhow::Result<()> {
    let address = lab.field(&["-n", NAMESPACE, "service", "tollgate"], "{.spec.clusterIP}").await?;
    let address = format!("{address}:18000");
    poll::until("the control plane serves by the CA", || async {
        let shown = lab.exec(&["openssl", "s_client", "-showcerts", "-connect", &address]).await?;
        anyhow::ensure!(shown.out.contains(ca.certificate.trim()), "{shown:?}");
        Ok(())
    })
    .await
}

async fn ca(lab: &Lab) -> anyhow::Result<Ca> {
    // All of it at once, because somebody may write it meanwhile. PEM has no comma.
    let entry = |name: &str| format!("{{{{index .data \"{name}\" | base64decode}}}}");
    let template = format!("go-template={},{},{}", entry("tls.crt"), entry("tls.key"), entry("ca.crt"));
    let found = lab.kubectl(&["-n", NAMESPACE, "get", "secret", SECRET, "-o", &template]).await?.success()?.out;
    let entries: Vec<&str> = found.split(',').collect();
    let [certificate, key, trusted] = entries[..] else { anyhow::bail!("the Secret is no CA") };
    Ok(Ca { certificate: certificate.to_owned(), key: key.to_owned(), trusted: trusted.to_owned() })
}
