//! To be written.

use crate::{ir::Ir, objects::Objects, status::Finding};

/// What a set of objects means, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Translation {
    pub ir: Ir,
    /// Sorted; errors refuse the object or part they are on and nothing else.
    pub findings: Vec<Finding>,
}

/// Objects to IR. Never fails: what is invalid is left out and reported.
pub fn translate(_objects: &Objects) -> Translation {
    Translation::default()
}
