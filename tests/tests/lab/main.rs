//! The tests in Kubernetes. Run them by `cargo xtask test`, or `cargo test -p tollgate-tests --test lab -- NAME` as root
//! when everything is built. They share one lab; each has a namespace of its own in it.

mod alerts;
mod crds;
mod istio;
mod keys;
mod objects;
mod order;
mod source;
mod statuses;

use std::process::ExitCode;

use tollgate_tests::lab::suite::AtOnce;
use tollgate_tests::lab::{Lab, suite};

fn main() -> ExitCode {
    let tests = [
        alerts::tests(),
        crds::tests(),
        keys::tests(),
        order::tests(),
        source::tests(),
        statuses::tests(),
        istio::tests(),
    ];
    let prepare = async |lab: &Lab| {
        lab.install_gateway_api().await?;
        // Not while others run: an API server is busy with new definitions for a while.
        lab.install_istio().await?;
        lab.install_definitions().await
    };
    suite::run("tests", AtOnce::Some, prepare, tests)
}
