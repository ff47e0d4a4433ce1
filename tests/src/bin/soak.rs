//! `cargo xtask soak`: see `tollgate_tests::soak`.

use std::process::ExitCode;

use anyhow::Context;
use tollgate_tests::soak::{self, Options};

#[tokio::main]
async fn main() -> ExitCode {
    match soak().await {
        Ok(true) => {
            println!("The books are right.");
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("THE BOOKS ARE WRONG.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn soak() -> anyhow::Result<bool> {
    let mut options = Options { minutes: 1.0, kill_envoy: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--minutes" => options.minutes = arguments.next().context("--minutes N")?.parse()?,
            "--kill-envoy" => options.kill_envoy = true,
            other => anyhow::bail!("{other} is no argument; use --minutes N and --kill-envoy"),
        }
    }
    soak::run(options).await
}
