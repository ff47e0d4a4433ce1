//! What the tests share: one runtime, one lab with the Gateway API. Each module lists its own tests by [`e2e!`].

use std::process::ExitCode;
use std::sync::Arc;

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use tollgate_tests::lab::Lab;
use tollgate_tests::tools::Tools;

use crate::{crds, order, source, statuses};

pub struct Suite {
    runtime: tokio::runtime::Runtime,
    lab: Option<Arc<Lab>>,
}

/// One test in Kubernetes.
pub struct Test {
    pub name: &'static str,
    pub run: fn(Arc<Lab>) -> BoxFuture<'static, anyhow::Result<()>>,
}

/// The tests of a module: functions of it that take the lab. The name of a test is the function's, and a function that
/// is missing here is dead code to the compiler.
macro_rules! e2e {
    ($($name:ident),+ $(,)?) => {
        pub fn tests() -> Vec<$crate::suite::Test> {
            vec![$($crate::suite::Test { name: stringify!($name), run: |lab| Box::pin($name(lab)) }),+]
        }
    };
}
pub(crate) use e2e;

// === impl Suite ===

impl Suite {
    pub fn start(arguments: &Arguments) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        if arguments.list {
            return Ok(Self { runtime, lab: None });
        }
        let tools = Tools::find()?;
        let lab = runtime.block_on(async {
            let lab = Lab::up(&tools, "tests").await?;
            lab.install_gateway_api().await?;
            lab.install_definitions().await?;
            anyhow::Ok(lab)
        })?;
        Ok(Self { runtime, lab: Some(Arc::new(lab)) })
    }

    pub fn run(self, arguments: &Arguments) -> ExitCode {
        let tests = [crds::tests(), order::tests(), source::tests(), statuses::tests()]
            .into_iter()
            .flatten()
            .map(|test| self.trial(test))
            .collect();
        libtest_mimic::run(arguments, tests).exit_code()
    }

    fn trial(&self, test: Test) -> Trial {
        let (lab, handle) = (self.lab.clone(), self.runtime.handle().clone());
        Trial::test(test.name, move || {
            let lab = lab.ok_or_else(|| Failed::from("nothing was started"))?;
            handle.block_on((test.run)(lab)).map_err(|error| Failed::from(format!("{error:#}")))
        })
    }
}
