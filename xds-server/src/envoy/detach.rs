//! Starts a process that is nobody's child. Envoy asks the kernel for SIGTERM when its parent dies
//! (`PR_SET_PDEATHSIG`), and we want Envoy to outlive us. So a short-lived copy of this binary starts it and ends.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Pid;

use crate::otlp::HEADERS;
use crate::state::private;

/// The hidden subcommand that [`start`] calls.
pub const COMMAND: &str = "start-detached";

/// This binary, even if its file has been replaced meanwhile.
const OURSELVES: &str = "/proc/self/exe";

/// Where a program's standard output goes. Envoy writes nothing there but an access log that is to go there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Into the log.
    Log,
    /// Where ours does.
    Ours,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the copy has as its standard input is the program's standard output. Its own is for us
    #[arg(long)]
    input_is_output: bool,
    log: PathBuf,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Starts a program that is not our child and not in our process group. What it says goes to `log`.
pub async fn start(log: &Path, stdout: Output, program: &Path, arguments: &[OsString]) -> io::Result<Pid> {
    let mut command = tokio::process::Command::new(OURSELVES);
    command.arg(COMMAND);
    match stdout {
        Output::Log => command.stdin(Stdio::null()),
        Output::Ours => command.arg("--input-is-output").stdin(io::stdout().as_fd().try_clone_to_owned()?),
    };
    let output = command.args([log, program]).arg("--").args(arguments).output().await?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse().ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("the process has no id"))
}

/// What the copy does: starts the program, prints its process id, and ends at once.
pub fn main(args: &Args) -> io::Result<u32> {
    let log = private::create(&args.log)?;
    let stdout: Stdio =
        if args.input_is_output { io::stdin().as_fd().try_clone_to_owned()?.into() } else { log.try_clone()?.into() };
    let mut command = command(args);
    let child = command.stdin(Stdio::null()).stdout(stdout).stderr(log).process_group(0).spawn()?;
    Ok(child.id())
}

fn command(args: &Args) -> Command {
    // Envoy writes a filter's module that it has fetched into a folder for passing files. In a Pod there is no other to write to.
    let passing = args.log.parent().unwrap_or(Path::new("/"));
    let mut command = Command::new(&args.program);
    // Credentials that are not for it.
    command.args(&args.arguments).env("TMPDIR", passing).env_remove(HEADERS);
    command
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn credentials_of_the_collector_are_not_passed_on() {
        let (log, program) = ("/run/envoy.log".into(), "envoy".into());
        let args = Args { log, program, arguments: vec!["--version".into()], input_is_output: false };
        let command = command(&args);
        let variables: Vec<_> = command.get_envs().collect();
        assert!(variables.contains(&(OsStr::new(HEADERS), None)), "{variables:?}");
        assert!(variables.contains(&(OsStr::new("TMPDIR"), Some(OsStr::new("/run")))), "{variables:?}");
    }
}
