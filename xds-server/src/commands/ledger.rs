//! `tollgate ledger`: a copy of the books of a running control plane, and the way back.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;

use super::Outcome;
use super::ask::{self, AdminApi};
use crate::ledger::{self, Restored};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy the books of a running control plane as they are at this moment. Nothing stops for it
    Backup(Backup),
    /// Put a copy in the place of a ledger that nobody has open
    Restore(Restore),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate ledger backup --to books.redb
  kubectl -n tollgate-system exec deploy/tollgate -- tollgate ledger backup > books.redb

Of several replicas the leader has the ledger: kubectl -n tollgate-system get lease tollgate-controller")]
struct Backup {
    /// The file to write, which must not be there [default: standard output]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    api: AdminApi,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate ledger restore books.redb --ledger /var/lib/tollgate/ledger
  tollgate ledger restore - --ledger /var/lib/tollgate/ledger/books --replace < books.redb

The control plane must not run. What was spent after the copy was made is forgotten, and who has spent a budget since may
spend that again.")]
struct Restore {
    /// The copy; `-` reads it from standard input
    #[arg(value_name = "FILE")]
    copy: PathBuf,
    /// The ledger's folder: `ledger` in the state directory, or what --ledger of `tollgate serve` names
    #[arg(long, value_name = "DIR")]
    ledger: PathBuf,
    /// If there is a ledger, keep it beside the new one, as ledger.redb.before
    #[arg(long)]
    replace: bool,
}

pub fn main(args: Args) -> anyhow::Result<Outcome> {
    match args.command {
        Command::Backup(args) => ask::block_on(backup(args)),
        Command::Restore(args) => restore(&args),
    }
}

async fn backup(args: Backup) -> anyhow::Result<Outcome> {
    let terminal = args.to.is_none() && std::io::stdout().is_terminal();
    anyhow::ensure!(!terminal, "the copy is not text; send it into a file, or name one by --to");
    let mut answer = args.api.answer("api/ledger/backup", &[]).await?;
    let mut to: Box<dyn Write> = match &args.to {
        Some(path) => Box::new(created(path)?),
        None => Box::new(std::io::stdout().lock()),
    };
    let mut bytes = 0;
    while let Some(chunk) = answer.chunk().await.context("the copy breaks off; it is of no use")? {
        to.write_all(&chunk).context("the copy cannot be written")?;
        bytes += chunk.len();
    }
    to.flush().context("the copy cannot be written")?;
    eprintln!("{bytes} bytes");
    Ok(Outcome::Good)
}

/// For its owner alone: it names consumers.
fn created(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.with_context(|| format!("{} cannot be made", path.display()))
}

fn restore(args: &Restore) -> anyhow::Result<Outcome> {
    let restored = if args.copy.as_os_str() == "-" {
        ledger::restore(&mut std::io::stdin().lock(), &args.ledger, args.replace)
    } else {
        let mut copy = File::open(&args.copy).with_context(|| args.copy.display().to_string())?;
        ledger::restore(&mut copy, &args.ledger, args.replace)
    };
    let Restored { buckets, leases, replaced } = restored?;
    let before = if replaced { "; the ledger before is in ledger.redb.before" } else { "" };
    super::print(&format!("restored: {buckets} budgets, {leases} leases{before}\n"));
    Ok(Outcome::Good)
}
