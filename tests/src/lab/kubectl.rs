//! kubectl, of the version that tests/requirements.txt pins, with the administrator's kubeconfig.

use std::process::Stdio;

use anyhow::Context;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Lab;
use crate::cli::{self, Output};
use crate::poll;

// === impl Lab ===

impl Lab {
    /// Runs kubectl to its end, whether it succeeds or fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let output = self.kubectl_command(arguments).stdin(Stdio::null()).output().await;
        Ok(output.context("kubectl does not start")?.into())
    }

    /// kubectl, still to be started. It is killed when its process is dropped.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.tools.kubectl);
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).kill_on_drop(true);
        command
    }

    /// Applies these objects.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        self.kubectl_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], yaml).await?.success()?;
        Ok(())
    }

    /// Runs kubectl with this as its input.
    pub async fn kubectl_with(&self, args: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut command = self.kubectl_command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("kubectl does not start")?;
        let mut stdin = child.stdin.take().context("kubectl has no input")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        Ok(child.wait_with_output().await?.into())
    }

    /// Makes a namespace in which Pods can be made.
    pub async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        self.kubectl(&["create", "namespace", name]).await?.success()?;
        self.account(name).await
    }

    /// Waits until a namespace has its service account, without which no Pod is made in it.
    pub async fn account(&self, namespace: &str) -> anyhow::Result<()> {
        poll::until("the namespace has its service account", || async {
            self.field(&["-n", namespace, "serviceaccount", "default"], "{.metadata.uid}").await
        })
        .await
        .map(drop)
    }

    /// A new key of a Consumer. The cluster gets its hash alone.
    pub fn new_key(&self, namespace: &str, consumer: &str) -> anyhow::Result<String> {
        let new = ["key", "new", "--consumer", consumer, "--namespace", namespace, "--apply"];
        Ok(self.tollgate(&new)?.success()?.out.trim().to_owned())
    }

    /// Runs a command of `tollgate` that looks at a cluster at this one, to its end.
    pub fn tollgate(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let kubeconfig = self.kubeconfig();
        let kubeconfig = kubeconfig.to_str().context("a path in UTF-8")?;
        cli::tollgate(&self.tools, &[arguments, &["--kubeconfig", kubeconfig]].concat())
    }

    /// The name of a Pod with this label.
    pub async fn pod(&self, namespace: &str, label: &str) -> anyhow::Result<String> {
        self.field(&["-n", namespace, "pods", "-l", label], "{.items[0].metadata.name}").await
    }

    /// What this JSONPath gives of an object; an error while it gives nothing.
    pub async fn field(&self, object: &[&str], path: &str) -> anyhow::Result<String> {
        let output = self.kubectl(&[&["get", "-o", &format!("jsonpath={path}")], object].concat()).await?.success()?;
        anyhow::ensure!(!output.out.is_empty(), "{object:?} has no {path}");
        Ok(output.out)
    }
}
