//! ConfigMaps: certificates of authorities are in them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::check::Check;

/// Texts by key.
#[derive(Debug, Clone, Default)]
pub struct ConfigMap {
    pub values: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapWire {
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(rename = "binaryData")]
    _binary_data: Option<Value>,
    #[serde(rename = "immutable")]
    _immutable: Option<bool>,
}

pub fn config_map(wire: ConfigMapWire, _: &mut Check<'_>) -> Option<ConfigMap> {
    Some(ConfigMap { values: wire.data })
}
