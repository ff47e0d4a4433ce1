//! `cargo xtask demo --kubernetes` and `--mesh`: builds what they need and runs the program `demo` of the tests, which says
//! what it does.

use super::programs;
use crate::artifacts;
use crate::setup;
use crate::shell;
use crate::workspace::Workspace;

/// What the Kubernetes has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    Gateway,
    /// A real Istio, and sidecars with the filter.
    Mesh,
}

pub fn run(workspace: &Workspace, with: With, keep: bool) -> anyhow::Result<()> {
    setup::tools(workspace)?;
    let wasm = artifacts::filter(workspace)?;
    artifacts::debug(workspace, &wasm)?;
    programs::for_lab(workspace)?;
    let mut demo = shell::cargo(workspace);
    demo.args(["run", "--quiet", "--package", "tollgate-tests", "--bin", "demo", "--"]);
    demo.args((with == With::Mesh).then_some("--mesh"));
    let status = demo.args(keep.then_some("--keep")).status()?;
    anyhow::ensure!(status.success(), "the demo has failed");
    Ok(())
}
