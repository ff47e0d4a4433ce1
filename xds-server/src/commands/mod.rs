//! The command line: one file per subcommand. Exit codes: 0; 1 findings; 2 wrong usage or cannot start.

mod ask;
mod bootstrap;
mod completion;
mod key;
mod logging;
mod reload;
mod run;
mod serve;
mod stages;
mod status;
mod terminal;
mod translate;
mod usage;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::run::detach;

#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    version,
    about = "An LLM gateway inside Envoy: keys, model routing, failover and token budgets",
    after_help = "\
First steps:
  tollgate key new --consumer alice      make a key, and the YAML that goes with it
  tollgate validate -f ./conf            check a folder of Gateway, HTTPRoute, ModelPool, ... objects
  tollgate run -f ./conf                 serve it with an Envoy of its own; edits act at once
  tollgate status                        whether all of it works, and what does not
  tollgate usage --since 1h              who used how many tokens"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Control plane, ledger and an Envoy on this machine, from a folder of YAML
    Run(run::Args),
    /// The control plane alone, for Envoys that are started elsewhere
    Serve(serve::Args),
    /// Print every Envoy resource and filter configuration that a folder means (secrets redacted)
    Translate(translate::Args),
    /// Check a folder; exit 1 when there are findings
    Validate(validate::Args),
    /// Make keys
    Key(key::Args),
    /// The status of each object, as kubectl would show it; exit 1 when one is not well
    Status(status::Args),
    /// Who used how many tokens, from a running control plane
    Usage(usage::Args),
    /// Print the bootstrap of an Envoy that is to be served by `tollgate serve`
    Bootstrap(bootstrap::Args),
    /// Print the completion script of a shell
    Completion(completion::Args),
    #[command(name = detach::COMMAND, hide = true)]
    StartDetached(detach::Args),
}

/// For people who write scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// How a command that could start has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    /// There are findings of severity error.
    Findings,
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::main(args),
        Command::Serve(args) => serve::main(args),
        Command::Translate(args) => translate::main(&args),
        Command::Validate(args) => validate::main(&args),
        Command::Key(args) => key::main(args),
        Command::Status(args) => status::main(&args),
        Command::Usage(args) => usage::main(args),
        Command::Bootstrap(args) => bootstrap::main(&args),
        Command::Completion(args) => completion::main(&args),
        Command::StartDetached(args) => start_detached(&args),
    };
    match result {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Findings) => ExitCode::from(1),
        Err(error) => {
            eprintln!("tollgate: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn start_detached(args: &detach::Args) -> anyhow::Result<Outcome> {
    print(&detach::main(args)?.to_string());
    Ok(Outcome::Good)
}

/// Writes to standard output. An error is ignored: whoever closed the output has seen enough.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
