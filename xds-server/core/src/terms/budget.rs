//! What a limit on tokens is made of, in the words of TokenPolicy.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::duration::duration_as_text;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Window {
    /// Fixed windows of this length from the UTC epoch.
    Fixed(#[serde(serialize_with = "duration_as_text")] Duration),
    /// Calendar windows; the time zone is an IANA name that was checked.
    Calendar { unit: CalendarUnit, time_zone: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CalendarUnit {
    Day,
    /// From Monday (ISO 8601).
    Week,
    Month,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ScopePart {
    Consumer,
    Model,
    Route,
    /// The value of this label of the Consumer.
    Label(String),
    /// The value of this claim of the JWT that Envoy has verified.
    Claim(String),
}

/// As TokenPolicies write it.
impl fmt::Display for ScopePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consumer => f.write_str("Consumer"),
            Self::Model => f.write_str("Model"),
            Self::Route => f.write_str("Route"),
            Self::Label(key) => write!(f, "Label/{key}"),
            Self::Claim(name) => write!(f, "Claim/{name}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Mode {
    Enforce,
    Shadow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum OnLedgerUnavailable {
    Deny,
    Allow,
}

/// What a client pays if it leaves before the usage is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum OnEarlyEnd {
    /// The estimate of its usage.
    Estimate,
    /// At least the whole reservation.
    Reservation,
}

/// At how much of its tokens a budget is told of, in percent: rising, each once. Nothing is refused because of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Thresholds(BTreeSet<u16>);

/// The list has something else than percentages of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidThresholds {
    #[error("{0} is not a percentage that a budget can come to")]
    OutOfRange(i64),
    #[error("{0} is listed twice")]
    Twice(i64),
    #[error("there are more than {} percentages", Thresholds::MOST)]
    TooMany,
}

// === impl Thresholds ===

impl Thresholds {
    pub const MOST: usize = 8;
    /// More than all of it can be spent: requests that run go on, and in Shadow mode nothing ends.
    pub const HIGHEST: u16 = 1000;

    /// # Errors
    /// When a number is not from 1 to 1000, or is there twice, or there are too many.
    pub fn new(percent: &[i64]) -> Result<Self, InvalidThresholds> {
        if percent.len() > Self::MOST {
            return Err(InvalidThresholds::TooMany);
        }
        let mut thresholds = BTreeSet::new();
        for number in percent {
            let in_range = u16::try_from(*number).ok().filter(|number| (1..=Self::HIGHEST).contains(number));
            if !thresholds.insert(in_range.ok_or(InvalidThresholds::OutOfRange(*number))?) {
                return Err(InvalidThresholds::Twice(*number));
            }
        }
        Ok(Self(thresholds))
    }

    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().copied()
    }

    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self([80, 100].into())
    }
}
