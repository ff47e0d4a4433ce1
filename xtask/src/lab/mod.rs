//! `cargo xtask lab`: a Kubernetes on this machine for a person, as the tests have it. tests/lab/README.md says what it is.

pub mod chart;
mod conformance;
mod demo;
mod fields;
pub mod go;
pub mod manifest;
mod pods;
mod programs;
mod up;

pub use conformance::{Options as Conformance, run as conformance};
pub use demo::{With, run as demo};
pub use programs::{for_end_to_end, for_lab, for_tests};

use clap::Subcommand;

use crate::workspace::Workspace;

#[derive(Subcommand)]
pub enum Command {
    /// Starts a lab and prints its kubeconfig; Ctrl-C ends it.
    ///
    /// kubectl and helm work from this machine, with the KUBECONFIG that is printed. Pods, Services and load balancers
    /// have addresses inside only: `cargo xtask lab exec -- curl http://NAME.NAMESPACE.svc.cluster.local`.
    Up {
        /// Leaves it running; `cargo xtask lab down` ends it
        #[arg(long)]
        keep: bool,
    },
    /// Runs a command inside, where Pods and Services answer and their names are known.
    Exec {
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Ends the lab that runs, with everything in it.
    Down,
}

pub fn run(workspace: &Workspace, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Up { keep } => up::up(workspace, *keep),
        Command::Exec { command } => up::exec(workspace, command),
        Command::Down => up::down(workspace),
    }
}
