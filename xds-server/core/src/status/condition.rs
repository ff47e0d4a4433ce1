//! The conditions of the Gateway API. Each is about one question, and has a verdict with its reason.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ConditionType {
    /// It is valid in itself and is acted on.
    Accepted,
    /// Everything that it refers to is there and may be used.
    ResolvedRefs,
    /// Of a listener: another one stands in its way.
    Conflicted,
    /// A part of it is not in force, and the rest is.
    PartiallyInvalid,
    /// Proxies work by it.
    Programmed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    True,
    False,
    Unknown,
}

// === impl ConditionType ===

impl ConditionType {
    /// The verdict when all is well.
    pub fn good(self) -> Verdict {
        match self {
            Self::Accepted | Self::ResolvedRefs | Self::Programmed => Verdict::True,
            Self::Conflicted | Self::PartiallyInvalid => Verdict::False,
        }
    }

    /// The verdict when something is wrong.
    pub fn bad(self) -> Verdict {
        match self {
            Self::Accepted | Self::ResolvedRefs | Self::Programmed => Verdict::False,
            Self::Conflicted | Self::PartiallyInvalid => Verdict::True,
        }
    }
}
