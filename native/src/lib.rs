//! The filter as machine code inside Envoy: the second edge of `tollgate-filter`, over Envoy's ABI for dynamic modules.
//! Callbacks of Envoy's go to the core, and what the core orders is carried out. Nothing is decided here, as in the
//! other edge (`filter/src/envoy/`).
//!
//! ```text
//! Envoy ─ hooks ─▶ island of the thread: worker, streams, roots ─ core ─▶ host ─▶ Envoy
//!                     ▲
//!   main thread: ticks of roots, calls to the control plane (plugin, root)
//! ```
//! - [`abi`] is what we use of Envoy's ABI, and [`host`] the same as safe types. [`hooks`] are what Envoy calls.
//! - An [`island`] is what one thread of Envoy has of the core, behind a lock. [`stream`] is one stream of it.
//! - [`plugin`] is one configuration, in each place of Envoy that has it. [`root`] steps its roots, on the main thread,
//!   and [`grpc`] are the bytes of their calls.
//! - [`shared`] are the records that all threads of the process share. [`node`] is this Envoy's name. [`ticker`] gives the
//!   time.
//!
//! No panic leaves a hook. After one, the island where it happened starts anew, as a VM of the other edge would
//! (`docs/adr/0006-native-edge.md`).

mod abi;
mod grpc;
mod hooks;
mod host;
mod island;
mod node;
mod plugin;
mod root;
mod shared;
mod stream;
mod ticker;
