//! The models of the ModelPool: deployments of one name are targets of one model, and the targets of the models that follow
//! it when it fails come after them.

use std::collections::{BTreeMap, BTreeSet};

use crate::objects::{Schema, Shown};

use super::deployment::{Deployment, Deployments, Pattern};
use super::notes::Notes;
use super::settings::Router;
use super::weights::weights;

/// A model that clients may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) targets: Vec<Target>,
    pub(super) retries: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Its place among the backends.
    pub(super) backend: usize,
    /// None: as asked.
    pub(super) model: Option<String>,
    pub(super) weight: u32,
    pub(super) priority: u32,
}

const MAX_TARGETS: usize = 32;
const MAX_RETRIES: u64 = 10;
/// The definition of ModelPools in Kubernetes takes no more.
const MAX_MODELS: usize = 128;

pub(super) fn models(deployments: &Deployments, router: &Router, notes: &mut Notes) -> Vec<Model> {
    let pool = Pool::new(deployments);
    let mut models: Vec<Model> = Vec::new();
    for name in &pool.names {
        match name {
            Pattern::Exact(name) => models.extend(pool.model(name, name, router, notes)),
            Pattern::Prefix(prefix) => models.extend(pool.wildcard(prefix, router, notes)),
        }
    }
    // What only a wildcard names may have a fallback of its own.
    for (name, fallback) in &router.fallbacks.of {
        let is_there = match Pattern::parse(name) {
            Some(Pattern::Exact(name)) => pool.exact.contains_key(name.as_str()),
            Some(Pattern::Prefix(prefix)) => pool.prefixes.contains_key(prefix.as_str()),
            None => false,
        };
        if is_there || router.aliases.iter().any(|alias| alias.name == *name) {
            continue;
        }
        let is_name = matches!(Pattern::parse(name), Some(Pattern::Exact(_)));
        match is_name.then(|| pool.model(name, name, router, notes)).flatten() {
            Some(model) => models.push(model),
            None => notes.lost(&fallback.path, format_args!("no model {} is left", Shown(name)), ""),
        }
    }
    for alias in &router.aliases {
        if Pattern::parse(&alias.name) != Some(Pattern::Exact(alias.name.clone())) {
            notes.lost(&alias.path, "an alias that is no name of a model", "");
        } else if models.iter().any(|model| model.name == alias.name) {
            notes.lost(&alias.path, "the alias has the name of a model, which is kept", "remove one of them");
        } else {
            match pool.model(&alias.model, &alias.name, router, notes) {
                Some(model) => models.push(model),
                None => notes.lost(&alias.path, format_args!("no model {} is left", Shown(&alias.model)), ""),
            }
        }
    }
    if models.len() > MAX_MODELS {
        let message = format!("{} models: in Kubernetes a ModelPool has at most {MAX_MODELS}", models.len());
        notes.told("model_list", message, "a folder takes them; for a cluster make several pools and routes");
    }
    models
}

/// The deployments by the names of their models.
struct Pool<'d> {
    /// In the order of the file.
    names: Vec<&'d Pattern>,
    exact: BTreeMap<&'d str, Vec<&'d Deployment>>,
    prefixes: BTreeMap<&'d str, Vec<&'d Deployment>>,
}

// === impl Pool ===

impl<'d> Pool<'d> {
    fn new(deployments: &'d Deployments) -> Self {
        let mut pool = Self { names: Vec::new(), exact: BTreeMap::new(), prefixes: BTreeMap::new() };
        let mut seen = BTreeSet::new();
        for deployment in &deployments.list {
            if seen.insert(&deployment.name) {
                pool.names.push(&deployment.name);
            }
            let group = match &deployment.name {
                Pattern::Exact(name) => pool.exact.entry(name).or_default(),
                Pattern::Prefix(prefix) => pool.prefixes.entry(prefix).or_default(),
            };
            group.push(deployment);
        }
        pool
    }

    /// The deployments of a model: those of its name, else those of the longest wildcard that fits. None: what is asked for,
    /// or what a backend would be asked for, is no name of a model.
    fn group(&self, name: &str) -> Option<Vec<&'d Deployment>> {
        let is_name = |name: &str| matches!(Pattern::parse(name), Some(Pattern::Exact(_)));
        if !is_name(name) {
            return None;
        }
        let fitting = || self.prefixes.iter().filter(|(prefix, _)| name.starts_with(**prefix));
        let longest = || fitting().max_by_key(|(prefix, _)| prefix.len()).map(|(_, group)| group);
        let group = self.exact.get(name).or_else(longest)?;
        let called = |deployment: &Deployment| deployment.called(name).is_some_and(|called| is_name(&called));
        let group: Vec<_> = group.iter().copied().filter(|deployment| called(deployment)).collect();
        (!group.is_empty()).then_some(group)
    }

    /// The model `name` as clients ask for it by `asked`.
    fn model(&self, name: &str, asked: &str, router: &Router, notes: &mut Notes) -> Option<Model> {
        let group = self.group(name)?;
        let schema = group.first()?.schema;
        let mut targets = Vec::new();
        for rank in ranks(&of_schema(&group, schema, notes)) {
            add(&mut targets, &rank, |deployment| deployment.called(name).filter(|called| called != asked));
        }
        self.fall_back(name, asked, schema, &mut targets, router, notes);
        let retries = retries(&group, &targets, router, notes);
        cut(&mut targets, &group, notes);
        Some(Model { name: asked.to_owned(), targets, retries })
    }

    /// The models of a wildcard. The backend is asked by the client's name, so it must be the one that LiteLLM makes of it.
    fn wildcard(&self, prefix: &str, router: &Router, notes: &mut Notes) -> Vec<Model> {
        let group = self.prefixes.get(prefix).map(Vec::as_slice).unwrap_or_default();
        let is_as_asked = |upstream: &Pattern| matches!(upstream, Pattern::Prefix(other) if other == prefix);
        let (kept, renamed): (Vec<&Deployment>, Vec<&Deployment>) = group.iter().partition(|deployment| {
            matches!(deployment.upstream, Pattern::Exact(_)) || is_as_asked(&deployment.upstream)
        });
        let mut models = Vec::new();
        for deployment in &renamed {
            let families = self.families(deployment);
            let hint = match families.as_slice() {
                [] => "list the models by their names",
                _ => "clients ask by the name without it, as LiteLLM allows too; or list the models by their names",
            };
            let message = format!("a target cannot take {} off a name, as the backend needs it", Shown(prefix));
            notes.lost(&format!("{}.model_name", deployment.path), message, hint);
        }
        if let Some(first) = kept.first() {
            models.extend(self.prefixed(prefix, &of_schema(&kept, first.schema, notes), router, notes));
        } else if let Some(first) = renamed.first() {
            let same = of_schema(&renamed, first.schema, notes);
            for family in self.families(first) {
                models.extend(self.prefixed(family, &same, router, notes));
            }
        }
        models
    }

    /// The beginnings of names by which LiteLLM finds `provider/*` as well.
    fn families(&self, deployment: &Deployment) -> Vec<&'static str> {
        let is_all = matches!(&deployment.upstream, Pattern::Prefix(rest) if rest.is_empty());
        let is_free = |family: &&&str| !self.prefixes.contains_key(**family);
        if is_all
            && matches!(&deployment.name, Pattern::Prefix(prefix) if prefix == "openai/" || prefix == "anthropic/")
        {
            deployment.families.iter().filter(is_free).copied().collect()
        } else {
            Vec::new()
        }
    }

    fn prefixed(&self, prefix: &str, group: &[&Deployment], router: &Router, notes: &mut Notes) -> Option<Model> {
        let schema = group.first()?.schema;
        let mut targets = Vec::new();
        for rank in ranks(group) {
            add(&mut targets, &rank, |deployment| match &deployment.upstream {
                Pattern::Exact(name) => Some(name.clone()),
                Pattern::Prefix(_) => None,
            });
        }
        let name = format!("{prefix}*");
        self.fall_back(&name, &name, schema, &mut targets, router, notes);
        let retries = retries(group, &targets, router, notes);
        cut(&mut targets, group, notes);
        Some(Model { name, targets, retries })
    }

    /// Adds the targets of the models that follow this one.
    fn fall_back(
        &self,
        name: &str,
        asked: &str,
        schema: Schema,
        targets: &mut Vec<Target>,
        router: &Router,
        notes: &mut Notes,
    ) {
        for next in router.after(name) {
            let alias = router.aliases.iter().find(|alias| alias.name == next.model);
            let next_name = alias.map_or(next.model.as_str(), |alias| alias.model.as_str());
            let Some(group) = self.group(next_name) else {
                notes.lost(&next.path, format_args!("no model {} is left", Shown(&next.model)), "");
                continue;
            };
            let same: Vec<&Deployment> =
                group.iter().copied().filter(|deployment| speaks_as(deployment.schema, schema)).collect();
            if same.is_empty() {
                let message = format!("{} speaks another API than {}", Shown(&next.model), Shown(asked));
                notes.lost(&next.path, message, "requests are not translated: clients fall back by themselves");
            }
            for rank in ranks(&same) {
                add(targets, &rank, |deployment| deployment.called(next_name).filter(|called| called != asked));
            }
        }
    }
}

/// Whether a request for one is one for the other.
fn speaks_as(schema: Schema, other: Schema) -> bool {
    (schema == Schema::Anthropic) == (other == Schema::Anthropic)
}

/// Those that speak as the first one does.
fn of_schema<'d>(group: &[&'d Deployment], schema: Schema, notes: &mut Notes) -> Vec<&'d Deployment> {
    let mut same = Vec::new();
    for deployment in group {
        if speaks_as(deployment.schema, schema) {
            same.push(*deployment);
        } else {
            let message = "it speaks another API than the entry of this model before it, and is left out";
            let hint = "requests are not translated: give it a model_name of its own";
            notes.lost(&format!("{}.litellm_params.model", deployment.path), message, hint);
        }
    }
    same
}

/// The deployments in the order in which they are tried. Those without an order are last.
fn ranks<'d>(group: &[&'d Deployment]) -> Vec<Vec<&'d Deployment>> {
    let mut ranks: BTreeMap<u64, Vec<&Deployment>> = BTreeMap::new();
    for deployment in group {
        ranks.entry(deployment.order.unwrap_or(u64::MAX)).or_default().push(*deployment);
    }
    ranks.into_values().collect()
}

/// Adds targets of the next priority. What would be asked for the same again is left out.
fn add(targets: &mut Vec<Target>, rank: &[&Deployment], called: impl Fn(&Deployment) -> Option<String>) {
    let priority = targets.last().map_or(0, |last| last.priority.saturating_add(1));
    let shares: Vec<_> = rank.iter().map(|deployment| deployment.share).collect();
    let before = targets.len();
    for (deployment, weight) in rank.iter().zip(weights(&shares)) {
        let model = called(deployment);
        let is_known = targets
            .iter()
            .take(before)
            .any(|target| target.backend == deployment.backend && target.model == model && target.weight > 0);
        if !is_known {
            targets.push(Target { backend: deployment.backend, model, weight, priority });
        }
    }
}

/// Attempts after the first: enough to come to the last target where some only take over.
fn retries(group: &[&Deployment], targets: &[Target], router: &Router, notes: &mut Notes) -> Option<u64> {
    let own = group.iter().filter_map(|deployment| deployment.retries).max();
    let wanted = own.or(router.retries)?;
    let others = u64::try_from(targets.len().saturating_sub(1)).unwrap_or(MAX_RETRIES);
    let takes_over = targets.iter().any(|target| target.priority > 0);
    let wanted = if takes_over { wanted.max(others) } else { wanted };
    if wanted > MAX_RETRIES
        && let Some(first) = group.first()
    {
        notes.told(
            &first.path,
            format_args!("{MAX_RETRIES} retries are taken in place of {wanted}"),
            "no model has more",
        );
    }
    Some(wanted.min(MAX_RETRIES))
}

fn cut(targets: &mut Vec<Target>, group: &[&Deployment], notes: &mut Notes) {
    if targets.len() > MAX_TARGETS
        && let Some(first) = group.first()
    {
        let message = format!("{} targets: a model has at most {MAX_TARGETS}, the others are left out", targets.len());
        notes.lost(&first.path, message, "an InferencePool or a Service is one target with many endpoints");
        targets.truncate(MAX_TARGETS);
    }
}
