//! `model_list`: each entry is a deployment, which is a backend and the name that it knows the model by.

use std::collections::BTreeMap;

use crate::objects::{Schema, Shown};

use super::Environment;
use super::endpoint::Endpoint;
use super::given::{self, Credentials, Given, Key};
use super::known;
use super::names::Names;
use super::notes::Notes;
use super::provider::{self, Base, Named, Provider};
use super::secrets::{self, Secrets};
use super::section::Section;
use super::settings::Router;
use super::timeouts::Timeouts;
use super::weights::Share;

/// What LiteLLM has of a model.
#[derive(Debug)]
pub(super) struct Deployments {
    pub(super) list: Vec<Deployment>,
    pub(super) backends: Vec<Backend>,
}

/// One entry of `model_list`.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) path: String,
    pub(super) name: Pattern,
    /// What the backend calls it.
    pub(super) upstream: Pattern,
    /// Its place among the backends.
    pub(super) backend: usize,
    pub(super) schema: Schema,
    pub(super) families: &'static [&'static str],
    pub(super) share: Share,
    pub(super) order: Option<u64>,
    pub(super) retries: Option<u64>,
    /// Groups of models that keys may name.
    pub(super) groups: Vec<String>,
}

/// A name, or the beginning of names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pattern {
    Exact(String),
    Prefix(String),
}

/// What becomes a ModelBackend.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) of: BackendKey,
}

/// Deployments with the same are of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackendKey {
    pub(super) schema: Schema,
    pub(super) endpoint: Endpoint,
    /// The name of the Secret.
    pub(super) credential: Option<String>,
    pub(super) timeouts: Timeouts,
}

/// More models than any proxy has.
const MAX_DEPLOYMENTS: usize = 10_000;
/// The longest name of a model.
const MAX_NAME: usize = 256;
/// The API versions of Azure by which LiteLLM calls its v1 API.
const AZURE_V1: [&str; 3] = ["v1", "latest", "preview"];

// === impl Pattern ===

impl Pattern {
    /// None: LiteLLM has more of wildcards than we have, or the name is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_NAME || text.contains(char::is_control) {
            return None;
        }
        match text.strip_suffix('*') {
            Some(prefix) if !prefix.contains('*') => Some(Self::Prefix(prefix.to_owned())),
            None if !text.contains('*') => Some(Self::Exact(text.to_owned())),
            _ => None,
        }
    }

    /// As our objects and LiteLLM write it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Exact(name) => name.clone(),
            Self::Prefix(prefix) => format!("{prefix}*"),
        }
    }

    /// What follows the beginning, in a name that it fits.
    pub(super) fn rest<'n>(&self, name: &'n str) -> Option<&'n str> {
        match self {
            Self::Exact(exact) => (exact == name).then_some(""),
            Self::Prefix(prefix) => name.strip_prefix(prefix.as_str()),
        }
    }
}

// === impl Deployment ===

impl Deployment {
    /// What the backend calls a model that is asked for by this name.
    pub(super) fn called(&self, asked: &str) -> Option<String> {
        let rest = self.name.rest(asked)?;
        Some(match &self.upstream {
            Pattern::Exact(name) => name.clone(),
            Pattern::Prefix(prefix) => format!("{prefix}{rest}"),
        })
    }
}

/// Everything of `model_list`.
pub(super) fn all(
    root: &mut Section,
    credentials: &Credentials,
    router: &Router,
    environment: Environment<'_>,
    secrets: &mut Secrets,
    notes: &mut Notes,
) -> Deployments {
    if !root.has("model_list") {
        notes.invalid("", "there is no model_list", "this is to be the config.yaml of a LiteLLM proxy");
    }
    let mut reading =
        Reading { credentials, router, environment, secrets, backends: Vec::new(), names: Names::default() };
    let mut entries = root.list("model_list", notes);
    if entries.len() > MAX_DEPLOYMENTS {
        notes.lost("model_list", format_args!("more than {MAX_DEPLOYMENTS} entries: the others are left out"), "");
        entries.truncate(MAX_DEPLOYMENTS);
    }
    let mut list = Vec::new();
    for (path, value) in entries {
        list.extend(reading.deployment(Section::of(path, value, notes), notes));
    }
    Deployments { list, backends: reading.backends }
}

/// What the entries have in common.
struct Reading<'a> {
    credentials: &'a Credentials,
    router: &'a Router,
    environment: Environment<'a>,
    secrets: &'a mut Secrets,
    backends: Vec<Backend>,
    names: Names,
}

// === impl Reading ===

impl Reading<'_> {
    /// None: it is left out, and the notes say why.
    fn deployment(&mut self, mut entry: Section, notes: &mut Notes) -> Option<Deployment> {
        let name_path = entry.at("model_name");
        let name = entry.text("model_name", notes);
        let mut info = entry.section("model_info", notes);
        let mut params = entry.section("litellm_params", notes);
        let path = entry.path().to_owned();
        entry.leave(known::ENTRY, notes);

        let groups = info.texts("access_groups", notes).into_iter().map(|(_, group)| group).collect();
        let order_of_info = info.whole("order", notes);
        info.leave(known::MODEL_INFO, notes);

        self.fill(&mut params, notes);
        let share = Share {
            weight: params.number("weight", notes),
            rpm: self.limit(&mut params, "rpm", notes),
            tpm: self.limit(&mut params, "tpm", notes),
        };
        let order = params.whole("order", notes).or(order_of_info);
        let sdk_retries = params.whole("max_retries", notes);
        let retries = params.whole("num_retries", notes).or(sdk_retries);
        let timeouts = Timeouts::take(&mut params, notes).or(self.router.timeouts);

        let model_path = params.at("model");
        let model = params.text("model", notes);
        let explicit = params.text("custom_llm_provider", notes);
        let (Some(name), Some(model)) = (name, model) else {
            notes.invalid(&path, "an entry has a model_name, and a model in its litellm_params", "");
            return None;
        };
        let (provider, model) = match provider::of(&model, explicit.as_deref()) {
            (Named::Ours(provider), model) => (provider, model),
            (Named::Other(other), _) => {
                let message = format!("the API of {} has no schema here: the entry is left out", Shown(other));
                notes.lost(&model_path, message, provider::hint(other));
                return None;
            }
            (Named::Unknown, _) => {
                let message = format!("the provider of {} is not known: the entry is left out", Shown(&model));
                notes.lost(
                    &model_path,
                    message,
                    "write PROVIDER/MODEL; openai/MODEL for what has OpenAI's API at an api_base",
                );
                return None;
            }
        };
        let backend = self.backend(&mut params, provider, timeouts, notes);
        params.leave(known::PARAMS, notes);

        let upstream = provider::upstream(provider, model);
        let (Some(name), Some(upstream)) = (Pattern::parse(&name), Pattern::parse(&upstream)) else {
            let message = "a name of a model may have one `*`, at its end: the entry is left out";
            notes.lost(&name_path, message, "list the models by their names");
            return None;
        };
        if matches!((&name, &upstream), (Pattern::Exact(_), Pattern::Prefix(_))) {
            notes.invalid(&model_path, "a `*` that no `*` of model_name stands for: the entry is left out", "");
            return None;
        }
        let (schema, families) = (provider.schema, provider.families);
        if schema == Schema::Anthropic {
            let message =
                "only by Anthropic's API (/v1/messages): requests of OpenAI's are not translated, as LiteLLM does";
            notes.lost(&model_path, message, "the Anthropic SDK, or Claude Code, with this gateway as its base URL");
        }
        Some(Deployment { path, name, upstream, backend: backend?, schema, families, share, order, retries, groups })
    }

    /// Values of the credential that it names.
    fn fill(&self, params: &mut Section, notes: &mut Notes) {
        let Some(name) = params.text("litellm_credential_name", notes) else { return };
        match self.credentials.get(&name) {
            Some(values) => {
                for (field, value) in values {
                    params.fill(field, value.clone());
                }
            }
            None => notes.lost(
                &params.at("litellm_credential_name"),
                format_args!("{} is not in the credential_list", Shown(&name)),
                "credentials in LiteLLM's database are not read: give the api_key",
            ),
        }
    }

    /// `rpm` or `tpm`. By `simple-shuffle` LiteLLM only draws by it.
    fn limit(&self, params: &mut Section, field: &str, notes: &mut Notes) -> Option<f64> {
        let limit = params.number(field, notes)?;
        if self.router.shuffles {
            let message = "no limit, as by LiteLLM's simple-shuffle: the target's weight where none is given";
            notes.told(&params.at(field), message, "a TokenPolicy holds callers to tokens");
        } else {
            notes.lost(&params.at(field), "no backend has a limit of its own", "a TokenPolicy holds callers to tokens");
        }
        Some(limit)
    }

    /// The place of its backend. None: nobody knows where it is.
    fn backend(
        &mut self,
        params: &mut Section,
        provider: Provider,
        timeouts: Timeouts,
        notes: &mut Notes,
    ) -> Option<usize> {
        let base = match given::text(params, "api_base", self.environment, notes) {
            Given::Nothing => given::text(params, "base_url", self.environment, notes),
            given => given,
        };
        let version_path = params.at("api_version");
        let version = params.text("api_version", notes);
        if provider.schema == Schema::AzureOpenAI && version.is_some_and(|version| !AZURE_V1.contains(&&*version)) {
            let message = "not sent: Azure's v1 API (/openai/v1) is asked, which has no versions";
            notes.told(&version_path, message, "try the model once");
        }
        let key_path = params.at("api_key");
        let key = Key::take(params, "api_key", notes);

        let (Base::Whole(default) | Base::Before(_, default)) = provider.base;
        let base_path = params.at("api_base");
        let (base, is_elsewhere) = match (&base, default) {
            (Given::Text(base), _) => (base.as_str(), true),
            (Given::Nothing, Some(default)) => (default, false),
            (Given::Nothing, None) => {
                let message = format!("{} has no address: the entry is left out", Shown(provider.name));
                notes.lost(&base_path, message, "give an api_base");
                return None;
            }
            // It has been said.
            (Given::Unknown, _) => return None,
        };
        let endpoint = match Endpoint::parse(base, provider) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                notes.lost(&base_path, format_args!("{error}: the entry is left out"), error.hint());
                return None;
            }
        };
        let name = backend_name(provider, is_elsewhere.then_some(&endpoint));
        let key = match key {
            Some(key) if is_elsewhere && secrets::is_placeholder(&key) => {
                notes.told(&key_path, "it looks like no key: no credential is sent", "");
                None
            }
            None if !is_elsewhere => self.default_key(provider),
            None if !provider.variables.is_empty() => {
                let variable = provider.variables.first().copied().unwrap_or_default();
                let message = format!("there is none: no credential is sent, where LiteLLM would send {variable}");
                notes.told(&key_path, message, format_args!("write api_key: os.environ/{variable} if it is meant"));
                None
            }
            key => key,
        };
        let credential = key.map(|key| self.secrets.of(key, &name, &key_path, notes));
        let of = BackendKey { schema: provider.schema, endpoint, credential, timeouts };
        let known = self.backends.iter().position(|backend| backend.of == of);
        Some(known.unwrap_or_else(|| {
            self.backends.push(Backend { name: self.names.label(&name, "backend"), of });
            self.backends.len().saturating_sub(1)
        }))
    }

    /// The key of a provider at its usual place, from where LiteLLM takes it.
    fn default_key(&self, provider: Provider) -> Option<Key> {
        let is_set = |name: &&&str| (self.environment)(name).is_some();
        let variable = provider.variables.iter().find(is_set).or(provider.variables.first())?;
        Some(Key::Environment((*variable).to_owned()))
    }
}

/// The provider, and where it is if that is not the usual place.
fn backend_name(provider: Provider, elsewhere: Option<&Endpoint>) -> String {
    elsewhere.map_or_else(|| provider.name.to_owned(), |endpoint| format!("{}-{}", provider.name, endpoint.name()))
}

/// Which models are in which group that keys may name.
pub(super) fn groups(deployments: &Deployments) -> BTreeMap<&str, Vec<String>> {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for deployment in &deployments.list {
        for group in &deployment.groups {
            let models = groups.entry(group).or_default();
            let name = deployment.name.text();
            if !models.contains(&name) {
                models.push(name);
            }
        }
    }
    groups
}
