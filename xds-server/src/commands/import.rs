//! `tollgate import litellm FILE`: the objects that mean what a LiteLLM proxy's config.yaml means, and what they leave out.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use tollgate_core::litellm::{Import, Imported, MAX_CONFIG, MAX_KEYS, Text};
use tollgate_core::status::Finding;

use super::validate::outcome;
use super::{Outcome, print};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From the config.yaml of a LiteLLM proxy
    Litellm(Litellm),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate import litellm config.yaml -o conf      the objects into a new folder, what they leave out on the terminal
  tollgate run -f conf                             serve them on LiteLLM's port, 4000
  tollgate import litellm config.yaml > conf.yaml  the same as one file

The keys that LiteLLM made are in its database. They go on to count, because it keeps the same hash of a key:
  curl -H \"Authorization: Bearer $LITELLM_MASTER_KEY\" \\
    'http://127.0.0.1:4000/key/list?return_full_object=true&size=100' > keys.json
  tollgate import litellm config.yaml --keys keys.json -o conf

No key is copied. A Secret names a variable of the environment: the one that LiteLLM reads, or a new one for a key that
stands in config.yaml, and then a warning says which. Of the master key there is the hash, or the variable.

Exit code 1 when something of LiteLLM's is not done here; warnings alone are fine.")]
struct Litellm {
    /// config.yaml of the LiteLLM proxy
    file: PathBuf,
    /// Export of LiteLLM's keys, in JSON: what GET /key/list?return_full_object=true answers, or rows of LiteLLM_VerificationToken
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Folder for the objects, a file for each kind; no file is replaced [default: all on standard output]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Port of the Gateway. LiteLLM has it on its command line
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// How to print what is left out, on standard error
    #[arg(long, value_enum, default_value = "text")]
    report: Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Report {
    /// A line per finding: file:line: severity: field: message (hint)
    Text,
    Json,
}

pub fn main(args: &Args) -> anyhow::Result<Outcome> {
    let Command::Litellm(args) = &args.command;
    let config = read(&args.file, MAX_CONFIG)?;
    let keys = args.keys.as_deref().map(|path| read(path, MAX_KEYS).map(|text| (path, text))).transpose()?;
    let name = args.file.display().to_string();
    let keys = keys.map(|(path, text)| (path.display().to_string(), text));
    let imported = Import {
        config: Text { name: &name, text: &config },
        keys: keys.as_ref().map(|(name, text)| Text { name, text }),
        port: args.port,
        environment: &|name| std::env::var(name).ok().filter(|value| !value.is_empty()),
    }
    .run();
    report(args.report, &imported.findings)?;
    match &args.output {
        Some(folder) => write(folder, &imported)?,
        None => {
            let texts: Vec<&str> = imported.files.iter().map(|file| file.text.as_str()).collect();
            print(&texts.join("---\n"));
        }
    }
    Ok(outcome(&imported.findings))
}

fn read(path: &Path, most: usize) -> anyhow::Result<String> {
    let size = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if usize::try_from(size).unwrap_or(usize::MAX) > most {
        anyhow::bail!("{} is larger than {} MiB", path.display(), most >> 20);
    }
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn report(report: Report, findings: &[Finding]) -> anyhow::Result<()> {
    match report {
        Report::Text => findings.iter().for_each(|finding| eprintln!("{finding}")),
        Report::Json => eprintln!("{}", serde_json::to_string_pretty(findings)?),
    }
    Ok(())
}

/// All of the files, or none where one of them is there already.
fn write(folder: &Path, imported: &Imported) -> anyhow::Result<()> {
    let paths = || imported.files.iter().map(|file| folder.join(file.name));
    if let Some(path) = paths().find(|path| path.exists()) {
        anyhow::bail!("{} is there already: name another folder", path.display());
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (path, file) in paths().zip(&imported.files) {
        let made = fs::OpenOptions::new().write(true).create_new(true).open(&path);
        made.and_then(|mut made| made.write_all(file.text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
