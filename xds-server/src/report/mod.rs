//! What several stages write and one reads. It knows none of them.
//!
//! ```text
//! board.rs      what proxies have said        written by streams (`serve/ads.rs`), read for the status
//! due.rs        whose statuses to look at     written by `source/` and `pipeline/`, read by `statuses/`
//! last_used.rs  when consumers asked last     written by `ledger/`, read for the status
//! metrics.rs    what the stages have counted  read by `/metrics`
//! spent.rs      what they have spent today    the same
//! status.rs     how the control plane is      made by `serve/status.rs`, read by `admin/` and `tollgate run`
//! ```

pub mod board;
mod due;
mod last_used;
mod metrics;
mod spent;
mod status;

pub use due::{Due, Whose};
pub use last_used::LastUsed;
pub use metrics::{Certificate, Certificates, Consumers, Metrics};
pub use spent::SpentToday;
pub use status::{GatewayStatus, Listener, Nack, Objects, Proxy, Status};
