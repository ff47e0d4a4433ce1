//! What a limit on tokens is made of, in the words of TokenPolicy.

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
