//! Where an object comes from: a document of a file, or a cluster. Each has what the other does not.
//!
//! What is done for files alone (lines, the last good version on disk, "the first one is used") asks for the
//! [`FileVersion`], which an object of a cluster does not have.

use std::sync::Arc;

use crate::status::Spot;

use super::decode::Strictness;
use super::lines::Lines;
use super::source::Source;

#[derive(Debug, Clone)]
pub enum Provenance {
    File(FileVersion),
    Cluster(ClusterVersion),
}

/// One version of an object, as a file has it.
#[derive(Debug, Clone)]
pub struct FileVersion {
    pub path: Arc<str>,
    pub lines: Lines,
    pub source: Source,
    /// Unix seconds when this version of it was read first.
    pub since: i64,
}

/// One version of an object, as a cluster has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterVersion {
    /// Another object of the same name has another one.
    pub uid: Arc<str>,
    pub resource_version: Arc<str>,
    /// It counts the versions of the specification. Some kinds have none, for example Secrets.
    pub generation: Option<i64>,
    /// The newest generation that was looked at. It is another than `generation` if that one is refused and this version
    /// stays in force.
    pub observed: Option<i64>,
}

// === impl Provenance ===

impl Provenance {
    /// None: it is of a cluster.
    pub fn file(&self) -> Option<&FileVersion> {
        match self {
            Self::File(version) => Some(version),
            Self::Cluster(_) => None,
        }
    }

    /// None: it is of a file.
    pub fn cluster(&self) -> Option<&ClusterVersion> {
        match self {
            Self::File(_) => None,
            Self::Cluster(version) => Some(version),
        }
    }

    /// Where a field of it stands. An object of a cluster stands in no file.
    pub fn spot(&self, field: &str) -> Option<Spot> {
        self.file().map(|version| version.spot(field))
    }

    /// What its status says that it is about.
    pub fn observed_generation(&self) -> Option<i64> {
        self.cluster()?.observed
    }

    /// For files nobody else says that a field is not known. A cluster may be newer than we are.
    pub fn strictness(&self) -> Strictness {
        match self {
            Self::File(_) => Strictness::Strict,
            Self::Cluster(_) => Strictness::Lenient,
        }
    }
}

// === impl ClusterVersion ===

impl ClusterVersion {
    /// Whether both have the same specification. A new generation comes with every change of a specification, and none
    /// with a change of a status.
    pub fn is_the_same(&self, other: &Self) -> bool {
        let is_generation = self.observed.is_some() && self.observed == other.observed;
        let is_object = !self.uid.is_empty() && self.uid == other.uid;
        is_object && (is_generation || self.resource_version == other.resource_version)
    }
}

// === impl FileVersion ===

impl FileVersion {
    pub fn spot(&self, field: &str) -> Spot {
        Spot { file: self.path.to_string(), line: self.lines.of(field) }
    }

    pub(super) fn stands_where(&self, other: &Self) -> bool {
        self.path == other.path && self.lines == other.lines
    }
}
