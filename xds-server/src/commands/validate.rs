//! `tollgate validate -f DIR`: what is wrong with a folder, without serving it.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use tollgate_core::placement::Placement;
use tollgate_core::status::{Finding, Severity};
use tollgate_core::translate::{Translation, translate};

use super::placement::Placements;
use super::{Outcome, print};
use crate::watch::folder::Folder;

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
    let (_, findings) = read(&args.file, args.placement.get())?;
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

/// Reads a folder and translates it as far as the IR. Returns everything that is wrong on the way as well.
pub(super) fn read(path: &Path, placement: Placement) -> anyhow::Result<(Translation, Vec<Finding>)> {
    let mut folder = Folder::new(path);
    let reading = folder.read()?;
    let mut translation = translate(folder.objects(), placement);
    let mut findings = reading.findings;
    findings.append(&mut translation.findings);
    Ok((translation, findings))
}

pub(super) fn outcome(findings: &[Finding]) -> Outcome {
    if findings.iter().any(|finding| finding.severity == Severity::Error) { Outcome::Findings } else { Outcome::Good }
}
