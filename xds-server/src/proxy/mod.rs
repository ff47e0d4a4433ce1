//! The proxy of a Gateway in a cluster: an Envoy, and what a Pod needs around it (`tollgate proxy`).
//!
//! ```text
//! token of the Pod -> certificate.rs -> files that Envoy watches -> Envoy -> status.rs (ready? metrics)
//! ```

pub mod certificate;
pub mod status;
