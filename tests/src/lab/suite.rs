//! What tests in Kubernetes share: one runtime and one lab for all tests of a program. Each module lists its own tests by
//! [`e2e!`].

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};

use super::Lab;
use crate::tools::Tools;

pub use crate::lab_tests as e2e;

/// One test in Kubernetes.
pub struct Test {
    pub name: &'static str,
    pub run: fn(Arc<Lab>) -> BoxFuture<'static, anyhow::Result<()>>,
}

/// The tests of a module: functions of it that take the lab. The name of a test is the function's, and a function that
/// is missing here is dead code to the compiler.
#[macro_export]
macro_rules! lab_tests {
    ($($name:ident),+ $(,)?) => {
        pub fn tests() -> Vec<$crate::lab::suite::Test> {
            vec![$($crate::lab::suite::Test { name: stringify!($name), run: |lab| Box::pin($name(lab)) }),+]
        }
    };
}

/// How many tests run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtOnce {
    /// As many as there are cores, unless the command line says otherwise.
    Some,
    /// They share what there is one of, and run in their order.
    One,
}

/// Starts a lab of this name, prepares it and runs the tests in it that the command line asks for.
pub fn run(
    name: &str,
    at_once: AtOnce,
    prepare: impl AsyncFnOnce(&Lab) -> anyhow::Result<()>,
    tests: impl IntoIterator<Item = Vec<Test>>,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    if at_once == AtOnce::One {
        arguments.test_threads = Some(1);
    }
    let tests: Vec<Test> = tests.into_iter().flatten().collect();
    // None of them may be meant: then nothing needs a lab.
    let filter = |test: &Test| arguments.filter.as_ref().is_none_or(|filter| test.name.contains(filter.as_str()));
    let needed = !arguments.list && tests.iter().any(filter);
    let started =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime").and_then(|runtime| {
            let lab = match needed {
                true => Some(Arc::new(runtime.block_on(start(name, prepare))?)),
                false => None,
            };
            Ok((runtime, lab))
        });
    let (runtime, lab) = match started {
        Ok(started) => started,
        Err(error) => {
            eprintln!("the tests in Kubernetes cannot start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let trial = |test: Test| {
        let (lab, handle) = (lab.clone(), runtime.handle().clone());
        Trial::test(test.name, move || {
            let lab = lab.ok_or_else(|| Failed::from("nothing was started"))?;
            let result = handle.block_on((test.run)(lab.clone()));
            // Then what the test saw is only what followed from it.
            lab.ensure_running().and(result).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

async fn start(name: &str, prepare: impl AsyncFnOnce(&Lab) -> anyhow::Result<()>) -> anyhow::Result<Lab> {
    let lab = Lab::up(&Tools::find()?, name).await?;
    prepare(&lab).await?;
    Ok(lab)
}
