//! The tests in Kubernetes. Run them by `cargo xtask test`, or `cargo test -p tollgate-tests --test lab -- NAME` as root
//! when everything is built. They share one lab; each has a namespace of its own in it.

mod crds;
mod objects;
mod order;
mod source;
mod statuses;
mod suite;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    match suite::Suite::start(&arguments) {
        Ok(suite) => suite.run(&arguments),
        Err(error) => {
            eprintln!("the tests in Kubernetes cannot start: {error:#}");
            ExitCode::FAILURE
        }
    }
}
