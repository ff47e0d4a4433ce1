//! Secret: credentials, from a cluster, from the folder itself or, on laptops, from a file or the environment.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde::Deserialize;

use crate::terms::SecretText;

use super::check::Check;
use super::redact::Shown;

/// Values by key. Debug shows the keys only.
#[derive(Debug, Clone, Default)]
pub struct Secret {
    pub values: BTreeMap<String, SecretText>,
}

/// Where `file:` and `env:` references of Secrets are read; the edge has the real one.
pub trait SecretSource {
    /// # Errors
    /// Why it cannot be read, for the user.
    fn file(&self, path: &str) -> Result<String, String>;
    /// # Errors
    /// Why it cannot be read, for the user.
    fn env(&self, name: &str) -> Result<String, String>;
}

/// Where nothing can be read: for documents that are not of this machine, and in tests.
#[derive(Debug, Clone, Copy)]
pub struct NoSecretSource;

impl SecretSource for NoSecretSource {
    fn file(&self, _: &str) -> Result<String, String> {
        Err("no files".to_owned())
    }

    fn env(&self, _: &str) -> Result<String, String> {
        Err("no environment".to_owned())
    }
}

/// A Kubernetes Secret and two fields for laptops.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretWire {
    #[serde(default)]
    data: BTreeMap<String, ByteString>,
    #[serde(default)]
    string_data: BTreeMap<String, String>,
    /// Key -> path of the file that holds the value.
    #[serde(default)]
    file: BTreeMap<String, String>,
    /// Key -> name of the environment variable that holds the value.
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(rename = "type")]
    _type: Option<String>,
    #[serde(rename = "immutable")]
    _immutable: Option<bool>,
}

/// A Secret as a cluster has it. It leads to no file and no variable, whatever else it says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSecretWire {
    #[serde(default)]
    data: BTreeMap<String, ByteString>,
}

/// What is not text is nothing that we use, and no reason to do without the rest.
pub fn cluster_secret(wire: ClusterSecretWire) -> Secret {
    let mut values = BTreeMap::new();
    for (key, bytes) in wire.data {
        if let Ok(text) = String::from_utf8(bytes.0) {
            add(&mut values, key, &text);
        }
    }
    Secret { values }
}

/// A value that cannot be read refuses the Secret, so that a version that was good stays in use.
pub fn secret(wire: SecretWire, source: &dyn SecretSource, check: &mut Check<'_>) -> Option<Secret> {
    let mut values = BTreeMap::new();
    for (key, bytes) in wire.data {
        match String::from_utf8(bytes.0) {
            Ok(text) => add(&mut values, key, &text),
            Err(_) => check.error(format_args!("data.{key}"), "the value is not UTF-8 text", ""),
        }
    }
    // As in Kubernetes, stringData wins over data.
    for (key, text) in wire.string_data {
        add(&mut values, key, &text);
    }
    for (key, path) in wire.file {
        match source.file(&path) {
            Ok(text) => add(&mut values, key, &text),
            Err(error) => check.error(
                format_args!("file.{key}"),
                format_args!("{} cannot be read: {error}", Shown(&path)),
                "relative paths start at the configuration's folder",
            ),
        }
    }
    for (key, name) in wire.env {
        match source.env(&name) {
            Ok(text) => add(&mut values, key, &text),
            Err(error) => check.error(
                format_args!("env.{key}"),
                format_args!("environment variable {} cannot be read: {error}", Shown(&name)),
                "",
            ),
        }
    }
    Some(Secret { values })
}

/// Editors and `echo` end files with a newline that no key has.
fn add(values: &mut BTreeMap<String, SecretText>, key: String, text: &str) {
    values.insert(key, SecretText::new(text.trim_end_matches(['\n', '\r'])));
}
