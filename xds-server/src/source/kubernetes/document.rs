//! One object as the API server gives it. Whatever it says, it never keeps a list or a watch from going on: nothing of it
//! must fit anything here, and what does not fit is a finding of the core about this object.

use std::borrow::Cow;

use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tollgate_core::objects::Key;

#[derive(Clone)]
pub struct Document {
    /// What a watch must know: the name and the version.
    meta: ObjectMeta,
    value: Value,
}

// === impl Document ===

impl Document {
    pub fn key(&self) -> Key {
        key(&self.meta)
    }

    /// The items of a list do not say of which kind they are.
    pub fn into_value(self, resource: &ApiResource) -> Value {
        let mut value = self.value;
        if let Value::Object(body) = &mut value {
            body.insert("apiVersion".to_owned(), Value::String(resource.api_version.clone()));
            body.insert("kind".to_owned(), Value::String(resource.kind.clone()));
        }
        value
    }
}

/// Of kinds without a namespace the key has none.
pub fn key(meta: &ObjectMeta) -> Key {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
    Key::new(text(&meta.namespace), text(&meta.name))
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
        let meta = metadata.map(|metadata| {
            // They are most of what a cluster says of an object, and a page has many objects.
            metadata.shift_remove("managedFields");
            metadata.shift_remove("annotations");
            let text = |name: &str| metadata.get(name).and_then(Value::as_str).map(str::to_owned);
            ObjectMeta {
                name: text("name"),
                namespace: text("namespace"),
                resource_version: text("resourceVersion"),
                ..ObjectMeta::default()
            }
        });
        Ok(Self { meta: meta.unwrap_or_default(), value })
    }
}

impl std::fmt::Debug for Document {
    /// It may be a Secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}]", self.key())
    }
}

impl Resource for Document {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.kind)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.group)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.version)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.plural)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use kube::core::GroupVersionKind;
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_an_object_says_it_can_be_taken() {
        for odd in [json!({}), json!(5), json!({"metadata": 5}), json!({"metadata": {"labels": 5, "name": []}})] {
            let document: Document = serde_json::from_value(odd).unwrap();
            assert_eq!(document.key(), Key::new("", ""));
        }
    }

    #[test]
    fn it_says_of_which_kind_it_is_and_not_who_wrote_what() {
        let given =
            json!({"metadata": {"name": "n", "namespace": "a", "managedFields": [1], "annotations": {"x": "y"}}});
        let document: Document = serde_json::from_value(given).unwrap();
        assert_eq!(document.key(), Key::new("a", "n"));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("tollgate.dev", "v1alpha1", "ModelPool"));
        assert_eq!(
            document.into_value(&resource),
            json!({"metadata": {"name": "n", "namespace": "a"}, "apiVersion": "tollgate.dev/v1alpha1", "kind": "ModelPool"})
        );
    }
}
