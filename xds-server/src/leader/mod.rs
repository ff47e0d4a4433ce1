//! Which of several control planes does what only one may do: have the ledger, write statuses, and provide proxies. They
//! agree by a Lease. And what the last two have in common: they count what they write, and warn by events.

mod agenda;
mod elector;
mod lease;
mod warnings;
mod writes;

pub use agenda::Agenda;
#[cfg(test)]
pub use elector::gauge;
pub use elector::{Election, Elector, Holder, Leads, LeasePlace};
pub use warnings::Warnings;
pub use writes::Writes;
