//! A Consumer of a cluster, whose keys are changed: read it, change the list, and write only if nobody wrote in between.

use std::fmt;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, Status};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tollgate_core::objects::key_list::{KeyList, UnusableKeys};
use tollgate_core::objects::redact;

use super::{Whose, consumer};
use crate::causes;
use crate::source::kubernetes::{Access, AccessError};

/// So often it is read again because somebody else wrote in between.
const TRIES: usize = 5;
/// No request takes longer.
const REQUEST: Duration = Duration::from_secs(15);
/// Who wrote a field, as `kubectl --show-managed-fields` names it.
const MANAGER: &str = "tollgate-key";

/// One Consumer, whether it is there or not.
pub struct Consumers {
    api: Api<DynamicObject>,
    resource: ApiResource,
    namespace: String,
    name: String,
}

/// What to do if the Consumer is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Make,
    Refuse,
}

/// What was written.
pub struct Done {
    pub made: bool,
    pub list: KeyList,
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("Consumer {consumer}: {error}")]
    Keys { consumer: String, error: UnusableKeys },
    #[error("there is no Consumer {0} (tollgate key new --apply makes it; --namespace names another namespace)")]
    NoConsumer(String),
    #[error(
        "the cluster has no Consumers (install Tollgate's definitions: kubectl apply -f manifests/crds, or the Helm chart)"
    )]
    NoDefinition,
    #[error("there is no namespace {0} (kubectl create namespace {0}, or --namespace names another one)")]
    NoNamespace(String),
    #[error(
        "{verb} of consumers.tollgate.dev is forbidden in namespace {namespace}: {message} (a role with get, create and patch of them)"
    )]
    Forbidden { verb: &'static str, namespace: String, message: String },
    #[error(
        "the API server does not know who asks: {0} (the credentials of the kubeconfig; --kube-context names another context)"
    )]
    Unauthorized(String),
    #[error("Consumer {0}: somebody else writes it all the time (try again)")]
    Conflict(String),
    #[error("Consumer {consumer} is refused: {message}")]
    Refused { consumer: String, message: String },
    #[error("the API server cannot be asked: {0}")]
    Unreachable(String),
}

// === impl Consumers ===

impl Consumers {
    /// # Errors
    /// When it is not known which cluster, or who we are there.
    pub async fn of(access: &Access, whose: &Whose) -> Result<Self, ApplyError> {
        let reach = access.reach(Some(REQUEST)).await?;
        let namespace = whose.namespace.clone().unwrap_or(reach.namespace);
        Ok(Self::new(reach.client, namespace, whose.consumer.clone()))
    }

    fn new(client: Client, namespace: String, name: String) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("tollgate.dev", "v1alpha1", "Consumer"));
        let api = Api::namespaced_with(client, &namespace, &resource);
        Self { api, resource, namespace, name }
    }

    /// Changes the list of keys. `change` is asked again whenever somebody else wrote in between.
    ///
    /// # Errors
    /// When nothing was written, and what to do about it.
    pub async fn change(
        &self,
        missing: Missing,
        change: impl Fn(Option<&Value>) -> Result<KeyList, UnusableKeys>,
    ) -> Result<Done, ApplyError> {
        for _ in 0..TRIES {
            let current = self.get().await?;
            let keys = current.as_ref().and_then(|object| object.data.pointer("/spec/keys"));
            let list = change(keys).map_err(|error| ApplyError::Keys { consumer: self.to_string(), error })?;
            let made = current.is_none();
            let written = match current {
                Some(object) => self.patch(&object, &list).await,
                None if missing == Missing::Refuse => return Err(ApplyError::NoConsumer(self.to_string())),
                None => self.create(&list).await,
            };
            match written {
                Ok(()) => return Ok(Done { made, list }),
                Err(ApplyError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ApplyError::Conflict(self.to_string()))
    }

    async fn get(&self) -> Result<Option<DynamicObject>, ApplyError> {
        match self.api.get(&self.name).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if names_object(&status) => Ok(None),
            Err(error) => Err(self.error("get", &error)),
        }
    }

    async fn create(&self, list: &KeyList) -> Result<(), ApplyError> {
        let mut object = DynamicObject::new(&self.name, &self.resource).within(&self.namespace);
        let spec = consumer(&self.name, &self.namespace, &list.keys).get("spec").cloned();
        object.data = json!({"spec": spec});
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let result = self.api.create(&params, &object).await;
        result.map(drop).map_err(|error| self.error("create", &error))
    }

    async fn patch(&self, object: &DynamicObject, list: &KeyList) -> Result<(), ApplyError> {
        let metadata = json!({"uid": object.uid(), "resourceVersion": object.resource_version()});
        let patch = Patch::Merge(json!({"metadata": metadata, "spec": {"keys": list.keys}}));
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let result = self.api.patch(&self.name, &params, &patch).await;
        result.map(drop).map_err(|error| self.error("patch", &error))
    }

    fn error(&self, verb: &'static str, error: &kube::Error) -> ApplyError {
        let kube::Error::Api(status) = error else {
            return ApplyError::Unreachable(redact::scrub(&causes::of(error)));
        };
        let message = redact::scrub(status.message.trim());
        let is_about = |kind: &str| status.details.as_ref().is_some_and(|details| details.kind == kind);
        match status.code {
            401 => ApplyError::Unauthorized(message),
            403 => ApplyError::Forbidden { verb, namespace: self.namespace.clone(), message },
            404 if is_about("namespaces") => ApplyError::NoNamespace(self.namespace.clone()),
            // It is gone since it was read.
            404 if names_object(status) => ApplyError::Conflict(self.to_string()),
            404 => ApplyError::NoDefinition,
            409 => ApplyError::Conflict(self.to_string()),
            _ => ApplyError::Refused { consumer: self.to_string(), message },
        }
    }
}

impl fmt::Display for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether an object is missing, and not the kind of object.
fn names_object(status: &Status) -> bool {
    status.code == 404 && status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}
