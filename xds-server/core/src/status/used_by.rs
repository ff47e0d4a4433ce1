//! Who uses an object. A status names the first of them and counts all, so it has a bound, and one more user of a busy
//! object changes a number.

use serde::Serialize;

use super::ObjectRef;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UsedBy {
    pub total: usize,
    /// The first of them, in order of their names.
    pub objects: Vec<ObjectRef>,
}

/// The backends that a ModelPool names, each once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BackendCount {
    pub total: usize,
    /// Those that can be used and have an endpoint that takes requests, as far as the objects say.
    pub ready: usize,
}

// === impl UsedBy ===

impl UsedBy {
    /// The Gateway API allows a policy as many ancestors (PolicyStatus.ancestors).
    pub const NAMED: usize = 16;
}
