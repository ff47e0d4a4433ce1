//! Tollgate in a real Istio: istiod, its injection and its agents, with the programs that ISTIO_BIN names. Run the tests by
//! `cargo xtask test --mesh`. They share one lab, one mesh that is STRICT everywhere, and one installation of Tollgate in it;
//! each has namespaces of its own.

mod away;
mod callers;
mod gateway;
mod jwts;
mod keys;
mod looked_at;
mod members;
mod registry;
mod replicas;
mod rotation;
mod sidecars;

use std::process::ExitCode;

use tollgate_tests::lab::suite::AtOnce;
use tollgate_tests::lab::{Lab, suite};

fn main() -> ExitCode {
    // What touches the installation comes last, after what takes long and needs it as it is.
    let tests = [
        sidecars::tests(),
        keys::tests(),
        callers::tests(),
        gateway::tests(),
        looked_at::tests(),
        // Where somebody verifies JWTs, istioctl has something to say to istiod (docs/istio.md).
        jwts::tests(),
        rotation::tests(),
        replicas::tests(),
        registry::tests(),
        away::tests(),
    ];
    let prepare = async |lab: &Lab| {
        lab.install_gateway_api().await?;
        lab.install_mesh().await?;
        lab.install_tollgate_in_mesh().await
    };
    suite::run("istio", AtOnce::One, prepare, tests)
}
