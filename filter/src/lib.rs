//! The filter inside Envoy, for one request after the other:
//!
//! ```text
//! config ─▶ key ─▶ model ─▶ budget ─▶ body ─▶ [backend] ─▶ usage ─▶ report
//!           401    404/403    429     400                 answer    ledger
//! ```
//!
//! - [`exchange`] is the state machine of one request; the modules beside it take one decision each:
//!   [`key`], [`model`], [`models`], [`budget`], [`body`], [`usage`], [`errors`], [`attempt`].
//! - [`report`] and [`table`] are the two conversations with the control plane: the ledger's calls and
//!   the delta xDS stream of keys. [`worker`] is what one worker keeps between requests.
//! - [`json`] reads JSON text, strictly and without a tree.
//! - [`config`] is the edge where configuration comes in, [`host`] says what is needed of Envoy.
//! - `envoy` exists on wasm32 alone: callbacks become events, effects become host calls.
//!
//! All but `envoy` is pure and tested natively.

pub mod attempt;
pub mod body;
pub mod budget;
pub mod config;
pub mod counters;
pub mod errors;
pub mod exchange;
#[cfg(test)]
mod fixture;
pub mod host;
pub mod json;
pub mod key;
pub mod model;
pub mod models;
pub mod path;
pub mod report;
pub mod roll;
pub mod root;
pub mod stream;
pub mod table;
pub mod usage;
pub mod worker;

#[cfg(target_arch = "wasm32")]
mod envoy;
