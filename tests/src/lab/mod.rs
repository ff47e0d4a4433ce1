//! A Kubernetes for tests: the programs of tests/lab, which `cargo xtask` builds. tests/lab/README.md says what it is.
//!
//! ```text
//! kubectl (kubectl.rs) -> 127.0.0.1:PORT ->  API server -> nodes, Pods, Services   \
//! exec (this file)     ----- nsenter ------> the network of the lab                 } one tree of processes
//! install.rs, istio.rs -> the Gateway API, Tollgate and Istio in it                /
//! ```

pub mod books;
pub mod caller;
pub mod cert_manager;
pub mod curl;
pub mod install;
pub mod istio;
mod kubectl;
pub mod network;
pub mod policies;
pub mod suite;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::cli::Output;
use crate::poll;
use crate::process::{self, Process};
use crate::tools::Tools;

/// Pods start, models are read, proxies come and go: all of it takes seconds. Generous, because a busy machine is no failure;
/// tests that pass never wait for it.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// The same for kubectl and helm.
pub const WAIT: &str = "--timeout=300s";

/// A lab that runs. It ends when this value is dropped, and when the thread ends that started it.
pub struct Lab {
    process: Process,
    tools: Tools,
    home: PathBuf,
    /// Of the API server.
    port: String,
}

// === impl Lab ===

impl Lab {
    /// Starts a lab, and waits until Pods can be made. Its folder has this name.
    pub async fn up(tools: &Tools, name: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(
            tools.lab_program("lab").exists(),
            "target/lab/lab is missing: build it by `cargo xtask lab up`, or everything by `cargo xtask test`"
        );
        let home = tools.target.join("logs/lab").join(name);
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        std::fs::create_dir_all(&home)?;
        let port = process::free_port()?.to_string();
        // A test that is killed drops nothing.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(tools.lab_program("lab")).args(["up", "--port", &port, "--dir"]);
        command.arg(&home).arg("--images").arg(tools.tests.join("lab/images.yaml"));
        command.arg("--audit").arg(tools.tests.with_file_name("manifests").join("audit-policy.yaml"));
        // For the paths in images.yaml.
        command.env("TARGET", &tools.target).env("TESTS", &tools.tests).env("TOLLGATE", &tools.tollgate);
        let process = Process::start(&mut command, &home.join("lab.log"))?;
        let mut lab = Self { process, tools: tools.clone(), home, port };
        lab.ready().await?;
        Ok(lab)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let (kubeconfig, logs) = (self.kubeconfig(), self.home.join("logs"));
        let process = &mut self.process;
        poll::within(PATIENCE, "the lab is ready", || {
            let found = process.ensure_running().and_then(|()| {
                anyhow::ensure!(kubeconfig.exists(), "no kubeconfig; its logs: {}", logs.display());
                Ok(())
            });
            async move { found }
        })
        .await
    }

    /// An error that says why, if all of it has ended.
    pub fn ensure_running(&self) -> anyhow::Result<()> {
        anyhow::ensure!(process::is_alive(self.process.id()), "the lab has ended: {}", self.process.log().trim());
        Ok(())
    }

    /// The administrator's.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.join("kubeconfig")
    }

    /// The folder of its state and logs.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The id of its first process. All others descend from it.
    pub fn first_process(&self) -> anyhow::Result<u32> {
        Ok(std::fs::read_to_string(self.home.join("pid"))?.trim().parse()?)
    }

    /// Runs a command inside, where Pods and Services answer and their names are known, to its end.
    pub async fn exec(&self, command: &[&str]) -> anyhow::Result<Output> {
        let output = tokio::process::Command::from(self.inside(command)).stdin(Stdio::null()).output().await;
        Ok(output.with_context(|| format!("cannot start {command:?}"))?.into())
    }

    /// A command that will run inside.
    pub fn inside(&self, command: &[&str]) -> Command {
        let mut inside = Command::new(self.tools.lab_program("lab"));
        inside.args(["exec", "--dir"]).arg(&self.home).arg("--").args(command);
        inside
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.process.end();
        // The logs stay. The rest is large, and has keys in it.
        for folder in ["etcd", "pki", "pods"] {
            let _ = std::fs::remove_dir_all(self.home.join(folder));
        }
        let _ = std::fs::remove_file(self.kubeconfig());
    }
}
