//! `cargo xtask bench --kubernetes`: builds what it needs and runs the program `cluster-bench` of the tests, which says what
//! it does.

use super::scale::Amounts;
use crate::artifacts;
use crate::lab;
use crate::setup;
use crate::shell;
use crate::workspace::Workspace;

pub fn run(workspace: &Workspace, amounts: &Amounts) -> anyhow::Result<()> {
    setup::tools(workspace)?;
    let tollgate = artifacts::dist(workspace)?;
    lab::for_lab(workspace)?;
    let mut bench = shell::cargo(workspace);
    bench.args(["run", "--quiet", "--package", "tollgate-tests", "--bin", "cluster-bench", "--", "--sizes"]);
    bench.arg(amounts.sizes.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
    if let Some(changes) = amounts.changes {
        bench.args(["--changes", &changes.to_string()]);
    }
    let status = bench.env("TOLLGATE_BIN", tollgate).status()?;
    anyhow::ensure!(status.success(), "the benchmark has failed");
    Ok(())
}
