//! Values as LiteLLM takes them: written out, or named as `os.environ/NAME`; and credentials that several models share.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::objects::Shown;
use crate::terms::SecretText;

use super::Environment;
use super::notes::Notes;
use super::section::Section;

/// A key: where it stands, and never shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Environment(String),
    Literal(SecretText),
}

const PREFIX: &str = "os.environ/";

/// `credential_list`: values for models that name them by `litellm_credential_name`.
pub(super) type Credentials = BTreeMap<String, Map<String, Value>>;

// === impl Key ===

impl Key {
    /// The key in a field; None where there is none or it cannot be used.
    pub(super) fn take(section: &mut Section, field: &str, notes: &mut Notes) -> Option<Self> {
        let text = section.text(field, notes)?;
        match text.strip_prefix(PREFIX) {
            Some(name) => variable(name, &section.at(field), notes).map(Self::Environment),
            None if text.trim().is_empty() => None,
            None => Some(Self::Literal(SecretText::new(text))),
        }
    }
}

/// The name of a variable of the environment.
fn variable(name: &str, path: &str, notes: &mut Notes) -> Option<String> {
    let is_name = |name: &str| {
        (1..=128).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !name.starts_with(|first: char| first.is_ascii_digit())
    };
    if is_name(name) {
        return Some(name.to_owned());
    }
    notes.invalid(path, format_args!("{} is no name of a variable", Shown(name)), "os.environ/NAME");
    None
}

/// A text that is no secret. A variable is read now, because our objects have no place for its name.
pub(super) fn text(section: &mut Section, field: &str, environment: Environment<'_>, notes: &mut Notes) -> Given {
    let path = section.at(field);
    let Some(text) = section.text(field, notes) else { return Given::Nothing };
    let Some(name) = text.strip_prefix(PREFIX) else { return Given::Text(text) };
    let Some(name) = variable(name, &path, notes) else { return Given::Unknown };
    match environment(&name) {
        Some(text) => {
            let message = format!("the value that {name} has now was taken");
            notes.told(&path, message, "our objects name variables of the environment for secrets only");
            Given::Text(text)
        }
        None => {
            let message =
                format!("{name} is not set, and our objects name variables of the environment for secrets only");
            notes.lost(&path, message, format_args!("set {name} and import again"));
            Given::Unknown
        }
    }
}

/// What a field says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    Nothing,
    Text(String),
    /// A value that nobody knows here.
    Unknown,
}

pub(super) fn credentials(root: &mut Section, notes: &mut Notes) -> Credentials {
    let mut credentials = Credentials::new();
    for (path, value) in root.list("credential_list", notes) {
        let mut section = Section::of(path, value, notes);
        let name = section.text("credential_name", notes);
        let values = section.take("credential_values");
        // What people note about it.
        section.take("credential_info");
        match (name, values) {
            (Some(name), Some(Value::Object(values))) => {
                credentials.insert(name, values);
            }
            _ => notes.invalid(section.path(), "a credential has a credential_name and credential_values", ""),
        }
        section.leave(&[], notes);
    }
    credentials
}
