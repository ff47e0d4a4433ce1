//! `cargo xtask demo --kubernetes` and `--mesh`: the whole way of a request in a Kubernetes of its own, for a person to read.
//! Everything that is printed is measured in that run.

mod kubernetes;
mod mesh;
mod shown;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let shown = if has("--mesh") { mesh::show(has("--keep")).await } else { kubernetes::show(has("--keep")).await };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
