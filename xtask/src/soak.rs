//! `cargo xtask soak`: builds what it needs and runs the program `soak` of the tests, which says what it does; in Kubernetes a
//! test of the installation (tests/tests/installed/mixed/), which takes some minutes by itself and as many as are asked for here.

use crate::artifacts;
use crate::lab;
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

/// The test that also runs with all others.
const TEST: &str = "mixed_load_loses_no_token_while_everything_is_disturbed";

pub fn in_kubernetes(workspace: &Workspace, minutes: f64) -> anyhow::Result<()> {
    anyhow::ensure!(minutes > 0.0, "--minutes is a number above 0");
    setup::tools(workspace)?;
    let wasm = artifacts::filter(workspace)?;
    artifacts::debug(workspace, &wasm)?;
    lab::for_lab(workspace)?;
    let mut soak = shell::cargo(workspace);
    soak.args(["test", "--quiet", "--package", "tollgate-tests", "--test", "installed", "--", TEST]);
    let status = soak.env("TOLLGATE_SOAK_MINUTES", minutes.to_string()).status()?;
    anyhow::ensure!(
        status.success(),
        "something does not hold, or it could not be found out; logs: target/logs/lab/installed/logs"
    );
    Ok(())
}
