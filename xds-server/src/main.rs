//! The binary `tollgate`. A run is these stages, started in this order:
//!
//! ```text
//! 1 source           files or a cluster      -> documents, when they change
//! 2 core::objects    documents               -> valid objects, findings
//! 3 core::translate  objects                 -> IR (core::world: only what a change touches)
//! 4 core::envoy      IR                      -> resources, filter configuration
//! 5 ledger           leases, usage           -> budgets, durable
//! 6 serve            resources               -> xDS streams; ACK and NACK -> status
//! 7 statuses         status                  -> the objects of the cluster (if that is where they come from)
//!   fleet            Gateways                -> Deployments and Services of their proxies
//!   notices          budgets that are nearly spent -> webhook, Events
//! 8 admin            status, usage, budgets  -> HTTP for people and probes
//! 9 envoy            Envoy itself, as a process of its own (`tollgate run`; in a Pod `tollgate proxy`)
//! ```
//! `pipeline/` is the loop of 1 to 4. `commands/` has a file per subcommand; `commands/stages.rs` is the list in code.
//! `report/` is what several stages write and one reads, `state/` what lies on disk. Each folder uses only what stands
//! before it in `tests/layout.rs`.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::commands::Outcome;
use self::envoy::detach;

mod accept;
mod admin;
mod audit;
mod causes;
mod commands;
mod envoy;
mod filter_code;
mod fleet;
mod handshakes;
mod identity;
mod istio;
mod leader;
mod ledger;
#[cfg(test)]
mod manifests;
mod notices;
mod otlp;
mod pipeline;
mod proxy;
mod replicas;
mod report;
mod serve;
mod source;
mod state;
mod statuses;
mod web;

#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    version,
    about = "An LLM gateway inside Envoy: keys, model routing, failover and token budgets",
    after_help = "\
First steps:
  tollgate init ./conf                   a small folder of objects to begin with, and a key
  tollgate validate -f ./conf            check it
  tollgate run -f ./conf                 serve it with an Envoy of its own; edits act at once
  tollgate key new --consumer alice      another key, and the YAML that lets it in
  tollgate status                        whether all of it works, and what does not
  tollgate usage --since 1h              who used how many tokens"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a small folder of configuration to begin with, and make a key
    Init(commands::init::Args),
    /// Control plane, ledger and an Envoy on this machine, from a folder of YAML or a cluster
    Run(commands::run::Args),
    /// The control plane alone, for Envoys that are started elsewhere
    Serve(Box<commands::serve::Args>),
    /// The Envoy of a Gateway in a Pod, for a control plane in the same cluster
    Proxy(commands::proxy::Args),
    /// Print every Envoy resource and filter configuration that a folder or a cluster means (secrets redacted)
    Translate(commands::translate::Args),
    /// Check a folder or a cluster; exit 1 when there are findings
    Validate(commands::validate::Args),
    /// Objects that mean what another gateway's configuration means
    Import(commands::import::Args),
    /// Make keys, let them in and rotate them
    Key(commands::key::Args),
    /// What belongs into an Istio mesh besides
    Mesh(commands::mesh::Args),
    /// The status of each object, as kubectl would show it; exit 1 when one is not well
    Status(commands::status::Args),
    /// Who used how many tokens, from a running control plane
    Usage(commands::usage::Args),
    /// Copy the books of a running control plane, and put a copy back
    Ledger(commands::ledger::Args),
    /// Print the bootstrap of an Envoy that is to be served by `tollgate serve`
    Bootstrap(commands::bootstrap::Args),
    /// Ask URLs, as `helm test` does; exit 1 when one does not answer well
    Probe(commands::probe::Args),
    /// Print the completion script of a shell
    Completion(commands::completion::Args),
    #[command(name = detach::COMMAND, hide = true)]
    StartDetached(detach::Args),
}

/// The static binary's own allocator takes a third of the start.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Init(args) => commands::init::main(&args),
        Command::Run(args) => commands::run::main(args),
        Command::Serve(args) => commands::serve::main(*args),
        Command::Proxy(args) => commands::proxy::main(args),
        Command::Translate(args) => commands::translate::main(&args),
        Command::Validate(args) => commands::validate::main(&args),
        Command::Import(args) => commands::import::main(&args),
        Command::Key(args) => commands::key::main(args),
        Command::Mesh(args) => commands::mesh::main(args),
        Command::Status(args) => commands::status::main(&args),
        Command::Usage(args) => commands::usage::main(&args),
        Command::Ledger(args) => commands::ledger::main(args),
        Command::Bootstrap(args) => commands::bootstrap::main(&args),
        Command::Probe(args) => commands::probe::main(&args),
        Command::Completion(args) => commands::completion::main(&args, Cli::command()),
        Command::StartDetached(args) => commands::start_detached(&args),
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
