//! The commands of this repository. Each one sets up what it needs by itself, so every command
//! works in a bare checkout; what is already there costs nothing the second time.

mod artifacts;
mod bench;
mod check;
mod demo;
mod documents;
mod http;
mod interrupt;
mod lab;
mod lints;
mod needs;
mod process;
mod repository;
mod said;
mod setup;
mod shell;
mod soak;
mod suite;
mod trivy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::needs::Need;

/// Builds, runs, tests and measures Tollgate.
///
/// Start with `cargo xtask demo`. Needs: Linux x86-64, rustup, a C compiler, python3 (3.11 or later,
/// with venv); what is missing is said at once. All else comes from the package registries and stays below target/.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The whole way once, to see: keys, a real LLM, the OpenAI SDK, budgets, a failover, the books.
    Demo {
        /// Leaves everything running, and says how to call it and how to stop it
        #[arg(long)]
        keep: bool,
        /// Stops what an earlier --keep left running
        #[arg(long, conflicts_with = "keep")]
        stop: bool,
        /// The same in a Kubernetes of its own: the chart, kubectl, runners as Pods. --keep waits for Ctrl-C then
        #[arg(long, conflicts_with = "stop")]
        kubernetes: bool,
        /// The same there with a real Istio: sidecars with the filter, and callers that their certificates show
        ///
        /// Istio's programs are in no package registry: ISTIO_BIN names a folder with pilot-discovery, pilot-agent and
        /// istioctl.
        #[arg(long, conflicts_with_all = ["stop", "kubernetes"])]
        mesh: bool,
    },
    /// The whole test suite; with a name, only the tests whose names contain it.
    Test {
        name: Option<String>,
        /// The tests in a real Istio instead, with the programs in the folder that ISTIO_BIN names
        #[arg(long)]
        mesh: bool,
    },
    /// The fast loop: formatting, lints for both targets, unit and golden tests.
    Check,
    /// Writes the golden cases' expected parts anew.
    Bless,
    /// Writes what is generated below manifests and docs/reference anew.
    Gen,
    /// What a gateway costs, over plain Envoy and beside other gateways; or over another build; or what a change costs.
    ///
    /// Without an option: CPU time per request, part by part; then latency, streams, long prompts, memory and idling of
    /// plain Envoy, of a wasm filter that does nothing, and of Tollgate, with all processes of each; then the goals. It
    /// takes some minutes. A number that cannot be trusted is refused with its reason, on a busy machine above all.
    /// docs/performance.md says how it is measured and how to read it.
    Bench(bench::Options),
    /// Mixed load for minutes, with clients that leave and processes that are killed; then the books are compared.
    ///
    /// Without an option on this machine alone: `tollgate run` with its Envoy, and a backend that counts. With --kubernetes in a
    /// Kubernetes of its own (needs root, ip, nft): two control planes and two proxies by the chart, while each part is killed,
    /// replaced or changed in turn. It says what it does as it goes, and in the end what was sent, what the backends and the
    /// books say of it, which requests failed and why, and what each process has of memory. It fails if a token is missing or
    /// counted twice, if an answer is a 5xx that docs/operations.md does not name, or if memory has grown (from 10 minutes on).
    Soak {
        /// How long clients ask. In Kubernetes 10 is the least of which memory is judged, and 30 is what is documented
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
        /// Kills Envoy too, by turns with the control plane
        #[arg(long)]
        kill_envoy: bool,
        /// In a Kubernetes; what is killed there is a list of its own, Envoy among it
        #[arg(long, conflicts_with = "kill_envoy")]
        kubernetes: bool,
    },
    /// A Kubernetes on this machine, to try things in as the tests do (needs root, ip, nft).
    #[command(subcommand)]
    Lab(lab::Command),
    /// The conformance suite of the Gateway API, or of its Inference Extension, against Tollgate, in a lab of its own.
    Conformance(lab::Conformance),
    /// Leaves target/dist/tollgate (release, static, the filter built in) and target/dist/filter.wasm.
    Dist,
    /// Leaves the Python wheel of the same binary in target/dist as well.
    Wheel {
        /// Of the debug build, in target/built: for the tests (implied by test)
        #[arg(long)]
        debug: bool,
    },
    /// Fetches what the others need: the wasm target, Envoy, a small real LLM, the SDKs (implied by the others).
    Setup,
    /// Builds filter.wasm and a debug `tollgate` with it inside (implied by demo and test).
    Build,
}

// === impl Command ===

impl Command {
    fn needs(&self) -> &'static [Need] {
        match self {
            Self::Demo { stop: true, .. } => &[],
            Self::Bench(options) if options.scale || options.released => needs::RELEASED,
            Self::Bench(options) if options.kubernetes => needs::CLUSTER,
            Self::Demo { kubernetes: true, .. } | Self::Soak { kubernetes: true, .. } => needs::LAB,
            Self::Demo { mesh: true, .. } => needs::MESH,
            Self::Demo { .. } | Self::Bench(_) | Self::Soak { .. } => needs::RUN,
            Self::Test { name, mesh } if *mesh || name.is_some() => needs::RUN,
            Self::Test { .. } => needs::TEST,
            Self::Check => needs::CHECK,
            Self::Lab(lab::Command::Down) => &[],
            Self::Lab(lab::Command::Exec { .. }) => &[Need::Lab],
            Self::Lab(lab::Command::Up { .. }) | Self::Conformance(_) => needs::LAB,
            Self::Bless | Self::Gen => &[Need::C],
            Self::Dist => needs::DIST,
            Self::Wheel { debug: false } => needs::RELEASED,
            Self::Wheel { debug: true } => needs::RUN,
            Self::Setup => needs::SETUP,
            Self::Build => needs::BUILD,
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            interrupt::wait_if_ending();
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let workspace = workspace::Workspace::find()?;
    needs::ensure(&workspace, cli.command.needs())?;
    match cli.command {
        Command::Demo { stop: true, .. } => demo::stop(&workspace),
        Command::Demo { kubernetes: true, keep, .. } => lab::demo(&workspace, lab::With::Gateway, keep),
        Command::Demo { mesh: true, keep, .. } => lab::demo(&workspace, lab::With::Mesh, keep),
        Command::Demo { keep, .. } => demo::run(&workspace, keep),
        Command::Bench(options) => bench::run(&workspace, &options),
        Command::Soak { minutes, kubernetes: true, .. } => soak::in_kubernetes(&workspace, minutes),
        Command::Soak { minutes, kill_envoy, .. } => soak::run(&workspace, minutes, kill_envoy),
        Command::Lab(command) => lab::run(&workspace, &command),
        Command::Conformance(options) => lab::conformance(&workspace, &options),
        Command::Dist => {
            setup::wasm_target(&workspace)?;
            artifacts::dist(&workspace).map(drop)
        }
        Command::Wheel { debug } => {
            let tools = setup::tools(&workspace)?;
            if !debug {
                return artifacts::wheel(&workspace, &tools).map(drop);
            }
            let wasm = artifacts::filter(&workspace)?;
            artifacts::debug(&workspace, &wasm)?;
            artifacts::debug_wheel(&workspace, &tools).map(drop)
        }
        Command::Setup => {
            setup::tools(&workspace)?;
            println!("all tools are below {}", workspace.tools().display());
            Ok(())
        }
        Command::Build => {
            setup::wasm_target(&workspace)?;
            let wasm = artifacts::filter(&workspace)?;
            artifacts::debug(&workspace, &wasm).map(drop)
        }
        Command::Check => suite::fast(&workspace),
        Command::Test { name, mesh: true } => suite::mesh(&workspace, name.as_deref()),
        Command::Test { name: None, .. } => suite::all(&workspace),
        Command::Test { name: Some(name), .. } => suite::some(&workspace, &name),
        Command::Bless => suite::bless(&workspace),
        Command::Gen => suite::generate(&workspace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
