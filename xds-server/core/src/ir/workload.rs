//! A workload of the mesh, as its sidecars see it in one direction.

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::status::Origin;

use super::Catalog;

#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The Service by which it is called.
    pub origin: Origin,
    /// Its classes have no pool: a request goes where it would go without us.
    pub catalog: Catalog,
}

// === impl Workload ===

impl Serialize for Workload {
    /// A Gateway's classes stand in its routes. A workload has no routes, so here they are told.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Workload", 3)?;
        fields.serialize_field("origin", &self.origin)?;
        fields.serialize_field("scope", &self.catalog.scope)?;
        fields.serialize_field("classes", &self.catalog.classes)?;
        fields.end()
    }
}
