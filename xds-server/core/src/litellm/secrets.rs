//! Secrets that name variables of the environment. A key that stands in LiteLLM's file is not copied: it gets a variable.

use std::collections::BTreeMap;

use crate::terms::SecretText;

use super::given::Key;
use super::names::Names;
use super::notes::Notes;

/// The Secrets that the other objects name.
#[derive(Debug)]
pub(super) struct Secrets {
    /// Variable -> name of the Secret.
    by_variable: BTreeMap<String, String>,
    /// Key -> variable.
    literals: BTreeMap<SecretText, String>,
    variables: Names,
    names: Names,
}

/// Keys that servers without any are given, because clients insist on one.
const PLACEHOLDERS: [&str; 10] =
    ["none", "null", "empty", "fake", "fake-key", "dummy", "not-needed", "no-key", "na", "placeholder"];

// === impl Secrets ===

impl Secrets {
    /// Every variable that the configuration names has its meaning already. Those that LiteLLM takes keys from by itself
    /// end with `_API_KEY` or `_TOKEN`, and ours with neither.
    pub(super) fn new(config: &str) -> Self {
        let mut variables = Names::default();
        for rest in config.split("os.environ/").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            variables.take(rest.get(..end).unwrap_or_default());
        }
        Self { by_variable: BTreeMap::new(), literals: BTreeMap::new(), variables, names: Names::default() }
    }

    /// The name of the Secret with this key.
    pub(super) fn of(&mut self, key: Key, whose: &str, field: &str, notes: &mut Notes) -> String {
        let variable = match key {
            Key::Environment(variable) => variable,
            Key::Literal(text) => match self.literals.get(&text) {
                Some(variable) => variable.clone(),
                None => {
                    let variable = self.variables.variable(&format!("{whose}-key"));
                    let message = format!("the key in the file is not copied: a Secret names the variable {variable}");
                    notes.told(field, message, format_args!("set {variable} to it where tollgate runs"));
                    self.literals.insert(text, variable.clone());
                    variable
                }
            },
        };
        let names = &mut self.names;
        self.by_variable.entry(variable).or_insert_with_key(|variable| names.label(variable, "key")).clone()
    }

    /// Name of the Secret and its variable.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_variable.iter().map(|(variable, name)| (name.as_str(), variable.as_str()))
    }
}

/// Whether this stands where there is no key.
pub(super) fn is_placeholder(key: &Key) -> bool {
    match key {
        Key::Environment(_) => false,
        Key::Literal(text) => PLACEHOLDERS.contains(&text.expose().trim().to_ascii_lowercase().as_str()),
    }
}
