//! `cargo xtask conformance`: starts a lab, installs Tollgate into it and runs a conformance suite there. The first argument
//! says which, the second is the file of the report, and the others are flags of the suite.

use std::fs::File;
use std::io::Write;
use std::process::{ExitCode, Stdio};

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::install::GATEWAY_CLASS;
use tollgate_tests::tools::Tools;

/// What a suite says of the implementation in its report.
const FLAGS: [&str; 7] = [
    "-organization=tollgate",
    "-project=tollgate",
    "-url=https://tollgate.dev",
    "-contact=https://tollgate.dev",
    concat!("-version=v", env!("CARGO_PKG_VERSION")),
    "-test.v",
    "-test.timeout=60m",
];

/// What the Gateway API's suite is to test, unless a flag says otherwise.
const OF_GATEWAY: [&str; 3] = [
    "-conformance-profiles=GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS",
    // Of the lab's balancer (tests/lab/README.md), and of nobody.
    "-usable-address=10.98.223.7",
    "-unusable-address=203.0.113.7",
];

/// The suite of the Inference Extension is made for an older patch of the Gateway API than the lab has.
const OF_INFERENCE: [&str; 1] = ["-allow-crds-mismatch"];

/// How lines begin that say why the suite ended before its first test.
const REASONS: [&str; 3] = ["Error:", "Messages:", "panic:"];

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
    let (suite, of_suite): (&str, &[&str]) = match arguments.next().as_deref() {
        Some("gateway") => ("conformance.test", &OF_GATEWAY),
        Some("inference") => ("inference.test", &OF_INFERENCE),
        _ => anyhow::bail!("the first argument is gateway or inference"),
    };
    let report = arguments.next().context("the second argument is the file of the report")?;
    let flags: Vec<String> = arguments.collect();
    let tools = Tools::find()?;
    println!("==> starting a lab");
    let lab = Lab::up(&tools, "conformance").await?;
    println!("==> installing the Gateway API and Tollgate");
    lab.install_gateway_api().await?;
    if suite == "inference.test" {
        lab.install_inference_extension().await?;
    }
    lab.install_tollgate().await?;

    let log = lab.home().join("suite.log");
    println!("==> running the conformance suite; all that it says: {}", log.display());
    let suite = tools.lab_program(suite);
    let mut command = lab.inside(&[suite.to_str().context("a path in UTF-8")?]);
    command.args([format!("-gateway-class={GATEWAY_CLASS}"), format!("-report-output={report}")]);
    command.args(FLAGS).args(of_suite).args(flags);
    let mut log = File::create(log)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.try_clone()?);
    let mut child = tokio::process::Command::from(command).spawn()?;
    let mut begun = false;
    let mut lines = BufReader::new(child.stdout.take().context("the suite has no output")?).lines();
    while let Some(line) = lines.next_line().await? {
        writeln!(log, "{line}")?;
        if let Some(result) = result(&line) {
            println!("    {result}");
            begun = true;
        } else if !begun && REASONS.iter().any(|reason| line.trim_start().starts_with(reason)) {
            println!("    {}", line.trim());
        }
    }
    Ok(child.wait().await?.success())
}

/// The result of one of the suite's tests: not of a part of it, which stands further to the right.
fn result(line: &str) -> Option<&str> {
    line.strip_prefix("    --- ")?.split_once(": TestConformance/").map(|_| line.trim_start_matches([' ', '-']))
}
