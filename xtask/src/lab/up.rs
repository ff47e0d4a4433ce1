//! The lab of `cargo xtask lab`: one of its own, apart from those of the tests.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use rustix::process::Signal;

use super::programs;
use crate::artifacts;
use crate::process::{self, Process};
use crate::setup;
use crate::workspace::Workspace;

/// Where its API server listens. If the port is taken, it uses another.
const PORT: u16 = 16443;

pub fn up(workspace: &Workspace, keep: bool) -> anyhow::Result<()> {
    let tools = setup::tools(workspace)?;
    let wasm = artifacts::filter(workspace)?;
    artifacts::debug(workspace, &wasm)?;
    programs::for_lab(workspace)?;
    anyhow::ensure!(running(workspace).is_none(), "a lab runs already; end it by `cargo xtask lab down`");
    let home = home(workspace);
    std::fs::create_dir_all(&home)?;
    // One that was killed has left it.
    let kubeconfig = home.join("kubeconfig");
    let _ = std::fs::remove_file(&kubeconfig);
    let port = process::port_or_free(PORT)?.to_string();
    let mut command = lab(workspace, "up");
    command.args(["--port", &port, "--images"]).arg(workspace.root().join("tests/lab/images.yaml"));
    command.arg("--audit").arg(workspace.root().join("manifests/audit-policy.yaml"));
    println!(
        "\nThe lab starts. From this machine:  export KUBECONFIG={}\n\
         kubectl, if there is none:          {}\n\
         Inside, among Pods and Services:    cargo xtask lab exec -- curl -s http://NAME.NAMESPACE.svc.cluster.local\n\
         Images that Pods can name:          tests/lab/images.yaml",
        kubeconfig.display(),
        tools.kubectl.display(),
    );
    if !keep {
        println!("Ctrl-C ends it.\n");
        return Err(command.exec()).context("the lab does not start");
    }
    let mut process = Process::start_detached(&mut command, &home.join("lab.log"))?;
    process.wait_for("the lab", || {
        anyhow::ensure!(kubeconfig.exists(), "not ready");
        Ok(())
    })?;
    process.let_go();
    println!("It is ready, and goes on running. End it: cargo xtask lab down");
    Ok(())
}

pub fn exec(workspace: &Workspace, command: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(running(workspace).is_some(), "no lab runs; start one by `cargo xtask lab up --keep`");
    Err(lab(workspace, "exec").arg("--").args(command).exec()).context("the command does not start")
}

pub fn down(workspace: &Workspace) -> anyhow::Result<()> {
    let Some(id) = running(workspace) else {
        println!("no lab runs");
        return Ok(());
    };
    // With its first process the kernel ends all others.
    process::signal(id, Signal::KILL)?;
    while running(workspace).is_some() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    println!("the lab is gone");
    Ok(())
}

/// The program with this command, on this lab.
fn lab(workspace: &Workspace, name: &str) -> Command {
    let mut command = Command::new(workspace.lab().join("lab"));
    command.arg(name).arg("--dir").arg(home(workspace));
    // For the paths in images.yaml.
    command.env("TARGET", workspace.target()).env("TESTS", workspace.root().join("tests"));
    command.env("TOLLGATE", workspace.built());
    command
}

fn home(workspace: &Workspace) -> PathBuf {
    workspace.lab().join("up")
}

/// The lab's first process. The id that a lab has left may be another process's by now.
fn running(workspace: &Workspace) -> Option<u32> {
    let home = home(workspace);
    let id: u32 = std::fs::read_to_string(home.join("pid")).ok()?.trim().parse().ok()?;
    let line = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
    String::from_utf8_lossy(&line).contains(home.to_str()?).then_some(id)
}
