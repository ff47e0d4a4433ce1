//! A reference to one key of a Secret, as several kinds have it.

use serde::Deserialize;

use super::check::Check;
use super::redact::Shown;

/// One key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRef {
    pub namespace: Option<String>,
    pub name: String,
    pub key: String,
}

/// One key of a Secret.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "(!has(self.group) || self.group == '') && (!has(self.kind) || self.kind == 'Secret')", "message": "only kind Secret of the core group"}])))]
pub struct SecretRefWire {
    /// The core group, which is empty.
    #[cfg_attr(feature = "schema", schemars(length(max = 253)))]
    group: Option<String>,
    /// Default: Secret.
    #[cfg_attr(feature = "schema", schemars(length(max = 63)))]
    kind: Option<String>,
    /// The name of the Secret.
    #[cfg_attr(
        feature = "schema",
        schemars(
            regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$"),
            length(max = 253)
        )
    )]
    name: String,
    /// Default: the namespace of the object. Another one needs a ReferenceGrant.
    #[cfg_attr(feature = "schema", schemars(length(max = 253)))]
    namespace: Option<String>,
    /// Which key of the Secret. Default: apiKey for keys and credentials, ca.crt for authorities.
    #[cfg_attr(feature = "schema", schemars(length(max = 253)))]
    key: Option<String>,
}

// === impl SecretRefWire ===

impl SecretRefWire {
    pub fn parse(self, field: &str, default_key: &str, check: &mut Check<'_>) -> SecretRef {
        let (group, kind) = (self.group.as_deref().unwrap_or(""), self.kind.as_deref().unwrap_or("Secret"));
        if (group, kind) != ("", "Secret") {
            check.error(
                field,
                format_args!("cannot refer to {} of group {}", Shown(kind), Shown(group)),
                "only kind Secret of the core group",
            );
        }
        check.name(format_args!("{field}.name"), &self.name);
        SecretRef {
            namespace: self.namespace,
            name: self.name,
            key: self.key.unwrap_or_else(|| default_key.to_owned()),
        }
    }
}
