//! What we build: the filter, and the control plane with the filter inside.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::setup::WASM_TARGET;
use crate::shell::{self, Step};
use crate::workspace::Workspace;

/// Envoy compiles about 1 KB per millisecond at its start, once per update of the code.
const LARGEST_FILTER: u64 = 400 * 1024;

/// Builds filter.wasm.
pub fn filter(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    Step {
        what: "building filter.wasm",
        takes: Some("half a minute the first time"),
        log: "build-filter",
    }
    .run(
        workspace,
        shell::cargo(workspace)
            .args(["build", "--package", "tollgate-filter", "--lib"])
            .args(["--target", WASM_TARGET, "--profile", "wasm"]),
    )?;
    let wasm = workspace.filter_wasm();
    let size = std::fs::metadata(&wasm)
        .with_context(|| format!("{} is missing", wasm.display()))?
        .len();
    anyhow::ensure!(
        size <= LARGEST_FILTER,
        "filter.wasm has {size} bytes; at most {LARGEST_FILTER} keep Envoy's start quick"
    );
    println!(
        "    filter.wasm: {} KB of at most {} KB",
        size.div_ceil(1024),
        LARGEST_FILTER / 1024
    );
    Ok(wasm)
}

/// Builds the control plane with this filter inside, for tests and demo.
pub fn debug(workspace: &Workspace, wasm: &Path) -> anyhow::Result<PathBuf> {
    Step {
        what: "building tollgate",
        takes: Some("some minutes the first time"),
        log: "build-tollgate",
    }
    .run(
        workspace,
        shell::cargo(workspace)
            .args(["build", "--package", "tollgate"])
            .env("TOLLGATE_WASM", wasm),
    )?;
    Ok(workspace.target().join("debug/tollgate"))
}
