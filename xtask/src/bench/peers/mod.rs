//! The other gateways that a package registry has, each as it is installed from there and set up for speed. What
//! cannot be installed or does not start here is said in its place in the tables.
//!
//! All do the same: they take an OpenAI chat, choose a backend by its model, count usage, and send it on. None of them
//! holds a budget here, because none does that without a database beside it.

mod aigw;
mod install;
mod litellm;
mod portkey;

use std::path::{Path, PathBuf};

use crate::bench::load::Entry;
use crate::bench::parts::PATH;
use crate::process::Process;
use crate::workspace::Workspace;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// Envoy AI Gateway: Envoy and a process that it asks about every request (ext_proc)
    Aigw,
    /// LiteLLM's proxy, in Python
    Litellm,
    /// Portkey's gateway, in Node.js
    Portkey,
}

/// A peer that answers, and the process that all of its processes descend from. It ends with this value.
pub struct Running {
    pub port: u16,
    pub process: Process,
}

/// Where a peer is, and what it may use.
struct Site<'a> {
    /// What is installed.
    installed: PathBuf,
    /// The folder of this run.
    home: &'a Path,
    port: u16,
    /// The port of the backend.
    backend: u16,
}

/// What LiteLLM is asked with. It holds no virtual keys without a database.
const LITELLM_KEY: &str = "sk-bench";

// === impl Peer ===

impl Peer {
    #[cfg(test)]
    pub const ALL: [Self; 3] = [Self::Aigw, Self::Litellm, Self::Portkey];

    pub fn name(self) -> &'static str {
        match self {
            Self::Aigw => "aigw",
            Self::Litellm => "litellm",
            Self::Portkey => "portkey",
        }
    }

    /// Its name and version, which are those that are installed.
    pub fn title(self) -> &'static str {
        match self {
            Self::Aigw => "Envoy AI Gateway 1.2.0",
            Self::Litellm => "LiteLLM 1.108.11",
            Self::Portkey => "Portkey 1.15.2",
        }
    }

    /// How its clients ask it for this backend.
    pub fn entry(self, backend: u16) -> Entry {
        match self {
            Self::Aigw => Entry::new(PATH, "smol", &[]),
            Self::Litellm => Entry::with_key(PATH, "smol", LITELLM_KEY),
            Self::Portkey => portkey::entry(backend),
        }
    }

    /// Installs it below target/peers, if that is not done yet.
    pub fn install(self, workspace: &Workspace) -> anyhow::Result<PathBuf> {
        match self {
            Self::Aigw | Self::Litellm => install::from_pypi(workspace, self),
            Self::Portkey => install::from_npm(workspace, self),
        }
    }

    /// Starts it in front of this port. Returns when it listens.
    pub fn start(self, workspace: &Workspace, backend: u16, home: &Path) -> anyhow::Result<Running> {
        let installed = self.install(workspace)?;
        std::fs::create_dir_all(home)?;
        let site = Site { installed, home, port: crate::process::port_or_free(0)?, backend };
        let start = match self {
            Self::Aigw => aigw::start,
            Self::Litellm => litellm::start,
            Self::Portkey => portkey::start,
        };
        Ok(Running { port: site.port, process: start(&site)? })
    }
}

/// Whether something listens there, to be waited for.
fn listens(port: u16) -> anyhow::Result<()> {
    Ok(std::net::TcpStream::connect(("127.0.0.1", port)).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table must not name another version than the one that was measured.
    #[test]
    fn titles_name_the_versions_that_are_installed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let pinned = |peer: Peer| match peer {
            Peer::Aigw | Peer::Litellm => std::fs::read_to_string(root.join(peer.name()).with_extension("txt")),
            Peer::Portkey => std::fs::read_to_string(root.join("portkey/package.json")),
        };
        for peer in Peer::ALL {
            let version = peer.title().rsplit(' ').next().unwrap();
            assert!(pinned(peer).unwrap().contains(version), "{peer:?}");
        }
    }
}
