//! `tollgate translate -f DIR`: every resource that a folder means, secrets redacted.

use std::path::PathBuf;

use super::validate::{outcome, read};
use super::{Format, Outcome};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate translate -f ./conf
  tollgate translate -f ./conf --gateway default/llm -o json")]
pub struct Args {
    /// Folder with the configuration
    #[arg(short, long, value_name = "DIR")]
    file: PathBuf,
    /// Only this Gateway
    #[arg(long, value_name = "NAMESPACE/NAME")]
    gateway: Option<String>,
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Format,
}

pub fn main(args: &Args) -> anyhow::Result<Outcome> {
    let (_, findings) = read(&args.file)?;
    Ok(outcome(&findings))
}
