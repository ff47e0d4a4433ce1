//! In a mesh: callers that their certificates show, runners whose sidecars have the filter, and a Gateway beside.

use anyhow::Context;
use serde_json::json;
use tollgate_tests::lab::PATIENCE;
use tollgate_tests::lab::books;
use tollgate_tests::lab::caller::Caller;
use tollgate_tests::poll;

use crate::shown::{Shown, said, typed};

const PODS: [&str; 4] = ["web", "trial", "stranger", "outsider"];
const RUNNERS: [&str; 2] = ["runner-a", "runner-b"];
/// Where the Service of models is, and the Gateway.
const MODELS: &str = "http://llm.models";
const GATEWAY: &str = "http://llm-tollgate.models:8443";
const QUESTION: &str = "Name a use of a lighthouse.";
/// What is shown of an answer's body.
const WIDTH: usize = 240;
/// More than the budget of a consumer has.
const ENOUGH: usize = 12;

pub async fn show(keep: bool) -> anyhow::Result<()> {
    println!(
        "The whole way in a mesh: Pods that ask -> their sidecars, which choose the runner -> the runners' sidecars with\n\
         filter.wasm -> two real model servers (llama.cpp with SmolLM2-135M). istiod, its agents and istioctl are Istio's own.\n\
         A cluster of this machine's own, which ends with the demo.\n"
    );
    let shown = Shown::open().await?;
    shown.lab.install_mesh().await?;
    shown.reached("istioctl install -f istio/values.yaml, and a PeerAuthentication that is STRICT for all");
    shown.lab.install_tollgate_in_mesh().await?;
    shown.reached("helm install tollgate manifests/chart --set serviceMesh.istio=true --set serviceMesh.sidecars=true");
    shown.apply("mesh").await?;
    ready(&shown).await?;
    println!();
    shown.reached("two models are read, and all sidecars and the Gateway have their configuration");
    shown.kubectl(&["get", "peerauthentications", "-A"]).await?;
    shown.kubectl(&["get", "pods", "-n", "models"]).await?;
    shown.kubectl(&["get", "pods", "-n", "shop"]).await?;
    println!("\nTollgate keeps these for istiod:");
    shown.kubectl(&["get", "envoyfilters,httproutes", "-A", "-l", "app.kubernetes.io/managed-by=tollgate"]).await?;

    let demo = Demo { shown };
    title("1. web asks without a key. The certificate of its sidecar shows who it is");
    demo.ask("web", MODELS, "smol-a", "200").await?;
    title("2. stranger is no Consumer's identity");
    demo.ask("stranger", MODELS, "smol-a", "401").await?;
    title("3. outsider has no sidecar, so it speaks plain text, which the mesh refuses");
    demo.plain_text().await?;
    title("4. The model in the body says which runner is asked: smol-b is the other one, and smol-c is none");
    demo.ask("web", MODELS, "smol-b", "200").await?;
    demo.ask("web", MODELS, "smol-c", "404").await?;
    title("5. trial asks until its 300 tokens are used up");
    demo.until_refused().await?;
    title(
        "6. By a Gateway in the mesh, to the same runner. Gateway and sidecar have one budget, and it is charged once",
    );
    demo.ask("web", GATEWAY, "smol-a", "200").await?;
    demo.charged_once().await?;
    title("7. What istiod has carried, and whether all is well");
    demo.looked_at().await?;
    title("8. Who used what: by the runners' sidecars, and by the Gateway");
    demo.shown.in_control_plane(&["tollgate", "usage"]).await?;
    demo.shown.close(keep, "cargo xtask demo --mesh").await
}

/// Waits until what is asked will be answered for its own sake, and not because something is still to come. None of it costs
/// anything.
async fn ready(shown: &Shown) -> anyhow::Result<()> {
    let lab = &shown.lab;
    for runner in RUNNERS {
        let deployment = format!("deployment/{runner}");
        lab.kubectl(&["-n", "models", "rollout", "status", &deployment, "--timeout=180s"]).await?.success()?;
    }
    for pod in PODS {
        Caller::ready(lab, "shop", pod).await?;
    }
    let programmed = ["-n", "models", "wait", "--for=condition=Programmed", "--timeout=120s", "gateway/llm"];
    lab.kubectl(&programmed).await?.success()?;
    let stranger = Caller::ready(lab, "shop", "stranger").await?;
    for runner in RUNNERS {
        stranger.answered(&format!("{runner}.models"), 401, "the runner's sidecar has the filter").await?;
    }
    for pod in ["web", "trial", "stranger"] {
        let caller = Caller::ready(lab, "shop", pod).await?;
        let listed = || async { caller.ask(&[&format!("{MODELS}/v1/models")]).await?.expect(200) };
        poll::within(PATIENCE, "the caller's sidecar has the filter", listed).await?;
    }
    let web = Caller::ready(lab, "shop", "web").await?;
    let listed = || async { web.ask(&[&format!("{GATEWAY}/v1/models")]).await?.expect(200) };
    poll::within(PATIENCE, "the Gateway answers", listed).await?;
    Ok(())
}

/// What kubectl is told so that a Pod asks.
fn question(pod: &str, at: &str, model: &str) -> Vec<String> {
    let url = format!("{at}/v1/chat/completions");
    let body = json!({"model": model, "max_tokens": 24, "messages": [{"role": "user", "content": QUESTION}]});
    let curl = ["curl", "-s", "-w", r"\n%{http_code}\n", &url, "--json", &body.to_string()];
    [&["-n", "shop", "exec", pod, "--"], &curl[..]].concat().into_iter().map(str::to_owned).collect()
}

fn title(text: &str) {
    println!("\n{text}");
}

struct Demo {
    shown: Shown,
}

// === impl Demo ===

impl Demo {
    /// A Pod asks a model there, and is answered with this status.
    async fn ask(&self, pod: &str, at: &str, model: &str, status: &str) -> anyhow::Result<()> {
        let question = question(pod, at, model);
        println!("\n$ {}", typed("kubectl", &question));
        let found = self.answer(&question).await?;
        anyhow::ensure!(found == status, "the answer is {found} and not {status}");
        Ok(())
    }

    /// Asks and shows the answer, as far as it fits into two lines. Returns the status.
    async fn answer(&self, question: &[String]) -> anyhow::Result<String> {
        let question: Vec<&str> = question.iter().map(String::as_str).collect();
        let output = self.shown.lab.kubectl(&question).await?.success()?;
        let (body, status) = output.out.trim_end().rsplit_once('\n').context("no status")?;
        let start: String = body.chars().take(WIDTH).collect();
        println!("{start}{}\n{status}", if start.len() < body.len() { "..." } else { "" });
        Ok(status.to_owned())
    }

    async fn plain_text(&self) -> anyhow::Result<()> {
        let curl = ["-n", "shop", "exec", "outsider", "--", "curl", "-sS", "http://runner-a.models/health"];
        let output = self.shown.try_kubectl(&curl).await?;
        anyhow::ensure!(output.code != Some(0) && output.out.is_empty(), "plain text is taken");
        Ok(())
    }

    async fn until_refused(&self) -> anyhow::Result<()> {
        let question = question("trial", MODELS, "smol-a");
        println!("\n$ {}    (again and again)", typed("kubectl", &question));
        for _ in 0..ENOUGH {
            match self.answer(&question).await?.as_str() {
                "200" => {}
                "429" => return Ok(()),
                other => anyhow::bail!("the answer is {other}"),
            }
        }
        anyhow::bail!("nothing ends the budget")
    }

    /// What web has used by the rows is what was taken from its budget.
    async fn charged_once(&self) -> anyhow::Result<()> {
        let used = books::tokens(&books::rows(&self.shown.lab, "models/web", 3).await?);
        poll::until("the budget is settled", || async {
            let spent = books::spent(&self.shown.lab, "models/web").await?;
            anyhow::ensure!(spent == [("models/daily".to_owned(), used)], "{used} were used: {spent:?}");
            Ok(())
        })
        .await?;
        println!("\nThe three requests of web have used {used} tokens, and {used} tokens of its budget are spent.");
        Ok(())
    }

    async fn looked_at(&self) -> anyhow::Result<()> {
        let pod = self.shown.lab.pod("models", "app=runner-a").await?;
        let ecds = ["proxy-config", "ecds", &pod, "-n", "models"];
        let carried = self.shown.lab.istioctl(&ecds).await?.success()?;
        said(&typed("istioctl", &ecds), &carried);
        let checked = self.shown.lab.tollgate(&["mesh", "check"])?;
        said("tollgate mesh check", &checked);
        checked.success().map(drop).context("something is wrong in the mesh")
    }
}
