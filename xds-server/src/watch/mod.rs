//! The first stage: reads the configuration, for now from files. What comes out is `core::objects`.
//!
//! ```text
//! files.rs (something changed) -> folder.rs (read what changed, keep the last good of what is broken) -> Objects, findings
//!                                      \-> last_good.rs (the same for the next start)
//! ```

pub mod files;
pub mod folder;
mod last_good;
mod print;
mod secrets;
