//! `cargo xtask conformance`: starts a lab, installs Tollgate into it and runs the Gateway API's conformance suite there.
//! The first argument is the file of the report; the others are flags of the suite.

use std::process::ExitCode;

use anyhow::Context;
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::install::GATEWAY_CLASS;
use tollgate_tests::tools::Tools;

/// What the suite says of the implementation in its report.
const ABOUT: [&str; 8] = [
    "-organization=tollgate",
    "-project=tollgate",
    "-url=https://tollgate.dev",
    "-contact=https://tollgate.dev",
    concat!("-version=v", env!("CARGO_PKG_VERSION")),
    "-conformance-profiles=GATEWAY-HTTP",
    "-test.v",
    "-test.timeout=60m",
];

#[tokio::main]
async fn main() -> ExitCode {
    match conformance().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn conformance() -> anyhow::Result<bool> {
    let mut arguments = std::env::args().skip(1);
    let report = arguments.next().context("the first argument is the file of the report")?;
    let flags: Vec<String> = arguments.collect();
    let tools = Tools::find()?;
    println!("==> starting a lab");
    let lab = Lab::up(&tools, "conformance").await?;
    println!("==> installing the Gateway API and Tollgate");
    lab.install_gateway_api().await?;
    lab.install_tollgate().await?;
    println!("==> running the conformance suite");
    let suite = tools.lab_program("conformance.test");
    let mut command = lab.inside(&[suite.to_str().context("a path in UTF-8")?]);
    command.args([format!("-gateway-class={GATEWAY_CLASS}"), format!("-report-output={report}")]);
    let status = tokio::process::Command::from(command).args(ABOUT).args(flags).status().await?;
    Ok(status.success())
}
