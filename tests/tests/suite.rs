//! What the tests share: one runtime, one model server. Each module lists its own tests by [`e2e!`].

use std::process::ExitCode;
use std::sync::Arc;

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use tollgate_tests::browser;
use tollgate_tests::filter::Form;
use tollgate_tests::gateway::Setup;
use tollgate_tests::llm::Llm;
use tollgate_tests::tap::Tap;
use tollgate_tests::tools::Tools;

use crate::{
    access_log, admin_page, answers, budgets, certificates, closed, commands, crashes, edge, endings, errors, failover,
    forms, imports, interruptions, jwts, mesh, providers, reload, requests, routes, scopes, secrets, sidecars, signals,
    tls, upgrade, usage_reading, wheel,
};

pub struct Suite {
    runtime: tokio::runtime::Runtime,
    shared: Option<Arc<Shared>>,
}

/// For the tests to use.
pub struct Shared {
    pub tools: Tools,
    pub llm: Llm,
}

/// The tests that are about WebAssembly.
const OF_WASM: [&str; 1] = ["a_worker_whose_vm_dies_is_replaced_and_charged"];

/// The tests that need the system's browser.
const IN_A_BROWSER: [&str; 1] = ["a_person_sees_in_a_browser_what_the_api_says"];

/// One end-to-end test.
pub struct Test {
    pub name: &'static str,
    pub run: fn(Arc<Shared>) -> BoxFuture<'static, anyhow::Result<()>>,
}

/// The tests of a module: functions of it that take [`Shared`]. The name of a test is the function's, and
/// a function that is missing here is dead code to the compiler.
macro_rules! e2e {
    ($($name:ident),+ $(,)?) => {
        pub fn tests() -> Vec<$crate::suite::Test> {
            vec![$($crate::suite::Test { name: stringify!($name), run: |shared| Box::pin($name(shared)) }),+]
        }
    };
}
pub(crate) use e2e;

// === impl Shared ===

impl Shared {
    /// A gateway for this test.
    pub fn setup(&self, test: &str) -> anyhow::Result<Setup> {
        Setup::new(&self.tools, test)
    }

    /// A recording backend in front of the model.
    pub async fn tap(&self) -> anyhow::Result<Tap> {
        Tap::start(self.llm.url()).await
    }
}

// === impl Suite ===

impl Suite {
    pub fn start(arguments: &Arguments) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        if arguments.list {
            return Ok(Self { runtime, shared: None });
        }
        let tools = Tools::find()?;
        let llm = runtime.block_on(Llm::start(&tools))?;
        Ok(Self { runtime, shared: Some(Arc::new(Shared { tools, llm })) })
    }

    pub fn run(self, arguments: &Arguments) -> ExitCode {
        let tests = self.tests();
        libtest_mimic::run(arguments, tests).exit_code()
    }

    fn tests(&self) -> Vec<Trial> {
        let modules = [
            access_log::tests(),
            admin_page::tests(),
            answers::tests(),
            budgets::tests(),
            certificates::tests(),
            closed::tests(),
            commands::tests(),
            crashes::tests(),
            edge::tests(),
            errors::tests(),
            failover::tests(),
            forms::tests(),
            imports::tests(),
            endings::tests(),
            interruptions::tests(),
            jwts::tests(),
            mesh::tests(),
            sidecars::tests(),
            signals::tests(),
            providers::tests(),
            reload::tests(),
            requests::tests(),
            routes::tests(),
            scopes::tests(),
            secrets::tests(),
            tls::tests(),
            upgrade::tests(),
            usage_reading::tests(),
            wheel::tests(),
        ];
        modules.into_iter().flatten().map(|test| self.trial(test)).collect()
    }

    fn trial(&self, test: Test) -> Trial {
        let lack = lack(test.name);
        if let Some(lack) = lack {
            println!("SKIP {}: {lack}", test.name);
        }
        let (shared, handle) = (self.shared.clone(), self.runtime.handle().clone());
        Trial::test(test.name, move || {
            let shared = shared.ok_or_else(|| Failed::from("nothing was started"))?;
            handle.block_on((test.run)(shared)).map_err(|error| Failed::from(format!("{error:#}")))
        })
        .with_ignored_flag(lack.is_some())
    }
}

/// Why this test cannot run here, if so.
fn lack(test: &str) -> Option<&'static str> {
    if Form::chosen() == Form::Native && OF_WASM.contains(&test) {
        return Some("it ends a VM of Envoy's (native/src/hooks/tests.rs has the like for a module)");
    }
    browser::chromium().err().filter(|_| IN_A_BROWSER.contains(&test))
}
