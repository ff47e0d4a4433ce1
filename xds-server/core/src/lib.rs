//! The pure core of the control plane, in the order the data takes:
//!
//! ```text
//! files or Kubernetes -> objects -> translate -> ir -> envoy -> snapshot -> subscription (per Envoy)
//!                                      |                                        |
//!                                      +------------- status <-- ACK / NACK ----+
//! ledger: windows, leases and settlement as pure steps; the store and the clock are outside
//! ```
//!
//! Nothing here names tokio, tonic or a Kubernetes client. Text and messages come in, and values go out.

pub mod envoy;
pub mod files;
pub mod fleet;
pub mod ir;
pub mod istio;
pub mod ledger;
pub mod linkerd;
pub mod litellm;
pub mod mesh;
pub mod objects;
pub mod placement;
pub mod scope;
mod sets;
pub mod snapshot;
pub mod status;
pub mod subscription;
pub mod terms;
pub mod translate;
pub mod world;
pub mod written;
