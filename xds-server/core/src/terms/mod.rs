//! Words that objects, IR, resources and the ledger share. They know nothing of each other's stages.

mod budget;
mod collector;
mod domain;
pub mod duration;
mod key;
pub mod names;
pub mod redact;
mod resource_type;
mod secret_text;

pub use budget::{
    CalendarUnit, InvalidThresholds, Mode, OnEarlyEnd, OnLedgerUnavailable, ScopePart, Thresholds, Window,
};
pub use collector::{Collector, Security};
pub use domain::Domain;
pub use key::Key;
pub use resource_type::ResourceType;
pub use secret_text::SecretText;
