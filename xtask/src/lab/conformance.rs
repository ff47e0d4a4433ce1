//! `cargo xtask conformance`: builds what it needs and runs the program `conformance` of the tests, which says what it does.

use std::path::PathBuf;

use clap::Args;

use super::programs::{self, Suite};
use crate::artifacts;
use crate::setup;
use crate::shell;
use crate::workspace::Workspace;

#[derive(Args)]
pub struct Options {
    /// Which suite
    #[arg(long, value_enum, default_value_t = Suite::Gateway)]
    suite: Suite,
    /// Where the report goes; otherwise to target/conformance.yaml
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Flags of the suite, such as -run-test HTTPRouteWeight or -conformance-profiles GATEWAY-HTTP
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

pub fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    setup::tools(workspace)?;
    let wasm = artifacts::filter(workspace)?;
    artifacts::debug(workspace, &wasm)?;
    programs::for_conformance(workspace, options.suite)?;
    let report = match &options.report {
        Some(file) => std::path::absolute(file)?,
        None => workspace.target().join("conformance.yaml"),
    };
    let mut suite = shell::cargo(workspace);
    suite.args(["run", "--quiet", "--package", "tollgate-tests", "--bin", "conformance", "--"]);
    let _ = std::fs::remove_file(&report);
    let name = match options.suite {
        Suite::Gateway => "gateway",
        Suite::Inference => "inference",
    };
    let status = suite.arg(name).arg(&report).args(&options.flags).status()?;
    // The suite writes one also when tests fail.
    match report.exists() {
        true => println!("the report: {}", report.display()),
        false => println!("the suite has left no report"),
    }
    anyhow::ensure!(status.success(), "the suite has failed");
    Ok(())
}
