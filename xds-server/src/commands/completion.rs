//! `tollgate completion SHELL`

use clap::Command;
use clap_complete::{Shell, generate};

use super::{Outcome, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tollgate completion bash > /etc/bash_completion.d/tollgate")]
pub struct Args {
    shell: Shell,
}

pub fn main(args: &Args, mut command: Command) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "tollgate", &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(Outcome::Good)
}
