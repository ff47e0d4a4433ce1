//! `cargo xtask soak`: builds what it needs and runs the program `soak` of the tests, which says what it does.

use crate::artifacts;
use crate::setup;
use crate::shell;
use crate::workspace::Workspace;

pub fn run(workspace: &Workspace, minutes: f64, kill_envoy: bool) -> anyhow::Result<()> {
    setup::tools(workspace)?;
    let wasm = artifacts::filter(workspace)?;
    artifacts::debug(workspace, &wasm)?;
    let mut soak = shell::cargo(workspace);
    soak.args(["run", "--quiet", "--package", "tollgate-tests", "--bin", "soak", "--"]);
    soak.args(["--minutes", &minutes.to_string()]).args(kill_envoy.then_some("--kill-envoy"));
    let status = soak.status()?;
    anyhow::ensure!(
        status.success(),
        "the books are not right, or it could not be found out; logs: target/logs/e2e/soak"
    );
    Ok(())
}
