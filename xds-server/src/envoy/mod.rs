//! An Envoy of our own, for `tollgate run`. `bootstrap.rs` is for Envoys that are started elsewhere as well.
//!
//! ```text
//! bootstrap.rs     what Envoy is started with
//! overload.rs      what it does when memory or connections run short
//! memory.rs        how much of the machine's memory it may have
//! admin_socket.rs  where its admin API listens
//! find.rs          where its binary is
//! process.rs       the process: started, adopted, restarted, stopped
//! detach.rs        a process that is nobody's child
//! life.rs          whether such a process still runs, and its end
//! admin.rs         its admin API: drain, requests in flight
//! log.rs           its log, passed on
//! access_log.rs    the access log, passed on
//! version.rs       which version it is
//! ```
//! Envoy outlives a control plane that is killed: it goes on with what it has, and the next run adopts it.

pub mod access_log;
pub mod admin;
pub mod admin_socket;
pub mod bootstrap;
pub mod detach;
pub mod find;
mod life;
mod log;
pub mod memory;
mod overload;
pub mod process;
pub mod version;
