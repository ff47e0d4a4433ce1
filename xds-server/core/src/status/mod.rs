//! What is wrong, and on which object: findings of parsing and translation, and refusals of Envoys.
//!
//! In files a finding ends as one line with file, line, field and hint; in Kubernetes as a condition. Its reason says of
//! which condition.

mod carriers;
mod condition;
mod definitions;
mod finding;
mod keys;
mod object;
mod origin;
mod proxies;
mod reason;
mod spent;
mod used_by;

pub use carriers::{Membership, heard_as, pod_of};
pub use condition::{Condition, ConditionType, Conditions, Verdict};
pub use definitions::{BUNDLE_VERSION, DEFINITION, Definitions};
pub use finding::{Finding, Severity};
pub use keys::{Horizon, KeyEnd, Phase, coarse};
pub use object::{
    Address, AddressKind, AncestorStatus, Brief, ListenerStatus, ObjectRef, ObjectStatus, ParentStatus, RouteKind,
    Status, StatusKind,
};
pub use origin::{Origin, Spot, display_name};
pub use proxies::{Heard, Refusal, Said};
pub use reason::Reason;
pub use spent::{Patience, Say, Spent, date_of};
pub use used_by::{BackendCount, UsedBy};
