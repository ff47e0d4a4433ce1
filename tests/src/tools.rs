//! Where the real parts are: installed by `cargo xtask setup`, built by `cargo xtask build`.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::filter::Form;

#[derive(Clone, Debug)]
pub struct Tools {
    pub tollgate: PathBuf,
    /// The filter, which `tollgate` has inside as well.
    pub filter: PathBuf,
    /// The same as a module of Envoy.
    pub module: PathBuf,
    pub envoy: PathBuf,
    pub python: PathBuf,
    pub scripts: PathBuf,
    pub model: PathBuf,
    pub kubectl: PathBuf,
    /// This package's folder.
    pub tests: PathBuf,
    pub target: PathBuf,
    /// One folder per test goes in here; kept, so that a failure can be read afterwards.
    pub logs: PathBuf,
}

// === impl Tools ===

impl Tools {
    pub fn find() -> anyhow::Result<Self> {
        // As cargo says it now: a checkout may have been moved, with the tests built at its old place.
        let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&package).parent().context("tests/ lies in the root")?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let target = std::path::absolute(target)?;
        let tools = target.join("tools");
        let found = Self {
            tollgate: std::env::var_os("TOLLGATE_BIN").map_or_else(|| target.join("built/tollgate"), PathBuf::from),
            filter: target.join("built/filter.wasm"),
            module: target.join("built/filter.so"),
            envoy: tools.join("envoy"),
            python: tools.join("venv/bin/python"),
            scripts: root.join("tests/python"),
            model: tools.join("model.gguf"),
            kubectl: tools.join("venv/bin/kubectl"),
            tests: root.join("tests"),
            logs: target.join("logs").join(Form::chosen().folder()),
            target,
        };
        for (part, command) in [
            (&found.envoy, "setup"),
            (&found.python, "setup"),
            (&found.model, "setup"),
            (&found.kubectl, "setup"),
            (&found.tollgate, "build"),
            (&found.filter, "build"),
            (&found.module, "build"),
        ] {
            anyhow::ensure!(
                part.exists(),
                "{} is missing: run `cargo xtask {command}`, or everything by `cargo xtask test`",
                part.display()
            );
        }
        Ok(found)
    }

    /// One of the lab's programs, which only the tests in Kubernetes need.
    pub fn lab_program(&self, name: &str) -> PathBuf {
        self.target.join("lab").join(name)
    }
}
