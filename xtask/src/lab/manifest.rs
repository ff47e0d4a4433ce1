//! manifests/tollgate.yaml: what the chart makes without any value, for those who use kubectl alone.

use std::path::PathBuf;

use crate::shell;
use crate::workspace::Workspace;

/// The oldest Kubernetes that the chart is for.
pub const KUBERNETES: &str = "1.30";

const HEAD: &str = "# Generated from manifests/chart by `cargo xtask gen`. The definitions are in manifests/crds.
---
apiVersion: v1
kind: Namespace
metadata:
  name: tollgate-system
  labels: {pod-security.kubernetes.io/enforce: restricted}
";

/// Writes it anew.
pub fn write(workspace: &Workspace) -> anyhow::Result<()> {
    super::programs::for_lab(workspace)?;
    Ok(std::fs::write(path(workspace), render(workspace)?)?)
}

/// Checks that it is what the chart makes.
pub fn check(workspace: &Workspace) -> anyhow::Result<()> {
    println!("==> manifests/tollgate.yaml");
    let found = std::fs::read_to_string(path(workspace))?;
    anyhow::ensure!(found == render(workspace)?, "it is behind the chart; `cargo xtask gen` writes it anew");
    println!("    ok");
    Ok(())
}

fn path(workspace: &Workspace) -> PathBuf {
    workspace.root().join("manifests/tollgate.yaml")
}

fn render(workspace: &Workspace) -> anyhow::Result<String> {
    let mut helm = std::process::Command::new(workspace.lab().join("helm"));
    helm.args(["template", "tollgate", "--namespace", "tollgate-system", "--kube-version", KUBERNETES]);
    helm.args(["--skip-tests", "--set", "crds.install=false"]).arg(workspace.root().join("manifests/chart"));
    Ok(format!("{HEAD}{}", shell::read(&mut helm)?))
}
