//! What the tests share: one runtime, one model server. And the list of tests.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use tollgate_tests::gateway::Setup;
use tollgate_tests::llm::Llm;
use tollgate_tests::tap::Tap;
use tollgate_tests::tools::Tools;

use crate::{answers, budgets, certificates, commands, crashes, errors, failover, interruptions, reload, secrets};

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
        vec![
            self.test("every_api_is_answered_and_counted", answers::every_api_is_answered_and_counted),
            self.test("usage_is_forced_and_taken_out_again", answers::usage_is_forced_and_taken_out_again),
            self.test("the_model_list_is_the_consumers_own", answers::the_model_list_is_the_consumers_own),
            self.test("anonymous_access_is_counted", answers::anonymous_access_is_counted),
            self.test("the_sdks_raise_their_own_exceptions", errors::the_sdks_raise_their_own_exceptions),
            self.test("ambiguous_bodies_are_refused", errors::ambiguous_bodies_are_refused),
            self.test("each_attempt_is_its_backends_own", failover::each_attempt_is_its_backends_own),
            self.test("anthropic_credentials_go_in_x_api_key", failover::anthropic_credentials_go_in_x_api_key),
            self.test("weights_share_requests", failover::weights_share_requests),
            self.test("retries_end_in_503", failover::retries_end_in_503),
            self.test("a_budget_holds_under_concurrency", budgets::a_budget_holds_under_concurrency),
            self.test("shadow_counts_and_a_raised_limit_acts", budgets::shadow_counts_and_a_raised_limit_acts),
            self.test("a_client_that_leaves_is_charged", interruptions::a_client_that_leaves_is_charged),
            self.test("a_backend_that_breaks_off_is_charged", interruptions::a_backend_that_breaks_off_is_charged),
            self.test("a_backends_own_error_is_passed_on", interruptions::a_backends_own_error_is_passed_on),
            self.test("a_killed_control_plane_loses_nothing", crashes::a_killed_control_plane_loses_nothing),
            self.test("a_killed_envoys_lease_is_charged", crashes::a_killed_envoys_lease_is_charged),
            self.test("certificates_are_renewed_under_load", certificates::certificates_are_renewed_under_load),
            self.test("keys_are_nowhere_to_be_seen", secrets::keys_are_nowhere_to_be_seen),
            self.test("changes_act_without_a_drop", reload::changes_act_without_a_drop),
            self.test("a_broken_file_changes_nothing", reload::a_broken_file_changes_nothing),
            self.test("the_whole_example_runs", commands::the_whole_example_runs),
            self.test("validate_finds_mistakes", commands::validate_finds_mistakes),
            self.test("translate_shows_everything_but_secrets", commands::translate_shows_everything_but_secrets),
            self.test("a_new_key_works", commands::a_new_key_works),
            self.test("usage_prints_what_the_api_says", commands::usage_prints_what_the_api_says),
            self.test("the_help_teaches", commands::the_help_teaches),
            self.test("a_stop_is_clean", commands::a_stop_is_clean),
            self.test(
                "an_unknown_consumer_is_refused_from_the_start",
                commands::an_unknown_consumer_is_refused_from_the_start,
            ),
        ]
    }

    fn test<F>(&self, name: &str, body: impl FnOnce(Arc<Shared>) -> F + Send + 'static) -> Trial
    where
        F: Future<Output = anyhow::Result<()>> + Send,
    {
        let (shared, handle) = (self.shared.clone(), self.runtime.handle().clone());
        Trial::test(name, move || {
            let shared = shared.ok_or_else(|| Failed::from("nothing was started"))?;
            handle.block_on(body(shared)).map_err(|error| Failed::from(format!("{error:#}")))
        })
    }
}
