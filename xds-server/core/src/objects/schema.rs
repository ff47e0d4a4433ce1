//! The schemas of our kinds, from the types that documents are read as. Only what writes manifests/crds needs them, so that
//! the shipped binary has none of it (feature `schema`).

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::consumer::ConsumerWire;
use super::model_backend::ModelBackendWire;
use super::model_pool::ModelPoolWire;
use super::proxy_parameters::ProxyParametersWire;
use super::token_policy::TokenPolicyWire;

/// Each kind with the schema of its `spec`, as OpenAPI without references.
pub fn schemas() -> [(&'static str, Schema); 5] {
    [
        ("ModelPool", schema::<ModelPoolWire>()),
        ("ModelBackend", schema::<ModelBackendWire>()),
        ("Consumer", schema::<ConsumerWire>()),
        ("TokenPolicy", schema::<TokenPolicyWire>()),
        ("ProxyParameters", schema::<ProxyParametersWire>()),
    ]
}

fn schema<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>()
}

/// What stands in it is not looked at yet.
pub fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A text or an object. A structural schema has no such type, so its values are bounded instead.
pub fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-preserve-unknown-fields": true,
        "anyOf": [
            {"enum": ["Total", "Input", "Output"]},
            {"required": ["expression"], "maxLength": 0, "minimum": 1, "maximum": 0},
        ],
    })
}
