//! Configurations that several tests start from.

use tollgate_tests::client::Client;
use tollgate_tests::config::{self, Target};
use tollgate_tests::envoy_admin::EnvoyAdmin;
use tollgate_tests::gateway::{RunningGateway, Setup};
use tollgate_tests::tap::Tap;

use crate::suite::Shared;

/// The key of the consumer `app`. Words only: the check for planted keys looks for random ones.
pub const APP_KEY: &str = "the-key-of-the-consumer-app";

/// What the backend calls the model that clients know as `smol`.
pub const BACKEND_MODEL: &str = "smollm2-135m";

/// One model `smol` on one recorded backend `runner`, one consumer `app`.
pub struct Basic {
    pub gateway: RunningGateway,
    pub tap: Tap,
}

// === impl Basic ===

impl Basic {
    pub async fn start(shared: &Shared, test: &str) -> anyhow::Result<Self> {
        Self::start_with(shared, test, |setup, _| Ok(setup)).await
    }

    /// The same with what the test adds.
    pub async fn start_with(
        shared: &Shared,
        test: &str,
        add: impl FnOnce(Setup, &Tap) -> anyhow::Result<Setup>,
    ) -> anyhow::Result<Self> {
        let tap = shared.tap().await?;
        let setup = shared.setup(test)?;
        let entry = config::entry(setup.port());
        let setup = setup
            .file("entry.yaml", &entry)?
            .file("models.yaml", &models(&tap))?
            .file("app.yaml", &config::consumer("app", APP_KEY, ""))?;
        let gateway = add(setup, &tap)?.start().await?;
        Ok(Self { gateway, tap })
    }

    pub fn client(&self) -> Client {
        self.gateway.client(APP_KEY)
    }
}

/// The pool with the model `smol`, and its backend.
pub fn models(tap: &Tap) -> String {
    models_with(tap, "Required", &[("smol", &[Target::new("runner").model(BACKEND_MODEL)], None)])
}

/// A pool with these models, and the backend `runner`.
pub fn models_with(tap: &Tap, access: &str, models: &[(&str, &[Target<'_>], Option<u32>)]) -> String {
    config::documents(&[config::pool(access, models), config::backend("runner", "OpenAI", tap.port(), "")])
}

/// What Envoy counts when listeners change.
#[derive(Debug, PartialEq, Eq)]
pub struct Drains {
    modified: u64,
    in_place: u64,
    added: u64,
    removed: u64,
    draining: u64,
    chains_draining: u64,
}

// === impl Drains ===

impl Drains {
    pub fn of(envoy: &EnvoyAdmin) -> anyhow::Result<Self> {
        let stat = |name: &str| envoy.stat(&format!("listener_manager.{name}"));
        Ok(Self {
            modified: stat("listener_modified")?,
            in_place: stat("listener_in_place_updated")?,
            added: stat("listener_added")?,
            removed: stat("listener_removed")?,
            draining: stat("total_listeners_draining")?,
            chains_draining: stat("total_filter_chains_draining")?,
        })
    }
}
