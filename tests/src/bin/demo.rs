//! `cargo xtask demo --kubernetes`: the whole way of a request in a Kubernetes of its own, for a person to read. Everything
//! that it prints is measured in that run.

use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use tollgate_tests::lab::Lab;
use tollgate_tests::poll;
use tollgate_tests::tools::Tools;

/// A model is read, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(180);
const KINDS: &str = "gateways,httproutes,modelpools,modelbackends,consumers,tokenpolicies";

struct Demo {
    lab: Lab,
    tools: Tools,
    url: String,
    /// In the order of [`CONSUMERS`].
    keys: Vec<String>,
}

const CONSUMERS: [&str; 2] = ["research-app", "trial-app"];

#[tokio::main]
async fn main() -> ExitCode {
    let keep = std::env::args().nth(1).is_some_and(|argument| argument == "--keep");
    match demo(keep).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(keep: bool) -> anyhow::Result<()> {
    println!(
        "The whole way in Kubernetes: the official OpenAI SDK -> Envoy with filter.wasm -> two real model servers\n\
         (llama.cpp with SmolLM2-135M) as Pods. A cluster of this machine's own, which ends with the demo.\n"
    );
    let tools = Tools::find()?;
    let started = Instant::now();
    let lab = Lab::up(&tools, "demo").await?;
    lab.install_gateway_api().await?;
    println!("{:.1} s: a Kubernetes with the Gateway API", started.elapsed().as_secs_f64());
    lab.install_tollgate().await?;
    println!("{:.1} s: helm install tollgate manifests/chart", started.elapsed().as_secs_f64());
    let examples = tools.tests.with_file_name("examples").join("kubernetes");
    let applied = lab.kubectl(&["apply", "-f", examples.to_str().context("a path in UTF-8")?]).await?.success()?;
    println!("\n$ kubectl apply -f examples/kubernetes\n{}", applied.out.trim_end());
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
    println!("\n{:.1} s: two models are read, and the Gateway is programmed", started.elapsed().as_secs_f64());
    let demo = Demo { lab, tools, url: format!("http://{address}"), keys };
    demo.show(&["get", KINDS]).await?;
    demo.show(&["get", "pods,services,poddisruptionbudgets"]).await?;
    demo.ready().await?;

    demo.call("tour")?;
    println!("\n5. runner-a is taken away; the same request goes to runner-b");
    demo.show(&["scale", "deployment", "runner-a", "--replicas=0"]).await?;
    demo.lab.kubectl(&["wait", "--for=delete", "pod", "-l", "app=runner-a", "--timeout=60s"]).await?.success()?;
    demo.call("failover")?;
    // What was used is in the books within two seconds of a request's end.
    tokio::time::sleep(Duration::from_secs(2)).await;
    demo.show(&["-n", "tollgate-system", "exec", "deploy/tollgate", "--", "tollgate", "usage"]).await?;
    if keep {
        println!(
            "\nIt goes on running until Ctrl-C:\n  export KUBECONFIG={}\n  cargo xtask demo --kubernetes has the logs in {}",
            demo.lab.kubeconfig().display(),
            demo.lab.home().display()
        );
        tokio::signal::ctrl_c().await?;
    }
    println!("\nThe cluster ends.");
    Ok(())
}

// === impl Demo ===

impl Demo {
    /// Runs kubectl and shows what it says.
    async fn show(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = self.lab.kubectl(arguments).await?.success()?;
        println!("\n$ kubectl {}\n{}", arguments.join(" "), output.out.trim_end());
        Ok(())
    }

    /// Endpoints reach the proxy a moment after the Pods are ready.
    async fn ready(&self) -> anyhow::Result<()> {
        let url = format!("{}/v1/models", self.url);
        let key = format!("authorization: Bearer {}", self.keys.first().context("no key")?);
        poll::within(PATIENCE, "the Gateway answers", || async {
            let curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &key, &url];
            let output = self.lab.exec(&curl).await?.success()?;
            anyhow::ensure!(output.out == "200", "{output:?}");
            Ok(())
        })
        .await
    }

    /// Runs a part of tests/python/demo.py in the cluster. It prints its own output.
    fn call(&self, part: &str) -> anyhow::Result<()> {
        let script = self.tools.scripts.join("demo.py");
        let (python, script) = (self.tools.python.to_str().context("UTF-8")?, script.to_str().context("UTF-8")?);
        let mut command = self.lab.inside(&[python, script, &self.url, part]);
        for (name, key) in ["RESEARCH_KEY", "TRIAL_KEY"].into_iter().zip(&self.keys) {
            command.env(name, key);
        }
        let status = command.env("NO_PROXY", "*").stdin(Stdio::null()).status()?;
        anyhow::ensure!(status.success(), "the demo's calls failed; logs: {}", self.lab.home().display());
        Ok(())
    }
}
