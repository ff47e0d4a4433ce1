//! Installs peers below target/peers: every version is pinned, and nothing of a package runs while it is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::Peer;
use crate::needs;
use crate::setup;
use crate::shell::{self, Step};
use crate::workspace::Workspace;

/// What Portkey's package asks for.
const OLDEST_NODE: u32 = 18;

/// Prebuilt wheels in a Python environment of the peer's own. Returns its folder.
pub fn from_pypi(workspace: &Workspace, peer: Peer) -> anyhow::Result<PathBuf> {
    let requirements = sources(workspace).join(peer.name()).with_extension("txt");
    installed(workspace, peer, &[&requirements], |folder| {
        let python = needs::python().map_err(anyhow::Error::msg)?;
        shell::read(setup::in_environment(Command::new(python).args(["-m", "venv"]).arg(folder)))?;
        let what = format!("installing {}", peer.title());
        let log = format!("peer-{}", peer.name());
        let step = Step { what: &what, takes: Some("a minute, by the network"), log: &log };
        setup::pip(workspace, folder, &step, &["--requirement".as_ref(), requirements.as_os_str()])
    })
}

/// Packages of Node.js, as the lock file says. Returns the folder that has `node_modules`.
pub fn from_npm(workspace: &Workspace, peer: Peer) -> anyhow::Result<PathBuf> {
    let node = shell::read(Command::new("node").arg("--version")).unwrap_or_default();
    let major = node.trim().trim_start_matches('v').split('.').next().and_then(|word| word.parse::<u32>().ok());
    anyhow::ensure!(
        major.is_some_and(|major| major >= OLDEST_NODE),
        "Node.js {OLDEST_NODE} or later with npm: on Debian and Ubuntu apt-get install nodejs npm"
    );
    let sources = sources(workspace).join(peer.name());
    let files = ["package.json", "package-lock.json"].map(|name| sources.join(name));
    installed(workspace, peer, &[&files[0], &files[1]], |folder| {
        std::fs::create_dir_all(folder)?;
        for file in &files {
            std::fs::copy(file, folder.join(file.file_name().unwrap_or_default()))?;
        }
        let what = format!("installing {}", peer.title());
        let log = format!("peer-{}", peer.name());
        Step { what: &what, takes: Some("some seconds, by the network"), log: &log }
            .run(
                workspace,
                Command::new("npm").current_dir(folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]),
            )
            .context("the package registry npm must be reachable the first time")
    })
}

fn sources(workspace: &Workspace) -> PathBuf {
    workspace.root().join("xtask/peers")
}

/// Installs anew if these files are others than those that were installed by.
fn installed(
    workspace: &Workspace,
    peer: Peer,
    files: &[&Path],
    install: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let folder = workspace.target().join("peers").join(peer.name());
    let stamp = folder.join("installed-by");
    let wanted = files.iter().map(std::fs::read_to_string).collect::<std::io::Result<String>>()?;
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return Ok(folder);
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    install(&folder)?;
    std::fs::write(stamp, wanted)?;
    Ok(folder)
}
