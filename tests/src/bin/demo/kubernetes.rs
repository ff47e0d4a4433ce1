//! The Gateway's way: the official OpenAI SDK, Envoy with the filter, and two model servers as Pods.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tollgate_tests::poll;

use crate::shown::Shown;

/// A model is read, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(180);
const KINDS: &str = "gateways,httproutes,modelpools,modelbackends,consumers,tokenpolicies";

struct Demo {
    shown: Shown,
    url: String,
    /// In the order of [`CONSUMERS`].
    keys: Vec<String>,
}

const CONSUMERS: [&str; 2] = ["research-app", "trial-app"];

pub async fn show(keep: bool) -> anyhow::Result<()> {
    println!(
        "The whole way in Kubernetes: the official OpenAI SDK -> Envoy with filter.wasm -> two real model servers\n\
         (llama.cpp with SmolLM2-135M) as Pods. A cluster of this machine's own, which ends with the demo.\n"
    );
    let shown = Shown::open().await?;
    let lab = &shown.lab;
    lab.install_tollgate().await?;
    shown.reached("helm install tollgate manifests/chart");
    shown.apply("kubernetes").await?;
    let mut keys = Vec::new();
    for consumer in CONSUMERS {
        println!("\n$ tollgate key new --consumer {consumer} --apply    (the Consumer gets its hash)");
        keys.push(lab.new_key("default", consumer)?);
    }
    for deployment in ["deployment/runner-a", "deployment/runner-b"] {
        lab.kubectl(&["rollout", "status", deployment, "--timeout=180s"]).await?.success()?;
    }
    lab.kubectl(&["wait", "--for=condition=Programmed", "--timeout=90s", "gateway/llm"]).await?.success()?;
    let address = lab.field(&["gateway", "llm"], "{.status.addresses[0].value}").await?;
    println!();
    shown.reached("two models are read, and the Gateway is programmed");
    let demo = Demo { shown, url: format!("http://{address}"), keys };
    demo.shown.kubectl(&["get", KINDS]).await?;
    demo.shown.kubectl(&["get", "pods,services,poddisruptionbudgets"]).await?;
    demo.ready().await?;

    demo.call("tour")?;
    println!("\n5. runner-a is taken away; the same request goes to runner-b");
    demo.shown.kubectl(&["scale", "deployment", "runner-a", "--replicas=0"]).await?;
    let gone = ["wait", "--for=delete", "pod", "-l", "app=runner-a", "--timeout=60s"];
    demo.shown.lab.kubectl(&gone).await?.success()?;
    demo.call("failover")?;
    // What was used is in the books within two seconds of a request's end.
    tokio::time::sleep(Duration::from_secs(2)).await;
    demo.shown.in_control_plane(&["tollgate", "usage"]).await?;
    demo.shown.close(keep, "cargo xtask demo --kubernetes").await
}

// === impl Demo ===

impl Demo {
    /// Endpoints reach the proxy a moment after the Pods are ready.
    async fn ready(&self) -> anyhow::Result<()> {
        let url = format!("{}/v1/models", self.url);
        let key = format!("authorization: Bearer {}", self.keys.first().context("no key")?);
        poll::within(PATIENCE, "the Gateway answers", || async {
            let curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &key, &url];
            let output = self.shown.lab.exec(&curl).await?.success()?;
            anyhow::ensure!(output.out == "200", "{output:?}");
            Ok(())
        })
        .await
    }

    /// Runs a part of tests/python/demo.py in the cluster. It prints its own output.
    fn call(&self, part: &str) -> anyhow::Result<()> {
        let script = self.shown.tools.scripts.join("demo.py");
        let (python, script) = (self.shown.tools.python.to_str().context("UTF-8")?, script.to_str().context("UTF-8")?);
        let mut command = self.shown.lab.inside(&[python, script, &self.url, part]);
        for (name, key) in ["RESEARCH_KEY", "TRIAL_KEY"].into_iter().zip(&self.keys) {
            command.env(name, key);
        }
        let status = command.env("NO_PROXY", "*").stdin(Stdio::null()).status()?;
        anyhow::ensure!(status.success(), "the demo's calls failed; logs: {}", self.shown.lab.home().display());
        Ok(())
    }
}
