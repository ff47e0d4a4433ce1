//! `tollgate validate -f DIR`: what is wrong with a folder or a cluster, without serving it.

use clap::ValueEnum;
use tollgate_core::status::{Finding, Severity};
use tollgate_core::translate::Translation;

use super::mesh::MeshArgs;
use super::placement::Placements;
use super::sources::Sources;
use super::{Outcome, ask, print};
use crate::pipeline;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate validate -f ./conf
  tollgate validate -f ./conf -o json | jq '.[] | .spot'
  tollgate validate --source kubernetes --namespace team-a

Exit code 1 when anything is refused; warnings alone are fine.")]
pub struct Args {
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    placement: Placements,
    #[command(flatten)]
    mesh: MeshArgs,
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
    let (_, findings) = ask::block_on(looked(&args.sources, &args.placement, &args.mesh))?;
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

/// Looks at a source once.
pub(super) async fn looked(
    sources: &Sources,
    placements: &Placements,
    mesh: &MeshArgs,
) -> anyhow::Result<(Translation, Vec<Finding>)> {
    let source = sources.get()?;
    Ok(pipeline::once(&source, mesh.setting(placements.get(&source))).await?)
}

pub(super) fn outcome(findings: &[Finding]) -> Outcome {
    if findings.iter().any(|finding| finding.severity == Severity::Error) { Outcome::Findings } else { Outcome::Good }
}
