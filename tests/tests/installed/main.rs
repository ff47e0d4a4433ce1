//! Tollgate in Kubernetes as a user has it: installed by its chart, used by kubectl, asked by clients in the cluster. Run
//! the tests as those of the lab (tests/tests/lab/). They share one lab and one installation; each has namespaces of its
//! own.

mod authority;
mod certificates;
mod chain;
mod chaos;
mod dump;
mod faults;
mod fleet;
mod install;
mod mixed;
mod native;
mod picked;
mod policies;
mod proxies;
mod release;
mod replicas;
mod restored;
mod secrets;
mod shop;
mod tenants;

use std::process::ExitCode;

use tollgate_tests::lab::suite::AtOnce;
use tollgate_tests::lab::{Lab, suite};

fn main() -> ExitCode {
    // What touches the installation comes last.
    let tests = [
        chain::tests(),
        proxies::tests(),
        tenants::tests(),
        picked::tests(),
        secrets::tests(),
        chaos::tests(),
        authority::tests(),
        replicas::tests(),
        install::tests(),
        // After the test of rights: an API server that has just started denies what it has not read the rights of.
        mixed::tests(),
        policies::tests(),
        release::tests(),
        certificates::tests(),
        restored::tests(),
        native::tests(),
        fleet::tests(),
    ];
    let prepare = async |lab: &Lab| {
        lab.install_gateway_api().await?;
        lab.install_inference_extension().await?;
        lab.install_request_authentications().await?;
        lab.install_tollgate().await
    };
    suite::run("installed", AtOnce::One, prepare, tests)
}
