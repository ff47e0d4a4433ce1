//! Several replicas of a control plane that are one to proxies and to people. All of them serve proxies. The one that holds
//! the Lease, the leader, has the ledger, and hears what the proxies of all of them say.
//!
//! ```text
//!                     ┌─ Here:    the embedded ledger, in the folder that all replicas share
//! proxies ─▶ Books ───┼─ There:   remote.rs ──── Sync, Usage, Budgets ────▶ service.rs of the leader
//!              │      └─ Nowhere: calls are to be sent again
//!              └─ books.rs follows the Lease
//! board ◀─▶ link.rs ◀──────────── Reports (reports.rs) ───────────────▶ service.rs ◀─▶ board of the leader
//! ```
//! Never are there two ledgers: whoever has the file holds a lock on it, and the kernel gives a lock back when its process
//! ends. A leader that stands still keeps the lock. Then nobody has the ledger until it goes on, and sees that another one
//! leads, or is ended by its liveness probe. Proxies go on with their leases meanwhile.

mod books;
mod link;
mod plots;
mod remote;
mod reports;
mod rows;
mod service;

pub use books::{Books, Follow, Keeper};
pub use link::Link;
pub use reports::Build;
pub use service::router;
