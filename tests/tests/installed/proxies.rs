//! The proxies of each Gateway: made, kept as they are to be, replaced without a lost request, and gone with the Gateway.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use tollgate_tests::lab::install::{CONTROL_PLANE, NAMESPACE};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;

use crate::shop::{self, Load};

e2e! {
    a_gateway_has_proxies_that_come_and_go_with_it,
    what_others_change_is_put_right,
    what_was_there_before_is_left_alone,
    replacing_everything_loses_no_request,
    no_pod_gets_the_certificate_of_another_gateway,
}

/// Kinds of which a Gateway's proxies are made.
const KINDS: [&str; 6] =
    ["serviceaccount", "configmap", "service", "deployment", "poddisruptionbudget", "networkpolicy"];

async fn a_gateway_has_proxies_that_come_and_go_with_it(lab: Arc<Lab>) -> anyhow::Result<()> {
    shop::web(&lab, "comes", "").await?;
    let of_gateway = ["-l", "gateway.networking.k8s.io/gateway-name=shop", "-o", "name"];
    for kind in KINDS {
        poll::until("the Gateway has one", || async {
            let found = lab.kubectl(&[&["-n", "comes", "get", kind][..], &of_gateway].concat()).await?.success()?;
            anyhow::ensure!(found.out.trim().ends_with("/shop-tollgate"), "{kind}: {found:?}");
            Ok(())
        })
        .await?;
    }
    // More of them, by parameters.
    lab.apply(PARAMETERS).await?;
    let patch = r#"{"spec":{"infrastructure":{"parametersRef":{"group":"tollgate.dev","kind":"ProxyParameters","name":"more"}}}}"#;
    lab.kubectl(&["-n", "comes", "patch", "gateway", "shop", "--type", "merge", "-p", patch]).await?.success()?;
    poll::within(PATIENCE, "there are two Pods", || async {
        let ready = lab.field(&["-n", "comes", "deployment", "shop-tollgate"], "{.status.readyReplicas}").await?;
        anyhow::ensure!(ready == "2", "{ready} are ready");
        Ok(())
    })
    .await?;
    // Without their parameters the Gateway is not accepted, and says why. Its proxies stay.
    lab.kubectl(&["-n", "comes", "delete", "proxyparameters", "more"]).await?.success()?;
    let wait = ["-n", "comes", "wait", "gateway/shop", WAIT];
    let reason = "--for=jsonpath={.status.conditions[?(@.type=='Accepted')].reason}=InvalidParameters";
    lab.kubectl(&[&wait[..], &[reason]].concat()).await?.success()?;

    lab.kubectl(&["-n", "comes", "delete", "gateway", "shop", "--wait=true"]).await?.success()?;
    poll::within(PATIENCE, "nothing of it is left", || async {
        for kind in KINDS {
            let found = lab.kubectl(&[&["-n", "comes", "get", kind][..], &of_gateway].concat()).await?.success()?;
            anyhow::ensure!(found.out.is_empty(), "{}", found.out);
        }
        Ok(())
    })
    .await
}

const PARAMETERS: &str = "
apiVersion: tollgate.dev/v1alpha1
kind: ProxyParameters
metadata: {name: more, namespace: comes}
spec: {replicas: 2}
";

async fn what_others_change_is_put_right(lab: Arc<Lab>) -> anyhow::Result<()> {
    let address = shop::web(&lab, "drifts", "").await?;
    let other = r#"{"spec":{"ports":[{"name":"port-80","port":80,"protocol":"TCP","targetPort":9}]}}"#;
    lab.kubectl(&["-n", "drifts", "patch", "service", "shop-tollgate", "-p", other]).await?.success()?;
    lab.kubectl(&["-n", "drifts", "delete", "configmap", "shop-tollgate"]).await?.success()?;
    poll::until("the Service leads to the proxies again", || async {
        let port = lab.field(&["-n", "drifts", "service", "shop-tollgate"], "{.spec.ports[0].targetPort}").await?;
        anyhow::ensure!(port == "80", "{port}");
        lab.field(&["-n", "drifts", "configmap", "shop-tollgate"], "{.data}").await?;
        Ok(())
    })
    .await?;
    poll::until("it answers", || async {
        let answer = shop::get(&lab, &format!("http://{address}/")).await?;
        anyhow::ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .await
}

async fn what_was_there_before_is_left_alone(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.apply(TAKEN).await?;
    poll::until("the Gateway's author is told", || async {
        let events = ["-n", "taken", "get", "events", "-o", "jsonpath={.items[*].message}"];
        let told = lab.kubectl(&events).await?.success()?;
        anyhow::ensure!(told.out.contains("Service taken/shop-tollgate is somebody else's"), "{told:?}");
        Ok(())
    })
    .await?;
    let selector = lab.field(&["-n", "taken", "service", "shop-tollgate"], "{.spec.selector}").await?;
    anyhow::ensure!(selector == r#"{"app":"mine"}"#, "{selector}");
    // Once it is gone, the Gateway gets its own.
    lab.kubectl(&["-n", "taken", "delete", "service", "shop-tollgate"]).await?.success()?;
    shop::programmed(&lab, "taken", "shop").await
}

const TAKEN: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: taken}
---
apiVersion: v1
kind: Service
metadata: {name: shop-tollgate, namespace: taken}
spec: {selector: {app: mine}, ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shop, namespace: taken}
spec: {gatewayClassName: tollgate, listeners: [{name: http, port: 80, protocol: HTTP}]}
";

/// Proxies, backends and the control plane, one after the other, under load.
async fn replacing_everything_loses_no_request(lab: Arc<Lab>) -> anyhow::Result<()> {
    let address = shop::web(&lab, "rolls", "").await?;
    let load = Load::start(&lab, &format!("http://{address}/"), 200, &[])?;
    let started = Instant::now();
    for (namespace, deployment) in [("rolls", "shop-tollgate"), (NAMESPACE, "tollgate"), ("rolls", "web")] {
        let deployment = format!("deployment/{deployment}");
        lab.kubectl(&["-n", namespace, "rollout", "restart", &deployment]).await?.success()?;
        lab.kubectl(&["-n", namespace, "rollout", "status", &deployment, WAIT]).await?.success()?;
    }
    // Killed, not asked to end.
    let pod = ["-n", NAMESPACE, "delete", "pod", "-l", CONTROL_PLANE, "--grace-period=0", "--force"];
    lab.kubectl(&pod).await?.success()?;
    lab.kubectl(&["-n", NAMESPACE, "rollout", "status", "deployment/tollgate", WAIT]).await?.success()?;
    let patch =
        r#"[{"op": "add", "path": "/spec/listeners/-", "value": {"name": "more", "port": 8080, "protocol": "HTTP"}}]"#;
    lab.kubectl(&["-n", "rolls", "patch", "gateway", "shop", "--type", "json", "-p", patch]).await?.success()?;
    poll::within(PATIENCE, "the new listener answers", || async {
        let answer = shop::get(&lab, &format!("http://{address}:8080/")).await?;
        anyhow::ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .await?;
    let answered = load.stop()?;
    println!(
        "    {} requests in {:.0} s, {} wrong",
        answered.requests,
        started.elapsed().as_secs_f64(),
        answered.wrong.len()
    );
    answered.all_right()
}

/// A Pod with the service account of one Gateway asks for a certificate: it gets that Gateway's. One with another account,
/// or with a token for somebody else, gets none.
async fn no_pod_gets_the_certificate_of_another_gateway(lab: Arc<Lab>) -> anyhow::Result<()> {
    shop::web(&lab, "certified", "").await?;
    let request = lab.home().join("request.pem");
    let request = request.to_str().context("a path in UTF-8")?;
    let key = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let subject = [
        "-keyout",
        "/dev/null",
        "-subj",
        "/CN=x",
        "-addext",
        "subjectAltName=URI:spiffe://tollgate/gateway",
        "-out",
        request,
    ];
    lab.exec(&[&key[..], &subject].concat()).await?.success()?;
    let service = lab.field(&["-n", NAMESPACE, "service", "tollgate"], "{.spec.clusterIP}").await?;
    let url = format!("https://{service}:18001/v1/certificate");
    let ask = async |token: &str| {
        let (token, body) = (format!("authorization: Bearer {token}"), format!("@{request}"));
        shop::ask(&lab, &["-k", &url, "-H", &token, "--data-binary", &body]).await
    };
    let token = async |account: &str, audience: &str| {
        let arguments = ["-n", "certified", "create", "token", account, "--audience", audience];
        anyhow::Ok(lab.kubectl(&arguments).await?.success()?.out.trim().to_owned())
    };
    let own = ask(&token("shop-tollgate", "tollgate").await?).await?;
    anyhow::ensure!(own.status == 200, "{own:?}");
    let names = openssl(&lab, &own.body).await?;
    anyhow::ensure!(names.contains("URI:spiffe://tollgate/gateway/certified/shop"), "{names}");
    for (account, audience, status) in
        [("default", "tollgate", 403), ("shop-tollgate", "https://kubernetes.default.svc.cluster.local", 401)]
    {
        let refused = ask(&token(account, audience).await?).await?;
        anyhow::ensure!(refused.status == status && !refused.body.contains("BEGIN"), "{account}: {refused:?}");
    }
    let refused = ask("nonsense").await?;
    anyhow::ensure!(refused.status == 401, "{refused:?}");
    Ok(())
}

/// The names in a certificate.
async fn openssl(lab: &Lab, certificate: &str) -> anyhow::Result<String> {
    let path = lab.home().join("certificate.pem");
    let path = path.to_str().context("a path in UTF-8")?;
    std::fs::write(path, certificate)?;
    let shown = lab.exec(&["openssl", "x509", "-in", path, "-noout", "-ext", "subjectAltName"]).await?.success()?;
    Ok(shown.out)
}
