//! `cargo xtask bench --kubernetes`: see `tollgate_tests::cluster_bench`. By itself it measures the `tollgate` that
//! `TOLLGATE_BIN` names, or else the debug build.

use std::process::ExitCode;

use anyhow::Context;
use tollgate_tests::cluster_bench::{self, Options};

const HELP: &str = "\
What a change of one HTTPRoute costs among many in Kubernetes: `cargo xtask bench --kubernetes` builds and runs this.

  --sizes N,N,...   numbers of routes [100,1000,10000]
  --changes N       single changes of each size [50]

TOLLGATE_BIN=FILE measures another `tollgate` than the debug build. It needs root, and a machine that does nothing else.";

#[tokio::main]
async fn main() -> ExitCode {
    match bench().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("ANSWERS WERE WRONG.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn bench() -> anyhow::Result<bool> {
    let mut options = Options { sizes: vec![100, 1_000, 10_000], changes: 50 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--sizes" => {
                let sizes = arguments.next().context("--sizes N,N,...")?;
                options.sizes = sizes.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "--changes" => options.changes = arguments.next().context("--changes N")?.parse()?,
            "--help" => {
                println!("{HELP}");
                return Ok(true);
            }
            other => anyhow::bail!("{other} is no argument; --help names them"),
        }
    }
    cluster_bench::run(options).await
}
