//! What the control plane tells a filter and a filter tells the ledger, as generated messages.
//!
//! Generated from `policy.proto`, `ledger.proto`, `delta.proto` and (for servers) `replica.proto` at build time; the comments of the
//! fields are there. Both halves of Tollgate turn these into their own valid types at the edge.
#![allow(
    clippy::all,
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// The maps of the messages; build.rs says why there are two kinds.
#[cfg(not(target_arch = "wasm32"))]
pub type Map = std::collections::BTreeMap<String, String>;
#[cfg(target_arch = "wasm32")]
pub type Map = std::collections::HashMap<String, String>;

/// Policy and ledger messages, package `tollgate.v1`.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/tollgate.v1.rs"));

    /// Type URL of [`ApiKey`] as a delta xDS resource.
    pub const API_KEY_TYPE: &str = "type.googleapis.com/tollgate.v1.ApiKey";

    /// Bytes of the largest encoded [`SyncRequest`]: filters split before it, the ledger refuses what is larger.
    pub const MAX_CALL_BYTES: usize = 1 << 20;

    /// The most tokens of one kind in one answer. No model makes so many, so a larger figure is a mistake or an attack.
    pub const MAX_TOKENS: u64 = 1 << 40;

    /// The most requests in one [`Usage`], and the most estimated attempts. A worker hardly has so many in a minute.
    /// The tokens of so many fit into a `u64`.
    pub const MAX_ROW_REQUESTS: u64 = 1 << 20;
}

/// What replicas of a control plane tell each other, package `tollgate.replica`.
#[cfg(feature = "grpc")]
pub mod replica {
    include!(concat!(env!("OUT_DIR"), "/tollgate.replica.rs"));
}

/// The client's part of delta xDS, package `tollgate.delta`.
pub mod delta {
    include!(concat!(env!("OUT_DIR"), "/tollgate.delta.rs"));
}

pub mod jwt;
pub mod measures;

/// The compiled `FileDescriptorSet`, for printing messages by reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
