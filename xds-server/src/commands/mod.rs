//! One file per subcommand, and what they share. `stages.rs` starts what `run` and `serve` have in common.

mod admin;
mod ask;
pub mod bootstrap;
pub mod completion;
pub mod filter;
pub mod import;
pub mod init;
pub mod key;
pub mod ledger;
mod logging;
pub mod mesh;
mod otlp;
mod placement;
pub mod probe;
mod proxies;
pub mod proxy;
pub mod run;
pub mod serve;
mod signals;
mod sources;
mod stages;
pub mod status;
mod stops;
mod terminal;
pub mod translate;
pub mod usage;
pub mod validate;
mod webhook;

use std::path::Path;

use anyhow::Context as _;
use clap::ValueEnum;

use crate::audit::Audit;
use crate::envoy::detach;

/// For people who write scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Yaml,
    Json,
}

/// How a command that could start has ended. Exit codes: 0; 1 findings; 2 wrong usage or cannot start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Good,
    /// There are findings of severity error.
    Findings,
}

/// For `envoy/detach.rs`.
pub fn start_detached(args: &detach::Args) -> anyhow::Result<Outcome> {
    print(&detach::main(args)?.to_string());
    Ok(Outcome::Good)
}

/// Writes to standard output. An error is ignored: whoever closed the output has seen enough.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The same to standard error, where standard output is somebody else's.
fn say(text: &str) {
    use std::io::Write as _;
    let _closed = std::io::stderr().lock().write_all(text.as_bytes());
}

/// The audit log, if there is to be one.
fn audit(path: Option<&Path>) -> anyhow::Result<Audit> {
    let Some(path) = path else { return Ok(Audit::default()) };
    Audit::open(path).with_context(|| format!("--audit-log {} cannot be opened", path.display()))
}
