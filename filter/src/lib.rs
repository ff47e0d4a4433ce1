//! The filter inside Envoy, for one request after the other:
//!
//! ```text
//! headers ─▶ key ─▶ body ─▶ model ─▶ budget ─▶ attempt 1 [─▶ attempt 2] ─▶ usage ─▶ settle
//!            401    400/413  404/403   429       503
//! ```
//!
//! - [`exchange`] is the state machine of one request. The modules beside it take one decision each:
//!   [`path`], [`key`], [`jwt`], [`body`], [`model`], [`models`], [`budget`], [`attempt`], [`usage`], [`errors`].
//! - [`root`] is the state machine of what belongs to no request. It has two conversations with the control plane:
//!   [`report`] makes the calls to the ledger, [`table`] keeps the keys from a delta xDS stream.
//! - [`worker`] is what one worker keeps between requests: [`slices`] its own part of busy budgets, [`sources`] the
//!   connections of each address, [`counters`] its metrics. By the [`roll`] workers notice that another one has died.
//! - [`stream`] says Envoy's callbacks in the words of the core; [`headers`] are as Envoy has them.
//! - [`json`] reads JSON text, strictly and without a tree.
//! - [`config`] is the edge where configuration comes in. [`host`] says what is needed of Envoy.
//! - `envoy` exists on wasm32 alone. It passes callbacks in and carries out what comes back.
//!
//! All but `envoy` is pure and tested natively. docs/ARCHITECTURE.md has a glossary.

pub mod attempt;
pub mod body;
pub mod budget;
pub mod config;
pub mod counters;
pub mod errors;
pub mod exchange;
#[cfg(test)]
mod fixture;
mod handover;
pub mod headers;
pub mod host;
pub mod json;
pub mod jwt;
pub mod key;
pub mod model;
pub mod models;
pub mod path;
pub mod report;
pub mod roll;
pub mod root;
pub mod route_name;
pub mod slices;
pub mod sources;
pub mod stream;
pub mod table;
pub mod usage;
pub mod worker;

#[cfg(target_arch = "wasm32")]
mod envoy;
