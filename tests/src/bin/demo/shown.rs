//! What both demos have: a lab that people watch. Commands are printed as one would type them, with what they say.

use std::time::Instant;

use anyhow::Context;
use tollgate_tests::cli::Output;
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::install::NAMESPACE;
use tollgate_tests::tools::Tools;

pub struct Shown {
    pub lab: Lab,
    pub tools: Tools,
    started: Instant,
}

// === impl Shown ===

impl Shown {
    /// A Kubernetes with the Gateway API.
    pub async fn open() -> anyhow::Result<Self> {
        let tools = Tools::find()?;
        let started = Instant::now();
        let lab = Lab::up(&tools, "demo").await?;
        lab.install_gateway_api().await?;
        let shown = Self { lab, tools, started };
        shown.reached("a Kubernetes with the Gateway API");
        Ok(shown)
    }

    /// Says what there is now, and after how long.
    pub fn reached(&self, what: &str) {
        println!("{:.1} s: {what}", self.started.elapsed().as_secs_f64());
    }

    /// Applies the files of a folder of examples.
    pub async fn apply(&self, folder: &str) -> anyhow::Result<()> {
        let files = self.tools.tests.with_file_name("examples").join(folder);
        let applied =
            self.lab.kubectl(&["apply", "-f", files.to_str().context("a path in UTF-8")?]).await?.success()?;
        said(&format!("kubectl apply -f examples/{folder}"), &applied);
        Ok(())
    }

    /// Runs kubectl and shows what it says.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.try_kubectl(arguments).await?.success().map(drop)
    }

    /// The same, whether it succeeds or fails.
    pub async fn try_kubectl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let output = self.lab.kubectl(arguments).await?;
        said(&typed("kubectl", arguments), &output);
        Ok(output)
    }

    /// Runs a command in a Pod of the control plane and shows what it says.
    pub async fn in_control_plane(&self, command: &[&str]) -> anyhow::Result<()> {
        let exec = ["-n", NAMESPACE, "exec", "deploy/tollgate", "-c", "tollgate", "--"];
        self.kubectl(&[&exec[..], command].concat()).await
    }

    /// Ends with the demo, or by Ctrl-C.
    pub async fn close(self, keep: bool, command: &str) -> anyhow::Result<()> {
        if keep {
            println!(
                "\nIt goes on running until Ctrl-C:\n  export KUBECONFIG={}\n  {command} has the logs in {}",
                self.lab.kubeconfig().display(),
                self.lab.home().display()
            );
            tokio::signal::ctrl_c().await?;
        }
        println!("\nThe cluster ends.");
        Ok(())
    }
}

/// Shows a command and what it has said.
pub fn said(command: &str, output: &Output) {
    println!("\n$ {command}\n{}", output.all().trim_end());
}

/// A command as one would type it.
pub fn typed(program: &str, arguments: &[impl AsRef<str>]) -> String {
    let mut command = program.to_owned();
    for argument in arguments {
        let argument = argument.as_ref();
        command.push(' ');
        if argument.contains([' ', '"', '\\', '{', '*', '[', '(']) {
            command.push_str(&format!("'{argument}'"));
        } else {
            command.push_str(argument);
        }
    }
    command
}
