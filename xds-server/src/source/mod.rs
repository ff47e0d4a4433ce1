//! The first stage: where the configuration comes from, as objects (`core::objects`). It is a folder or a cluster.

pub mod folder;
pub mod kubernetes;

use std::path::PathBuf;

use self::kubernetes::Access;

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum Source {
    Folder(PathBuf),
    Kubernetes(Access),
}
