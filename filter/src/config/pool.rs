//! Which models there are, and the backends that serve them.

use std::rc::Rc;

use tollgate_proto::v1 as wire;

use super::{InvalidConfig, at, named};

#[derive(Debug)]
pub struct Pool {
    pub access: Access,
    pub consumers: Namespaces,
    /// The models in the order of the configuration.
    pub models: Vec<Rc<Model>>,
    /// How often Envoy's route to the pool tries again, unless a request says otherwise.
    pub most_retries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Required,
    Anonymous,
}

/// Whose Consumers count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    All,
    Only(Vec<String>),
}

#[derive(Debug)]
pub struct Model {
    pub name: ModelName,
    /// In usage rows and scopes.
    pub counts_as: Rc<str>,
    pub targets: Vec<Target>,
    pub retries: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelName {
    Exact(Rc<str>),
    /// Without the trailing `*`.
    Prefix(Rc<str>),
}

#[derive(Debug)]
pub struct Target {
    pub backend: Rc<Backend>,
    /// What the backend calls the model. None: as the client asked.
    pub model: Option<Rc<str>>,
    pub weight: u32,
    pub priority: u32,
}

#[derive(Debug, Clone)]
pub struct Backend {
    pub name: Rc<str>,
    pub cluster: Rc<str>,
    pub path_prefix: String,
    pub authority: String,
    pub rewrite: Rewrite,
    /// Its sidecar is told what a request is charged to.
    pub hands_over: bool,
}

/// Who turns a request into the backend's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrite {
    /// The downstream filter, once.
    Once,
    /// The upstream filter, for each attempt.
    PerAttempt,
    /// The downstream filter, by headers: Istio's route leads where one of them says.
    ByHeaders,
    /// Nobody. It goes where it would go without the filter.
    Nobody,
}

// === impl Pool ===

impl Namespaces {
    pub fn contain(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|name| name == namespace),
        }
    }
}

impl Pool {
    pub(super) fn new(pool: wire::Pool, backends: &[Rc<Backend>]) -> Result<Self, InvalidConfig> {
        let access = match pool.access() {
            wire::Access::Required => Access::Required,
            wire::Access::Anonymous => Access::Anonymous,
            wire::Access::Unspecified => {
                return Err(InvalidConfig::Missing { what: "access", place: named("pool", &pool.name) });
            }
        };
        let mut models: Vec<Rc<Model>> = Vec::with_capacity(pool.models.len());
        for model in pool.models {
            let model = Model::new(model, backends)?;
            if models.iter().any(|other| other.name == model.name) {
                return Err(InvalidConfig::Twice { what: "model", name: model.name.pattern().to_string() });
            }
            models.push(Rc::new(model));
        }
        let consumers = if pool.all_namespaces { Namespaces::All } else { Namespaces::Only(pool.consumer_namespaces) };
        let most_retries = models.iter().map(|model| model.retries).max().unwrap_or_default();
        Ok(Self { access, consumers, models, most_retries })
    }
}

impl Model {
    fn new(model: wire::Model, backends: &[Rc<Backend>]) -> Result<Self, InvalidConfig> {
        let place = || named("model", &model.name);
        let name = match (model.prefix, model.name.as_str()) {
            (true, prefix) => ModelName::Prefix(prefix.into()),
            (false, "") => {
                return Err(InvalidConfig::Missing { what: "name", place: "a model".to_owned() });
            }
            (false, exact) => ModelName::Exact(exact.into()),
        };
        let targets = model
            .targets
            .iter()
            .map(|target| {
                Ok(Target {
                    backend: at("backend", place, backends, target.backend)?,
                    model: Some(target.model.as_str()).filter(|model| !model.is_empty()).map(Rc::from),
                    weight: target.weight,
                    priority: target.priority,
                })
            })
            .collect::<Result<Vec<_>, InvalidConfig>>()?;
        let counts_as = if model.counts_as.is_empty() { name.pattern() } else { model.counts_as.into() };
        Ok(Self { name, counts_as, targets, retries: model.retries })
    }
}

impl ModelName {
    /// The name as it is written in a ModelPool.
    pub fn pattern(&self) -> Rc<str> {
        match self {
            Self::Exact(name) => name.clone(),
            Self::Prefix(prefix) => format!("{prefix}*").into(),
        }
    }
}

impl TryFrom<wire::Backend> for Backend {
    type Error = InvalidConfig;

    fn try_from(backend: wire::Backend) -> Result<Self, InvalidConfig> {
        let missing = |what| InvalidConfig::Missing { what, place: named("backend", &backend.name) };
        if backend.cluster.is_empty() {
            return Err(missing("cluster"));
        }
        Ok(Self {
            name: backend.name.as_str().into(),
            cluster: backend.cluster.as_str().into(),
            path_prefix: backend.path_prefix,
            authority: backend.authority,
            rewrite: if backend.per_attempt { Rewrite::PerAttempt } else { Rewrite::Once },
            hands_over: backend.hands_over,
        })
    }
}
