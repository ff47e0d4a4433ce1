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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRefWire {
    group: Option<String>,
    kind: Option<String>,
    name: String,
    namespace: Option<String>,
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
