//! The binary `tollgate`. A run is these stages, each a folder here or in `core`:
//!
//! ```text
//! 1 watch      files change               -> text
//! 2 objects    text                       -> valid objects, findings          (core)
//! 3 translate  objects                    -> IR                               (core)
//! 4 envoy      IR                         -> resources, filter configuration  (core)
//! 5 serve      resources                  -> xDS streams; ACK and NACK        -> status
//! 6 ledger     leases, usage              -> budgets, durable
//! 7 admin      status, usage, budgets     -> HTTP for people and probes
//! 8 run        Envoy itself, as a child   (`tollgate run` only)
//! ```
//! `commands/` has a file per subcommand and puts the stages together; `commands/stages.rs` is the list in code.

use std::process::ExitCode;

mod accept;
mod admin;
mod commands;
mod filter_code;
mod ledger;
mod private;
mod run;
mod serve;
mod watch;

/// The static binary's own allocator takes a third of the start.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    commands::main()
}
