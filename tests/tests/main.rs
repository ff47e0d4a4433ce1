//! The end-to-end tests. Run them by `cargo xtask test`, or `cargo test -p tollgate-tests --test e2e -- NAME`
//! when everything is built.

mod access_log;
mod admin_page;
mod answers;
mod budgets;
mod certificates;
mod closed;
mod commands;
mod crashes;
mod edge;
mod endings;
mod errors;
mod failover;
mod fixtures;
mod forms;
mod imports;
mod interruptions;
mod jwts;
mod mesh;
mod providers;
mod reload;
mod requests;
mod routes;
mod scopes;
mod secrets;
mod sidecars;
mod signals;
mod suite;
mod tls;
mod upgrade;
mod usage_reading;
mod wheel;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    match suite::Suite::start(&arguments) {
        Ok(suite) => suite.run(&arguments),
        Err(error) => {
            eprintln!("the end-to-end tests cannot start: {error:#}");
            ExitCode::FAILURE
        }
    }
}
