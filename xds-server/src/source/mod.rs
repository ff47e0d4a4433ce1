//! The first stage: where the configuration comes from, as objects (`core::objects`). For now it is a folder.

pub mod folder;
