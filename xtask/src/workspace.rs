//! Where things are in the checkout and below target/.

use std::path::{Path, PathBuf};

use anyhow::Context;

pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

// === impl Workspace ===

impl Workspace {
    pub fn find() -> anyhow::Result<Self> {
        // As cargo says it now: the checkout may have been moved since this program was built in its old place.
        let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&package).parent().context("xtask lies in the workspace's root")?.to_path_buf();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        // Absolute, because children run in other directories.
        let target = std::path::absolute(target)?;
        Ok(Self { root, target })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn target(&self) -> &Path {
        &self.target
    }

    /// What is installed for tests, demo and benchmark.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// Whether the tools are there. A moved checkout leaves links that lead nowhere.
    pub fn has_tools(&self) -> bool {
        ["envoy", "model.gguf", "python", "packages", "venv/bin/python"]
            .iter()
            .all(|name| self.tools().join(name).exists())
    }

    /// The programs of tests/lab.
    pub fn lab(&self) -> PathBuf {
        self.target.join("lab")
    }

    /// The logs of the steps.
    pub fn logs(&self) -> PathBuf {
        self.target.join("logs")
    }

    /// The debug build of `tollgate` with the filter inside.
    pub fn built(&self) -> PathBuf {
        self.target.join("built/tollgate")
    }

    pub fn filter_wasm(&self) -> PathBuf {
        self.target.join("built/filter.wasm")
    }

    /// The same as a dynamic module of Envoy.
    pub fn filter_so(&self) -> PathBuf {
        self.target.join("built/filter.so")
    }
}
