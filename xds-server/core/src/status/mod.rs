//! What is wrong, and on which object: findings of parsing and translation, and refusals of Envoys.
//!
//! In files a finding ends as one line with file, line, field and hint; in Kubernetes as a condition. Its reason says of
//! which condition.

mod condition;
mod finding;
mod origin;
mod reason;

pub use condition::{ConditionType, Verdict};
pub use finding::{Finding, Severity};
pub use origin::{Origin, Spot, display_name};
pub use reason::Reason;
