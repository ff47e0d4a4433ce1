//! `tollgate validate -f DIR`: what is wrong with a folder, without serving it.

use std::path::PathBuf;

use clap::ValueEnum;
use tollgate_core::status::{Finding, Severity};

use super::placement::Placements;
use super::{Outcome, print};
use crate::pipeline;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate validate -f ./conf
  tollgate validate -f ./conf -o json | jq '.[] | .spot'

Exit code 1 when anything is refused; warnings alone are fine.")]
pub struct Args {
    /// Folder with the configuration
    #[arg(short, long, value_name = "DIR")]
    file: PathBuf,
    #[command(flatten)]
    placement: Placements,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line per finding: file:line: severity: object: field: message (hint)
    Text,
    Json,
}

pub fn main(args: &Args) -> anyhow::Result<Outcome> {
    let (_, findings) = pipeline::once(&args.file, args.placement.get())?;
    match args.output {
        Output::Text => {
            for finding in &findings {
                print(&format!("{finding}\n"));
            }
            if findings.is_empty() {
                print("no findings\n");
            }
        }
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&findings)?)),
    }
    Ok(outcome(&findings))
}

pub(super) fn outcome(findings: &[Finding]) -> Outcome {
    if findings.iter().any(|finding| finding.severity == Severity::Error) { Outcome::Findings } else { Outcome::Good }
}
