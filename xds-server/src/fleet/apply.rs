//! Writes one object, and takes one away.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::core::ObjectMeta;
use tollgate_core::fleet::{FleetKind, MANAGED_BY, Wanted};
use tollgate_core::objects::{GATEWAY_GROUP, Gateway, Key, Object, redact};

use super::owned::{Owned, resource};
use crate::leader::{Warnings, Writes};
use crate::report::Metrics;

/// Whose fields ours are (server-side apply).
const MANAGER: &str = "tollgate";

pub struct Applier {
    client: Client,
    warnings: Warnings,
    writes: Writes,
    /// What was told of each Gateway last.
    told: BTreeMap<Key, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(
        "{kind} {name} is somebody else's: it has no label app.kubernetes.io/managed-by: tollgate (rename it or the Gateway)"
    )]
    Taken { kind: &'static str, name: Key },
    #[error("{kind} {name} may not be written (the provisioning role, manifests/rbac): {message}")]
    Denied { kind: &'static str, name: Key, message: String },
    #[error("{kind} {name} cannot be written: {message}")]
    Fails { kind: &'static str, name: Key, message: String },
}

// === impl Applier ===

impl Applier {
    pub fn new(client: Client, metrics: &Metrics) -> Self {
        let writes = Writes::new(metrics, Writes::FLEET);
        let warnings = Warnings::new(client.clone());
        Self { client, warnings, writes, told: BTreeMap::new() }
    }

    pub async fn apply(&self, wanted: &Wanted, owned: &Owned) -> Result<(), Trouble> {
        let name = wanted.key();
        let api = self.api(wanted.kind, &name.namespace);
        // What has our label was seen. Anything else of this name was there before us.
        if !owned.has(wanted.kind, &name.namespace, &name.name)
            && let Some(there) =
                api.get_metadata_opt(&name.name).await.map_err(|error| self.trouble(wanted.kind, &name, &error))?
            && !is_ours(&there.metadata)
        {
            return Err(Trouble::Taken { kind: wanted.kind.name(), name });
        }
        let how = PatchParams::apply(MANAGER).force();
        let result = api.patch(&name.name, &how, &Patch::Apply(&wanted.document)).await;
        let result = result.map(drop).map_err(|error| self.trouble(wanted.kind, &name, &error));
        self.writes.count(result.is_ok());
        result
    }

    pub async fn delete(&self, kind: FleetKind, namespace: &str, name: &str) -> Result<(), Trouble> {
        let result = self.api(kind, namespace).delete(name, &DeleteParams::background()).await;
        let key = Key::new(namespace, name);
        match result {
            Ok(_) => {
                self.writes.count(true);
                tracing::info!("{} {key} is not needed any more and is deleted", kind.name());
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => {
                self.writes.count(false);
                Err(self.trouble(kind, &key, &error))
            }
        }
    }

    /// Tells the operator and the Gateway's author, once while it is the same.
    pub async fn tell(&mut self, gateway: &Object<Gateway>, trouble: &Trouble) {
        let (key, text) = (gateway.meta.key(), trouble.to_string());
        if self.told.get(&key) == Some(&text) {
            return;
        }
        tracing::error!("Gateway {key} gets no proxies: {text} (it is tried again)");
        self.told.insert(key, text.clone());
        let about = ObjectReference {
            api_version: Some(format!("{GATEWAY_GROUP}/v1")),
            kind: Some("Gateway".to_owned()),
            namespace: Some(gateway.meta.namespace().to_owned()),
            name: Some(gateway.meta.name().to_owned()),
            uid: gateway.meta.provenance.cluster().map(|version| version.uid.to_string()),
            ..ObjectReference::default()
        };
        self.warnings.warn(&about, "Provide", "ProxiesNotProvided".to_owned(), text).await;
    }

    fn api(&self, kind: FleetKind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource(kind))
    }

    fn trouble(&self, kind: FleetKind, name: &Key, error: &kube::Error) -> Trouble {
        let (kind, name, message) = (kind.name(), name.clone(), redact::plain(&error.to_string()));
        match error {
            kube::Error::Api(status) if status.code == 403 => Trouble::Denied { kind, name, message },
            _ => Trouble::Fails { kind, name, message },
        }
    }
}

/// Whether an object has the label of those that a control plane keeps.
pub fn is_ours(metadata: &ObjectMeta) -> bool {
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY.0));
    label.is_some_and(|value| value == MANAGED_BY.1)
}
