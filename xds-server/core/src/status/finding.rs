//! One thing that is wrong, for its author: a line with file, line, field and hint; in Kubernetes a part of a condition.

use std::fmt;

use serde::Serialize;

use super::{Origin, Reason, Spot};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object, or a part of it, is refused.
    Error,
    /// It works, but perhaps not as meant.
    Warning,
}

/// One thing to tell the user about the input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<Spot>,
    /// Dotted path, for example `spec.models[0].targets[1].weight`; empty for the whole object.
    pub field: String,
    pub message: String,
    /// What to do about it; empty when there is nothing to add.
    pub hint: String,
}

// === impl Finding ===

impl Finding {
    /// Which entry of a list it is about: 2 of `spec.rules` for `spec.rules[2].filters[0]`.
    pub fn entry_of(&self, list: &str) -> Option<usize> {
        let (index, _) = self.field.strip_prefix(list)?.strip_prefix('[')?.split_once(']')?;
        index.parse().ok()
    }

    /// What a condition says of it: `spec.x: message (hint)`
    pub fn text(&self) -> String {
        let field = if self.field.is_empty() { String::new() } else { format!("{}: ", self.field) };
        let hint = if self.hint.is_empty() { String::new() } else { format!(" ({})", self.hint) };
        format!("{field}{}{hint}", self.message)
    }

    /// The order in which people read: by file and line.
    pub fn by_spot(a: &Self, b: &Self) -> std::cmp::Ordering {
        (&a.spot, a).cmp(&(&b.spot, b))
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl fmt::Display for Finding {
    /// `file:line: error: HTTPRoute default/chat: spec.x: message (hint)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(spot) = &self.spot {
            write!(f, "{}:{}: ", spot.file, spot.line)?;
        }
        write!(f, "{}: ", self.severity)?;
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        f.write_str(&self.text())
    }
}
