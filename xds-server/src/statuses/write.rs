//! Writes one status: read the object, put ours in, and write only if nobody wrote in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, Resource as _, ResourceExt as _};
use serde_json::json;
use tollgate_core::objects::{places, redact};
use tollgate_core::status::StatusKind;
use tollgate_core::written::{Alarm, Print, Wanted};

use crate::leader::Warnings;
use crate::report::Whose;

/// So often it is read again because somebody else wrote in between. After that it waits.
const TRIES: usize = 4;

#[derive(Clone)]
pub struct Writer {
    client: Client,
    warnings: Warnings,
    resources: BTreeMap<StatusKind, ApiResource>,
    /// What was told of each kind.
    told: BTreeMap<StatusKind, Trouble>,
}

#[derive(Debug)]
pub enum Outcome {
    Written(Print),
    /// It said so already.
    SaysSo(Print),
    Gone,
    /// It is another object of the same name, of which nothing is known yet.
    Newer,
    Fails(Trouble),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    Denied,
    Conflict,
    Other(String),
}

// === impl Writer ===

impl Writer {
    pub fn new(client: Client) -> Self {
        let resource = |kind: StatusKind| {
            let place = places().find(|place| place.kind == kind.name())?;
            let version = place.versions.first()?;
            Some((kind, ApiResource::from_gvk(&GroupVersionKind::gvk(place.group, version, place.kind))))
        };
        let resources = StatusKind::ALL.into_iter().filter_map(resource).collect();
        let warnings = Warnings::new(client.clone());
        Self { client, warnings, resources, told: BTreeMap::new() }
    }

    pub async fn write(&self, (kind, key): &Whose, wanted: Wanted) -> Outcome {
        let Some(resource) = self.resources.get(kind) else { return Outcome::Gone };
        let client = self.client.clone();
        let api: Api<DynamicObject> = match &*key.namespace {
            "" => Api::all_with(client, resource),
            namespace => Api::namespaced_with(client, namespace, resource),
        };
        for _ in 0..TRIES {
            let object = match api.get(&key.name).await {
                Ok(object) => object,
                Err(error) if code(&error) == Some(404) => return Outcome::Gone,
                Err(error) => return Outcome::Fails(Trouble::from(&error)),
            };
            if !wanted.is_about(object.metadata.generation) {
                return Outcome::Newer;
            }
            let current = object.data.get("status");
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let Some(status) = wanted.clone().into_status(current, &now) else {
                return Outcome::SaysSo(Print::of(*kind, current));
            };
            let metadata = json!({ "uid": object.uid(), "resourceVersion": object.resource_version() });
            let patch = Patch::Merge(json!({ "metadata": metadata, "status": status }));
            match api.patch_status(&key.name, &PatchParams::default(), &patch).await {
                Ok(written) => {
                    self.alert(&object.object_ref(resource), wanted.alarms(current)).await;
                    return Outcome::Written(Print::of(*kind, written.data.get("status")));
                }
                Err(error) if code(&error) == Some(409) => {}
                Err(error) if code(&error) == Some(404) => return Outcome::Gone,
                Err(error) => return Outcome::Fails(Trouble::from(&error)),
            }
        }
        Outcome::Fails(Trouble::Conflict)
    }

    async fn alert(&self, object: &ObjectReference, alarms: BTreeSet<Alarm>) {
        for Alarm { reason, message } in alarms {
            self.warnings.warn(object, "Judge", reason, message).await;
        }
    }

    /// Tells the operator, once while it is the same for a kind.
    pub fn tell(&mut self, (kind, key): &Whose, trouble: &Trouble) {
        if self.told.get(kind) == Some(trouble) {
            return;
        }
        self.told.insert(*kind, trouble.clone());
        let resource = self.resources.get(kind);
        let resource = resource.map_or_else(String::new, |found| format!("{}.{}", found.plural, found.group));
        let (kind, resource_status) = (kind.name(), resource.replacen('.', "/status.", 1));
        match trouble {
            Trouble::Denied => tracing::error!(
                "the status of {kind} {key} may not be written (a role with get of {resource} and patch of \
                 {resource_status}; the statuses stay as they are)"
            ),
            other => tracing::warn!("the status of {kind} {key} cannot be written: {other} (it is tried again)"),
        }
    }
}

// === impl Trouble ===

impl From<&kube::Error> for Trouble {
    fn from(error: &kube::Error) -> Self {
        match code(error) {
            Some(403) => Self::Denied,
            _ => Self::Other(redact::plain(&error.to_string())),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("it is forbidden"),
            Self::Conflict => f.write_str("somebody else writes it all the time"),
            Self::Other(error) => f.write_str(error),
        }
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
