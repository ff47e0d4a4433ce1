//! `cargo xtask demo --kubernetes`: builds what it needs and runs the program `demo` of the tests, which says what it does.

use super::programs;
use crate::artifacts;
use crate::setup;
use crate::shell;
use crate::workspace::Workspace;

pub fn run(workspace: &Workspace, keep: bool) -> anyhow::Result<()> {
    setup::tools(workspace)?;
    let wasm = artifacts::filter(workspace)?;
    artifacts::debug(workspace, &wasm)?;
    programs::for_tests(workspace)?;
    let mut demo = shell::cargo(workspace);
    demo.args(["run", "--quiet", "--package", "tollgate-tests", "--bin", "demo", "--"]);
    let status = demo.args(keep.then_some("--keep")).status()?;
    anyhow::ensure!(status.success(), "the demo has failed");
    Ok(())
}
