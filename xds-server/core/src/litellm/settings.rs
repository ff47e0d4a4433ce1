//! `router_settings`, `litellm_settings` and `general_settings`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::objects::Shown;

use super::given::Key;
use super::known;
use super::notes::Notes;
use super::section::{Section, is_off, numbered};
use super::timeouts::{Timeouts, duration};

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) router: Router,
    pub(super) master_key: Option<Key>,
}

/// How LiteLLM chooses among deployments and models.
#[derive(Debug, Default)]
pub(super) struct Router {
    pub(super) fallbacks: Fallbacks,
    pub(super) aliases: Vec<Alias>,
    pub(super) retries: Option<u64>,
    pub(super) timeouts: Timeouts,
    /// Whether it draws by weights.
    pub(super) shuffles: bool,
    pub(super) most_fallbacks: usize,
}

/// Which models follow a model that fails.
#[derive(Debug, Default)]
pub(super) struct Fallbacks {
    pub(super) of: BTreeMap<String, Fallback>,
    /// Of all models that have none of their own.
    pub(super) of_others: Vec<Named>,
}

#[derive(Debug, Clone)]
pub(super) struct Fallback {
    pub(super) path: String,
    pub(super) models: Vec<Named>,
}

/// The name of a model, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) path: String,
    pub(super) model: String,
}

/// Another name of a model.
#[derive(Debug)]
pub(super) struct Alias {
    pub(super) path: String,
    pub(super) name: String,
    pub(super) model: String,
}

/// As many as LiteLLM tries by default.
const MOST_FALLBACKS: u64 = 5;
/// A model has no more targets.
const MAX_FALLBACKS: usize = 32;

pub(super) fn settings(root: &mut Section, has_keys: bool, notes: &mut Notes) -> Settings {
    let mut router = root.section("router_settings", notes);
    let mut litellm = root.section("litellm_settings", notes);
    let mut general = root.section("general_settings", notes);

    // What stands in both counts as the router's.
    let of_router = Fallbacks::take(&mut router, notes);
    let of_litellm = Fallbacks::take(&mut litellm, notes);
    let fallbacks = of_router.or(of_litellm);
    let retries = router.whole("num_retries", notes);
    let retries = retries.or(litellm.whole("num_retries", notes));
    let most_fallbacks = router.whole("max_fallbacks", notes);
    let most_fallbacks = most_fallbacks.or(litellm.whole("max_fallbacks", notes)).unwrap_or(MOST_FALLBACKS);
    let request_timeout = duration(&mut litellm, "request_timeout", notes);
    let timeouts = Timeouts::take(&mut router, notes).or(Timeouts { timeout: request_timeout, stream: None });
    let shuffles = strategy(&mut router, notes);
    let aliases = aliases(&mut router, notes);
    router.leave(known::ROUTER, notes);
    litellm.leave(known::LITELLM, notes);

    let master_key = Key::take(&mut general, "master_key", notes);
    if has_keys {
        // They have been exported.
        general.take("database_url");
    }
    general.leave(known::GENERAL, notes);
    variables(root, notes);
    let most_fallbacks = usize::try_from(most_fallbacks).unwrap_or(MAX_FALLBACKS).min(MAX_FALLBACKS);
    Settings { router: Router { fallbacks, aliases, retries, timeouts, shuffles, most_fallbacks }, master_key }
}

// === impl Fallbacks ===

impl Fallbacks {
    fn take(section: &mut Section, notes: &mut Notes) -> Self {
        let mut fallbacks = Self::default();
        for (path, value) in section.list("fallbacks", notes) {
            let Value::Object(entry) = value else {
                notes.invalid(&path, "not a map from a model to those that follow it", "- {gpt-4o: [gpt-4o-mini]}");
                continue;
            };
            for (model, names) in entry {
                let path = format!("{path}.{model}");
                let models = models(&path, names, notes);
                match model.as_str() {
                    "*" => fallbacks.of_others = models,
                    _ => drop(fallbacks.of.insert(model, Fallback { path, models })),
                }
            }
        }
        if let Some(names) = section.take("default_fallbacks").filter(|names| !is_off(names)) {
            fallbacks.of_others = models(&section.at("default_fallbacks"), names, notes);
        }
        fallbacks
    }

    fn or(self, other: Self) -> Self {
        Self {
            of: if self.of.is_empty() { other.of } else { self.of },
            of_others: if self.of_others.is_empty() { other.of_others } else { self.of_others },
        }
    }
}

fn models(path: &str, names: Value, notes: &mut Notes) -> Vec<Named> {
    let Value::Array(names) = names else {
        notes.invalid(path, "not a list of models", "");
        return Vec::new();
    };
    let mut models = Vec::new();
    for (path, name) in numbered(path, names) {
        match name {
            Value::String(model) => models.push(Named { path, model }),
            _ => notes.lost(&path, "a fallback that changes the request", "the name of a model alone"),
        }
    }
    models
}

fn strategy(router: &mut Section, notes: &mut Notes) -> bool {
    let path = router.at("routing_strategy");
    match router.text("routing_strategy", notes) {
        None => true,
        Some(strategy) if strategy == "simple-shuffle" => true,
        Some(strategy) => {
            let message = format!("{} is not done: targets are drawn by their weights", Shown(&strategy));
            notes.lost(&path, message, "weights and order hold; affinity: PromptPrefix keeps prompts at one runner");
            false
        }
    }
}

fn aliases(router: &mut Section, notes: &mut Notes) -> Vec<Alias> {
    let section = router.section("model_group_alias", notes);
    let mut aliases = Vec::new();
    for (path, value) in section.rest() {
        // Names of models may have dots.
        let name = path.strip_prefix("router_settings.model_group_alias.").unwrap_or(&path).to_owned();
        let model = match value {
            Value::String(model) => Some(model),
            value @ Value::Object(_) => {
                let mut section = Section::of(path.clone(), value, notes);
                let model = section.text("model", notes);
                if section.flag("hidden") {
                    notes.told(&path, "the alias is listed in /v1/models as other models are", "");
                }
                section.leave(&[], notes);
                model
            }
            _ => None,
        };
        match model {
            Some(model) => aliases.push(Alias { path, name, model }),
            None => notes.invalid(&path, "an alias is the name of a model", ""),
        }
    }
    aliases
}

/// `environment_variables`: LiteLLM puts them into its own environment.
fn variables(root: &mut Section, notes: &mut Notes) {
    for (path, _) in root.section("environment_variables", notes).rest() {
        notes.told(&path, "not copied", "set it where tollgate runs, if a Secret names it");
    }
}
