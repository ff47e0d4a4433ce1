//! `tollgate run`: control plane, ledger and an Envoy of its own on one machine.
//!
//! ```text
//! state_dir.rs  where everything of this run is kept, locked for one run at a time
//! bootstrap.rs  what Envoy is started with
//! overload.rs   what it does when memory or connections run short
//! memory.rs     how much of the machine's memory Envoy may have
//! admin_socket.rs  where its admin API listens
//! envoy.rs      Envoy as a process: started, adopted, restarted, stopped
//! detach.rs     a process that is nobody's child
//! envoy_admin.rs  its admin API: drain, requests in flight
//! envoy_log.rs  its log, passed on
//! ```
//! Envoy outlives a control plane that is killed: it goes on with what it has, and the next run adopts it.

pub mod admin_socket;
pub mod bootstrap;
pub mod detach;
pub mod envoy;
mod envoy_admin;
mod envoy_log;
pub mod memory;
mod overload;
pub mod state_dir;
