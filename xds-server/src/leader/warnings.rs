//! Events about objects, for what people must see.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder};
use tollgate_core::objects::CONTROLLER_NAME;

/// An event has a note of this length at most.
const NOTE: usize = 1024;

#[derive(Clone)]
pub struct Warnings(Recorder);

// === impl Warnings ===

impl Warnings {
    pub fn new(client: Client) -> Self {
        Self(Recorder::new(client, CONTROLLER_NAME.into()))
    }

    /// The log or the status says the same, so nothing is lost if an event is not taken. `action` is what was being done.
    pub async fn warn(&self, about: &ObjectReference, action: &str, reason: String, mut note: String) {
        note.truncate(note.floor_char_boundary(NOTE));
        let action = action.to_owned();
        let event = Event { type_: EventType::Warning, reason, note: Some(note), action, secondary: None };
        if let Err(error) = self.0.publish(&event, about).await {
            tracing::debug!(%error, "an event is not taken");
        }
    }
}
