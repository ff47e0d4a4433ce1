//! What we build: the filter, and the control plane with the filter inside.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::setup::{self, STATIC_TARGET, Tools, WASM_TARGET};
use crate::shell::{self, Step};
use crate::workspace::Workspace;

/// The most bytes of a released filter. Envoy compiles about 1 KB per millisecond, at its start and once per update of
/// the code.
const LARGEST_FILTER: u64 = 400 * 1024;

/// Which C compiler the static binary is built with: ring and mimalloc have some C, which needs no musl of its own.
const STATIC_COMPILER: &str =
    if cfg!(target_arch = "aarch64") { "CC_aarch64_unknown_linux_musl" } else { "CC_x86_64_unknown_linux_musl" };

/// Callbacks that the SDK exports and our filter does nothing in, and the SDK's method for each. Envoy calls what is
/// exported: those of a connection's data would cost each request 2 us. With them goes what only they reach.
const WITHOUT: [(&str, &str); 9] = [
    ("proxy_on_downstream_connection_close", "on_downstream_close"),
    ("proxy_on_downstream_data", "on_downstream_data"),
    ("proxy_on_foreign_function", "on_foreign_function"),
    ("proxy_on_grpc_receive_initial_metadata", "on_grpc_stream_initial_metadata"),
    ("proxy_on_grpc_receive_trailing_metadata", "on_grpc_stream_trailing_metadata"),
    ("proxy_on_http_call_response", "on_http_call_response"),
    ("proxy_on_response_trailers", "on_http_response_trailers"),
    ("proxy_on_upstream_connection_close", "on_upstream_close"),
    ("proxy_on_upstream_data", "on_upstream_data"),
];

/// Builds the filter in both forms. Returns the path of filter.wasm; filter.so is beside it.
pub fn filter(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    Step { what: "building filter.wasm", takes: Some("half a minute the first time"), log: "build-filter" }.run(
        workspace,
        shell::cargo(workspace).args(["build", "--package", "tollgate-filter", "--lib"]).args([
            "--target",
            WASM_TARGET,
            "--profile",
            "wasm",
        ]),
    )?;
    let built = workspace.target().join(WASM_TARGET).join("wasm/tollgate_filter.wasm");
    let wasm = workspace.filter_wasm();
    trim(&built, &wasm)?;
    let size = std::fs::metadata(&wasm)?;
    println!("    filter.wasm: {} KB of at most {} KB", size.len().div_ceil(1024), LARGEST_FILTER / 1024);
    module(workspace)?;
    Ok(wasm)
}

/// Builds filter.so.
fn module(workspace: &Workspace) -> anyhow::Result<()> {
    Step { what: "building filter.so", takes: Some("a minute the first time"), log: "build-module" }.run(
        workspace,
        shell::cargo(workspace).args(["build", "--package", "tollgate-native", "--lib", "--profile", "native"]),
    )?;
    let built = workspace.target().join("native/libtollgate_native.so");
    let bytes = std::fs::read(&built).with_context(|| format!("{} cannot be read", built.display()))?;
    let kept = workspace.filter_so();
    // A file that is the same already keeps its time, because `tollgate` is compiled anew when it is younger.
    if std::fs::read(&kept).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    std::fs::write(&kept, bytes).with_context(|| format!("cannot write {}", kept.display()))
}

/// Has a command build `tollgate` with the filter inside.
pub fn built_in<'c>(workspace: &Workspace, wasm: &Path, command: &'c mut Command) -> &'c mut Command {
    command.env("TOLLGATE_WASM", wasm).env("TOLLGATE_NATIVE", workspace.filter_so())
}

/// Writes the module without [`WITHOUT`]. A file that is the same already keeps its time, because `tollgate` is compiled
/// anew when it is younger.
fn trim(built: &Path, trimmed: &Path) -> anyhow::Result<()> {
    let mut module = walrus::Module::from_file(built).with_context(|| format!("{} cannot be read", built.display()))?;
    for (name, _) in WITHOUT {
        module.exports.remove(name).with_context(|| format!("{name} is not exported; take it off the list"))?;
    }
    walrus::passes::gc::run(&mut module);
    if let Some(folder) = trimmed.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let bytes = module.emit_wasm();
    if std::fs::read(trimmed).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    std::fs::write(trimmed, bytes).with_context(|| format!("cannot write {}", trimmed.display()))
}

/// Fails if the filter is too large to be released.
pub fn filter_size(wasm: &Path) -> anyhow::Result<()> {
    let size = std::fs::metadata(wasm)?.len();
    anyhow::ensure!(
        size <= LARGEST_FILTER,
        "filter.wasm has {size} bytes; at most {LARGEST_FILTER} keep Envoy's start quick"
    );
    Ok(())
}

/// Builds the control plane with this filter inside, for tests and demo.
pub fn debug(workspace: &Workspace, wasm: &Path) -> anyhow::Result<PathBuf> {
    Step { what: "building tollgate", takes: Some("some minutes the first time"), log: "build-tollgate" }
        .run(workspace, built_in(workspace, wasm, shell::cargo(workspace).args(["build", "--package", "tollgate"])))?;
    // This is a copy, so that a plain `cargo build` does not replace it by a binary without the filter.
    let built = workspace.target().join("debug/tollgate");
    let kept = workspace.built();
    if let Some(folder) = kept.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // The copy is made beside the old one first, because that may be running.
    let beside = kept.with_extension("new");
    std::fs::copy(built, &beside)?;
    std::fs::rename(beside, &kept)?;
    Ok(kept)
}

/// Builds both as they are released. Returns the path of `tollgate`.
pub fn dist(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let wasm = filter(workspace)?;
    filter_size(&wasm)?;
    setup::target(workspace, STATIC_TARGET)?;
    Step { what: "building tollgate for release", takes: Some("some minutes"), log: "dist" }.run(
        workspace,
        built_in(workspace, &wasm, &mut shell::cargo(workspace))
            .args(["build", "--package", "tollgate", "--release", "--target", STATIC_TARGET])
            .env(STATIC_COMPILER, "cc"),
    )?;
    let folder = workspace.target().join("dist");
    std::fs::create_dir_all(&folder)?;
    let binary = folder.join("tollgate");
    let built = workspace.target().join(STATIC_TARGET).join("release/tollgate");
    std::fs::copy(built, &binary)?;
    std::fs::copy(wasm, folder.join("filter.wasm"))?;
    std::fs::copy(workspace.filter_so(), folder.join("filter.so"))?;
    verify(&binary)?;
    for name in ["tollgate", "filter.wasm", "filter.so"] {
        let file = folder.join(name);
        println!("    {}: {} KB", file.display(), std::fs::metadata(&file)?.len().div_ceil(1024));
    }
    Ok(binary)
}

/// Builds the Python wheel that is released into target/dist. Its binary is that of [`dist`], byte for byte: cargo has
/// nothing left to build.
pub fn wheel(workspace: &Workspace, tools: &Tools) -> anyhow::Result<PathBuf> {
    let binary = dist(workspace)?;
    let mut command = Command::new(&tools.maturin);
    command.args(["build", "--release", "--target", STATIC_TARGET, "--out"]).arg(workspace.target().join("dist"));
    // It needs no library, so any libc will do.
    command.args(["--compatibility", "manylinux2014", "musllinux_1_1"]).env(STATIC_COMPILER, "cc");
    let wheel = packed(workspace, tools, &workspace.target().join("dist"), &mut command)?;
    let kept = std::fs::read(&binary)?;
    anyhow::ensure!(
        in_wheel(tools, &wheel)? == kept,
        "{} has another binary than {}",
        wheel.display(),
        binary.display()
    );
    println!("    {}: {} KB", wheel.display(), std::fs::metadata(&wheel)?.len().div_ceil(1024));
    Ok(wheel)
}

/// The same of the debug build, for tests, into target/built.
pub fn debug_wheel(workspace: &Workspace, tools: &Tools) -> anyhow::Result<PathBuf> {
    let folder = workspace.target().join("built");
    let mut command = Command::new(&tools.maturin);
    command.args(["build", "--profile", "dev", "--out"]).arg(&folder);
    // It has this machine's libc, and is for this machine alone.
    command.args(["--compatibility", "linux", "--auditwheel", "skip"]);
    packed(workspace, tools, &folder, &mut command)
}

/// Runs maturin, which builds by cargo. Returns the only wheel in the folder.
fn packed(workspace: &Workspace, tools: &Tools, folder: &Path, command: &mut Command) -> anyhow::Result<PathBuf> {
    let wheels = || -> anyhow::Result<Vec<PathBuf>> {
        let files = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        let paths = files.into_iter().map(|file| file.path());
        Ok(paths.filter(|path| path.extension().is_some_and(|ending| ending == "whl")).collect())
    };
    std::fs::create_dir_all(folder)?;
    for old in wheels()? {
        std::fs::remove_file(old)?;
    }
    // maturin looks for the Python that it was installed for, and we have it.
    let path = std::env::var("PATH").unwrap_or_default();
    let bin = tools.python.parent().context("Python is in a folder")?;
    command.current_dir(workspace.root()).env("PATH", format!("{}:{path}", bin.display()));
    command.env("CARGO_TARGET_DIR", workspace.target()).env("MATURIN_STRIP", "false");
    shell::without_ours(command);
    let wasm = workspace.filter_wasm();
    Step { what: "packing the wheel", takes: None, log: "wheel" }
        .run(workspace, built_in(workspace, &wasm, command))?;
    wheels()?.pop().context("maturin has left no wheel")
}

/// The binary in a wheel, which is a zip archive.
fn in_wheel(tools: &Tools, wheel: &Path) -> anyhow::Result<Vec<u8>> {
    const READ: &str = "
import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
[name] = [name for name in wheel.namelist() if name.endswith('.data/scripts/tollgate')]
sys.stdout.buffer.write(wheel.read(name))
";
    let output = Command::new(&tools.python).args(["-c", READ]).arg(wheel).output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}

/// Checks that it starts and needs no library.
fn verify(binary: &Path) -> anyhow::Result<()> {
    shell::read(Command::new(binary).arg("--version"))?;
    let libraries = Command::new("ldd").arg(binary).output().context("ldd is not installed")?;
    let text = [libraries.stdout, libraries.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    anyhow::ensure!(
        text.contains("statically linked") || text.contains("not a dynamic executable"),
        "{} is not static: {text}",
        binary.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A callback that the filter uses and that is on the list would never come.
    #[test]
    fn the_filter_uses_nothing_that_is_taken_out() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let files = std::fs::read_dir(root.join("filter/src/envoy")).unwrap();
        let sources: Vec<String> = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        let uses = |method: &str| sources.iter().any(|source| source.contains(&format!("fn {method}(")));
        assert!(uses("on_http_request_headers") && uses("on_new_connection"), "the sources are elsewhere");
        for (callback, method) in WITHOUT {
            assert!(!uses(method), "{method} is used: take {callback} off the list");
        }
    }
}
