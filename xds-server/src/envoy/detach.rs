//! Starts a process that is nobody's child. Envoy asks the kernel for SIGTERM when its parent dies
//! (`PR_SET_PDEATHSIG`), and we want Envoy to outlive us. So a short-lived copy of this binary starts it and ends.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Pid;

use crate::state::private;

/// The hidden subcommand that [`start`] calls.
pub const COMMAND: &str = "start-detached";

/// This binary, even if its file has been replaced meanwhile.
const OURSELVES: &str = "/proc/self/exe";

#[derive(Debug, clap::Args)]
pub struct Args {
    log: PathBuf,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Starts a program that is not our child and not in our process group. Its output goes to `log`.
pub async fn start(log: &Path, program: &Path, arguments: &[OsString]) -> io::Result<Pid> {
    let output = tokio::process::Command::new(OURSELVES)
        .arg(COMMAND)
        .args([log, program])
        .arg("--")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse().ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("the process has no id"))
}

/// What the copy does: starts the program, prints its process id, and ends at once.
pub fn main(args: &Args) -> io::Result<u32> {
    let log = private::create(&args.log)?;
    // Envoy writes a filter's module that it has fetched into a folder for passing files. In a Pod there is no other to write to.
    let passing = args.log.parent().unwrap_or(Path::new("/"));
    let child = Command::new(&args.program)
        .args(&args.arguments)
        .env("TMPDIR", passing)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    Ok(child.id())
}
