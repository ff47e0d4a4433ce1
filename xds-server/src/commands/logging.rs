//! The log of the long-running commands, on standard error: text for people, or JSON for machines.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What goes wrong with an API server is told once, and not with each attempt as by these packages.
const DEFAULT: &str = "info,kube_client=off,kube_runtime=off";

// === impl LogFormat ===

impl LogFormat {
    /// Starts to log. `RUST_LOG` chooses what is logged.
    pub fn start(self) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self {
            Self::Text => subscriber.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
            Self::Json => subscriber.json().init(),
        }
    }
}
