//! A real Istio in a lab, installed by istioctl as a user installs it.
//!
//! Istio's programs are in no package registry, so a machine has them or has not: ISTIO_BIN names their folder. The images of
//! istiod and of its proxies stand for these programs (tests/lab/images.yaml), with upstream's Envoy in the place of Istio's.
//! Sidecars come by Istio's own webhook and their redirection by its own init container.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;

use super::install::{NAMESPACE, VALUES};
use super::{Lab, WAIT};
use crate::cli::Output;

/// The variable that names the folder of Istio's programs.
const FOLDER: &str = "ISTIO_BIN";

/// Workloads take nothing but the mesh's mutual TLS.
const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

/// What makes Tollgate part of the mesh, and puts its filter into sidecars.
pub const MESH_VALUES: [&str; 2] = ["serviceMesh.istio=true", "serviceMesh.sidecars=true"];

// === impl Lab ===

impl Lab {
    /// Installs Istio as istio/values.yaml asks for it, and a mesh that is STRICT everywhere.
    pub async fn install_mesh(&self) -> anyhow::Result<()> {
        let root = self.tools.tests.parent().context("tests/ lies in the root")?;
        let [asked, of_lab] = [root.join("istio/values.yaml"), self.tools.tests.join("lab/mesh/values.yaml")];
        let [asked, of_lab] = [asked.to_str().context("UTF-8")?, of_lab.to_str().context("UTF-8")?];
        let install = ["install", "--skip-confirmation", "--readiness-timeout", "300s", "-f", asked, "-f", of_lab];
        self.istioctl(&install).await?.success()?;
        self.apply(STRICT).await
    }

    /// Installs Tollgate for the mesh by its chart. The agent of its Pods has no security context, so their namespace cannot be
    /// a restricted one.
    pub async fn install_tollgate_in_mesh(&self) -> anyhow::Result<()> {
        self.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}")).await?;
        self.upgrade_tollgate_in_mesh(&[]).await
    }

    /// The same with these values besides, and without those of before.
    pub async fn upgrade_tollgate_in_mesh(&self, more: &[&str]) -> anyhow::Result<()> {
        let values = [&VALUES[..], &MESH_VALUES, more].concat();
        self.helm("upgrade", &["--install", "--wait", WAIT], &values).await
    }

    /// Runs istioctl to its end, whether it succeeds or fails.
    pub async fn istioctl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut istioctl = Command::new(programs()?.join("istioctl"));
        istioctl.args(arguments).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.home());
        let output = istioctl.stdin(Stdio::null()).kill_on_drop(true).output().await;
        Ok(output.context("istioctl does not start")?.into())
    }
}

fn programs() -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os(FOLDER);
    Ok(folder
        .with_context(|| format!("{FOLDER} names no folder of Istio's programs: `cargo xtask test --mesh`"))?
        .into())
}
