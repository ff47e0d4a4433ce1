//! What the tests share: one runtime, one model server. And the list of tests.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use tollgate_tests::gateway::Setup;
use tollgate_tests::llm::Llm;
use tollgate_tests::tap::Tap;
use tollgate_tests::tools::Tools;

pub struct Suite {
    runtime: tokio::runtime::Runtime,
    shared: Option<Arc<Shared>>,
}

/// For the tests to use.
pub struct Shared {
    pub tools: Tools,
    pub llm: Llm,
}

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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        if arguments.list {
            return Ok(Self {
                runtime,
                shared: None,
            });
        }
        let tools = Tools::find()?;
        let llm = runtime.block_on(Llm::start(&tools))?;
        Ok(Self {
            runtime,
            shared: Some(Arc::new(Shared { tools, llm })),
        })
    }

    pub fn run(self, arguments: &Arguments) -> ExitCode {
        let tests = self.tests();
        libtest_mimic::run(arguments, tests).exit_code()
    }

    fn tests(&self) -> Vec<Trial> {
        vec![]
    }

    fn test<F>(&self, name: &str, body: impl FnOnce(Arc<Shared>) -> F + Send + 'static) -> Trial
    where
        F: Future<Output = anyhow::Result<()>> + Send,
    {
        let (shared, handle) = (self.shared.clone(), self.runtime.handle().clone());
        Trial::test(name, move || {
            let shared = shared.ok_or_else(|| Failed::from("nothing was started"))?;
            handle
                .block_on(body(shared))
                .map_err(|error| Failed::from(format!("{error:?}")))
        })
    }
}
