//! The lab itself is in order: each test looks at one thing that tests of Tollgate rely on. When many of those fail, these
//! say whether it is Tollgate's fault.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tollgate_tests::cli::Output;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;

use crate::objects;

e2e! {
    restricted_pods_run_as_their_spec_says,
    a_pod_that_breaks_its_namespaces_rules_is_refused,
    services_answer_by_name_and_by_balancer,
    slices_name_the_pods_of_a_service,
    a_mounted_secret_follows_its_object,
    a_pods_token_may_what_its_role_says,
    a_job_completes_and_its_log_stays,
    a_crashing_container_backs_off,
    an_unhealthy_container_is_started_again,
    an_unknown_image_is_not_pulled,
    a_missing_config_map_holds_a_pod_back,
    a_port_is_forwarded_to_a_pod,
    a_rollout_replaces_pods,
    what_is_deleted_leaves_no_network,
    the_gateway_api_is_installed,
    tollgates_images_start,
}

async fn restricted_pods_run_as_their_spec_says(lab: Arc<Lab>) -> anyhow::Result<()> {
    web(&lab, "restricted").await?;
    let inside = |command: &'static str| in_web(&lab, "restricted", command);
    anyhow::ensure!(inside("cat /shared/note").await?.out == "prepared on lab-node\n");
    anyhow::ensure!(inside("echo $(id -u) $(id -G)").await?.out == "1000 0 2000\n");
    anyhow::ensure!(inside("cat /etc/settings/word").await?.out == "first");
    let written = inside("touch /x").await?;
    anyhow::ensure!(written.code != Some(0) && written.err.contains("Read-only"), "{written:?}");
    Ok(())
}

async fn a_pod_that_breaks_its_namespaces_rules_is_refused(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.apply(
        "{apiVersion: v1, kind: Namespace, metadata: {name: rules, labels: {pod-security.kubernetes.io/enforce: restricted}}}",
    )
    .await?;
    lab.account("rules").await?;
    let answer = lab.kubectl(&["-n", "rules", "run", "root", "--image=busybox"]).await?;
    anyhow::ensure!(answer.code != Some(0) && answer.err.contains("violates PodSecurity"), "{answer:?}");
    Ok(())
}

async fn services_answer_by_name_and_by_balancer(lab: Arc<Lab>) -> anyhow::Result<()> {
    web(&lab, "services").await?;
    let path = "{.status.loadBalancer.ingress[0].ip}";
    let address =
        poll::within(PATIENCE, "the address", || lab.field(&["-n", "services", "service", "web"], path)).await?;
    for host in [address.as_str(), "web.services.svc.cluster.local"] {
        poll::within(PATIENCE, &format!("{host} spreads over both pods"), || async {
            let mut pods = BTreeSet::new();
            for _ in 0..10 {
                pods.insert(call(&lab, host).await?);
            }
            anyhow::ensure!(pods.len() == 2, "only {pods:?} answered");
            Ok(())
        })
        .await?;
    }
    poll::within(PATIENCE, "the name leads to both pods", || async {
        let answer = lab.exec(&["getent", "ahosts", "peers.services.svc.cluster.local"]).await?.success()?;
        anyhow::ensure!(answer.out.matches("STREAM").count() == 2, "{}", answer.out);
        Ok(())
    })
    .await
}

async fn slices_name_the_pods_of_a_service(lab: Arc<Lab>) -> anyhow::Result<()> {
    web(&lab, "slices").await?;
    let pods = ["-n", "slices", "pods", "-l", "app=web"];
    let pods = lab.field(&pods, "{.items[*].status.podIP}").await?;
    let slices = ["-n", "slices", "endpointslices", "-l", "kubernetes.io/service-name=web"];
    poll::within(PATIENCE, "both pods are in the slice", || async {
        let ready = lab.field(&slices, "{.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}").await?;
        anyhow::ensure!(words(&ready) == words(&pods), "{ready} of {pods}");
        Ok(())
    })
    .await
}

async fn a_mounted_secret_follows_its_object(lab: Arc<Lab>) -> anyhow::Result<()> {
    web(&lab, "secrets").await?;
    lab.apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: settings, namespace: secrets}, stringData: {word: second}}",
    )
    .await?;
    poll::within(PATIENCE, "the pod has the new secret", || async {
        let word = in_web(&lab, "secrets", "cat /etc/settings/word").await?.out;
        anyhow::ensure!(word == "second", "{word}");
        Ok(())
    })
    .await
}

async fn a_pods_token_may_what_its_role_says(lab: Arc<Lab>) -> anyhow::Result<()> {
    web(&lab, "tokens").await?;
    for (namespace, kind) in [("tokens", "PodList"), ("default", "Forbidden")] {
        let command = format!(
            "cd /var/run/secrets/kubernetes.io/serviceaccount && curl -sS --cacert ca.crt \
             -H \"Authorization: Bearer $(cat token)\" https://kubernetes.default.svc/api/v1/namespaces/{namespace}/pods"
        );
        // The API server learns of a new role a moment later.
        poll::within(PATIENCE, "the token may what its role says", || async {
            let answer = in_web(&lab, "tokens", &command).await?.success()?.out;
            anyhow::ensure!(answer.contains(kind), "{answer}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn a_job_completes_and_its_log_stays(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.apply(
        "{apiVersion: batch/v1, kind: Job, metadata: {name: once, namespace: default}, spec: {template: {spec: {
          restartPolicy: Never, containers: [{name: once, image: busybox,
          args: [-c, 'until getent hosts kubernetes.default; do sleep 1; done; id -u && echo done']}]}}}}",
    )
    .await?;
    lab.kubectl(&["wait", "--for=condition=complete", "job/once", WAIT]).await?.success()?;
    let log = lab.kubectl(&["logs", "job/once"]).await?.success()?.out;
    anyhow::ensure!(log.ends_with("done\n"), "{log}");
    Ok(())
}

async fn a_crashing_container_backs_off(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.apply(&objects::shell("crash", "exit 7", "")).await?;
    status_is(&lab, "crash", "{.state.waiting.reason}", "CrashLoopBackOff").await?;
    status_is(&lab, "crash", "{.lastState.terminated.exitCode}", "7").await
}

async fn an_unhealthy_container_is_started_again(lab: Arc<Lab>) -> anyhow::Result<()> {
    let probe = "    livenessProbe: {exec: {command: [test, -e, /tmp/well]}, periodSeconds: 1, failureThreshold: 1}\n";
    lab.apply(&objects::shell("unwell", "touch /tmp/well; sleep 3; rm /tmp/well; sleep 1000", probe)).await?;
    poll::within(PATIENCE, "it is started again", || async {
        // Once, or more often until somebody looks.
        let restarts: u32 =
            lab.field(&["pod", "unwell"], "{.status.containerStatuses[0].restartCount}").await?.parse()?;
        anyhow::ensure!(restarts > 0, "it was not");
        Ok(())
    })
    .await
}

async fn an_unknown_image_is_not_pulled(lab: Arc<Lab>) -> anyhow::Result<()> {
    let pod = objects::shell("nosuch", "true", "").replace("busybox", "example.com/nosuch:1");
    lab.apply(&pod).await?;
    status_is(&lab, "nosuch", "{.state.waiting.reason}", "ErrImagePull").await
}

async fn a_missing_config_map_holds_a_pod_back(lab: Arc<Lab>) -> anyhow::Result<()> {
    let mount = "    volumeMounts: [{name: v, mountPath: /v}]\n  volumes: [{name: v, configMap: {name: later}}]\n";
    lab.apply(&objects::shell("waits", "cat /v/k; sleep 1000", mount)).await?;
    status_is(&lab, "waits", "{.state.waiting.reason}", "ContainerCreating").await?;
    lab.kubectl(&["create", "configmap", "later", "--from-literal=k=here"]).await?.success()?;
    poll::within(PATIENCE, "the pod reads it", || async {
        let log = lab.kubectl(&["logs", "waits"]).await?;
        anyhow::ensure!(log.out == "here", "{log:?}");
        Ok(())
    })
    .await
}

async fn a_port_is_forwarded_to_a_pod(lab: Arc<Lab>) -> anyhow::Result<()> {
    web(&lab, "forward").await?;
    // It takes a port that is free, and says which.
    let mut forward =
        lab.kubectl_command(&["-n", "forward", "port-forward", "deploy/web", "--address=127.0.0.1", ":8080"]);
    let mut running = forward.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    // It ends if nobody can read what it says of each connection.
    let mut lines = BufReader::new(running.stdout.take().context("it has no output")?).lines();
    let said = lines.next_line().await?.context("it has said nothing")?;
    let port = said.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split_once(" -> "));
    let (port, _) = port.with_context(|| said.clone())?;
    poll::within(PATIENCE, "the pod answers", || async {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/")).await?.text().await?;
        anyhow::ensure!(answer.contains("\"pod\": \"web-"), "{answer}");
        Ok(())
    })
    .await
}

async fn a_rollout_replaces_pods(lab: Arc<Lab>) -> anyhow::Result<()> {
    web(&lab, "rollout").await?;
    let running = ["-n", "rollout", "pods", "-l", "app=web"];
    let before = lab.field(&running, "{.items[*].metadata.name}").await?;
    lab.kubectl(&["-n", "rollout", "rollout", "restart", "deployment/web"]).await?.success()?;
    rolled_out(&lab, "rollout").await?;
    poll::within(PATIENCE, "the old pods are gone", || async {
        let after = lab.field(&running, "{.items[*].metadata.name}").await?;
        anyhow::ensure!(words(&after).is_disjoint(&words(&before)) && words(&after).len() == 2, "{after}");
        Ok(())
    })
    .await
}

async fn what_is_deleted_leaves_no_network(lab: Arc<Lab>) -> anyhow::Result<()> {
    web(&lab, "deleted").await?;
    let networks = async || anyhow::Ok(lab.exec(&["ip", "netns"]).await?.success()?.out);
    anyhow::ensure!(networks().await?.matches("lab-deleted-").count() == 2);
    lab.kubectl(&["delete", "namespace", "deleted", "--wait=false"]).await?.success()?;
    poll::within(PATIENCE, "namespace and networks are gone", || async {
        let left = lab.kubectl(&["get", "namespace", "deleted"]).await?;
        anyhow::ensure!(left.err.contains("NotFound"), "{left:?}");
        anyhow::ensure!(!networks().await?.contains("lab-deleted-"), "a network is left");
        Ok(())
    })
    .await
}

async fn the_gateway_api_is_installed(lab: Arc<Lab>) -> anyhow::Result<()> {
    let version = ["crd", "httproutes.gateway.networking.k8s.io"];
    let version = lab.field(&version, r"{.metadata.annotations.gateway\.networking\.k8s\.io/bundle-version}").await?;
    anyhow::ensure!(version == "v1.6.3", "{version}");
    lab.apply(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm, namespace: default}
spec: {gatewayClassName: tollgate, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: default}
spec:
  parentRefs: [{name: llm}]
  rules: [{backendRefs: [{name: runner, port: 80}]}]
",
    )
    .await?;
    // Its rules are checked by the API server, so objects from a cluster keep them.
    let twice = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: twice, namespace: default}
spec:
  gatewayClassName: tollgate
  listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]
";
    let refused = lab.apply(twice).await.err().context("two listeners on one port and host were taken")?;
    anyhow::ensure!(format!("{refused:#}").contains("must be unique"), "{refused:#}");
    Ok(())
}

async fn tollgates_images_start(lab: Arc<Lab>) -> anyhow::Result<()> {
    let envoy = ["--command", "--", "/usr/local/bin/envoy", "--version"];
    for (name, image, command, says) in [
        ("control", "tollgate:test", &["--", "--version"][..], "tollgate "),
        ("proxy", "tollgate-proxy:test", &["--", "--version"], "tollgate "),
        ("envoy", "tollgate-proxy:test", &envoy, "1.40"),
    ] {
        let image = format!("--image={image}");
        lab.kubectl(&[&["run", name, &image, "--restart=Never"][..], command].concat()).await?.success()?;
        poll::within(PATIENCE, &format!("{name} says its version"), || async {
            let log = lab.kubectl(&["logs", name]).await?;
            anyhow::ensure!(log.out.contains(says), "{log:?}");
            Ok(())
        })
        .await?;
    }
    lab.kubectl(&["run", "runner", "--image=llm:test", "--port=8000", "--expose"]).await?.success()?;
    poll::within(PATIENCE, "the model answers", || async {
        let answer = lab.exec(&["curl", "-sSm30", "http://runner.default.svc.cluster.local:8000/v1/models"]).await?;
        anyhow::ensure!(answer.out.contains("\"data\""), "{answer:?}");
        Ok(())
    })
    .await
}

/// The Deployment `web`, ready, in a new namespace.
async fn web(lab: &Lab, namespace: &str) -> anyhow::Result<()> {
    lab.apply(&objects::web(namespace)).await?;
    rolled_out(lab, namespace).await
}

async fn rolled_out(lab: &Lab, namespace: &str) -> anyhow::Result<()> {
    lab.kubectl(&["-n", namespace, "rollout", "status", "deployment/web", WAIT]).await?.success()?;
    Ok(())
}

/// Runs a shell command in one of the Pods of `web`.
async fn in_web(lab: &Lab, namespace: &str, command: &str) -> anyhow::Result<Output> {
    lab.kubectl(&["-n", namespace, "exec", "deploy/web", "-c", "web", "--", "sh", "-c", command]).await
}

/// The Pod that answers at this host.
async fn call(lab: &Lab, host: &str) -> anyhow::Result<String> {
    let answer = lab.exec(&["curl", "-sSm30", &format!("http://{host}/")]).await?.success()?;
    let answer: serde_json::Value = serde_json::from_str(&answer.out)?;
    Ok(answer.get("pod").and_then(serde_json::Value::as_str).context("no pod in the answer")?.to_owned())
}

/// Waits until the status of a Pod's container says this.
async fn status_is(lab: &Lab, pod: &str, path: &str, wanted: &str) -> anyhow::Result<()> {
    let path = path.replacen('{', "{.status.containerStatuses[0]", 1);
    poll::within(PATIENCE, &format!("{pod}: {wanted}"), || async {
        let found = lab.field(&["pod", pod], &path).await?;
        anyhow::ensure!(found == wanted, "{found}");
        Ok(())
    })
    .await
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}
