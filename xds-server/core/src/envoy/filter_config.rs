//! The filter's own configuration: the part of the IR that it must know to decide about a request.

use std::collections::{BTreeMap, BTreeSet};

use tollgate_proto::v1::{self as wire, filter_config::Stage, scope_part::Part};

use crate::ir;

use super::{FilterSetup, RequestFields, class, edge};

/// The largest request body that is read. Envoy's buffer is a little larger, so that the filter answers first.
pub const MAX_BODY_BYTES: u32 = 10 * 1024 * 1024;

/// The configuration of the HTTP filter that sees every request of the scope.
pub fn request_config(catalog: &ir::Catalog, ir: &ir::Ir, setup: &FilterSetup) -> wire::FilterConfig {
    let backends: Vec<&ir::Backend> = catalog.backends.values().map(AsRef::as_ref).collect();
    let pools: Vec<&ir::Pool> = catalog.pools.values().map(AsRef::as_ref).collect();
    let place_of_pool = places(pools.iter().map(|pool| pool.name.as_str()));
    let place_of_backend = places(backends.iter().map(|backend| backend.cluster.as_str()));
    let used: BTreeSet<&str> = catalog.limits().collect();
    let limits: Vec<&ir::Limit> =
        ir.limits.values().map(AsRef::as_ref).filter(|limit| used.contains(limit.id.as_str())).collect();
    let place_of_limit = places(limits.iter().map(|limit| limit.id.as_str()));
    // Each class once, by id.
    let classes: BTreeMap<String, &ir::Class> = catalog.classes.iter().map(|class| (class::id(class), class)).collect();
    let classes = classes.into_iter().filter_map(|(id, class)| {
        let limits = class.limits.iter().filter_map(|id| place_of_limit.get(id.as_str()).copied());
        let pool = match &class.pool {
            Some(pool) => Some(*place_of_pool.get(pool.as_str())?),
            None => None,
        };
        Some(wire::Class { id, pool, limits: limits.collect(), closed_by: class.closed_by.clone().unwrap_or_default() })
    });
    let stage = wire::RequestStage {
        control_cluster: setup.control_cluster.service(),
        classes: classes.collect(),
        pools: pools.iter().map(|pool| self::pool(pool, &place_of_backend)).collect(),
        backends: backends.iter().copied().map(backend).collect(),
        limits: limits.into_iter().map(limit).collect(),
        max_body_bytes: MAX_BODY_BYTES,
        has_members: catalog.has_members,
        workload: None,
        in_callers: false,
        claim_sets: claim_sets(&catalog.claim_sets),
        tells_fields: setup.fields == RequestFields::Told,
    };
    wire::FilterConfig { stage: Some(Stage::Request(stage)) }
}

/// The configuration of the filter in the sidecars of a workload.
pub fn workload_config(workload: &ir::Workload, ir: &ir::Ir, setup: &FilterSetup) -> wire::FilterConfig {
    let mut config = request_config(&workload.catalog, ir, setup);
    if let Some(Stage::Request(stage)) = &mut config.stage {
        stage.workload = Some(wire::Workload {
            scope: workload.catalog.scope.to_string(),
            route: workload.route(),
            consumer_namespaces: match &workload.consumers {
                ir::ConsumerNamespaces::All => Vec::new(),
                ir::ConsumerNamespaces::Only(namespaces) => namespaces.iter().cloned().collect(),
            },
            gateways: setup.gateways.iter().cloned().collect(),
            models: workload.models.iter().map(asked_model).collect(),
        });
    }
    config
}

/// The configuration of the filter in the sidecars of callers.
pub fn frontend_config(frontend: &ir::Frontend) -> wire::FilterConfig {
    let runners: Vec<_> = frontend.runners.iter().collect();
    let places = places(runners.iter().map(|(cluster, _)| cluster.as_str()));
    let backend = |(cluster, runner): &(&String, &ir::Runner)| wire::Backend {
        name: runner.backend.to_string(),
        cluster: (*cluster).clone(),
        path_prefix: runner.path_prefix.clone(),
        ..wire::Backend::default()
    };
    let stage = wire::RequestStage {
        classes: vec![wire::Class { id: frontend.service.to_string(), pool: Some(0), ..wire::Class::default() }],
        pools: vec![pool(&frontend.pool, &places)],
        backends: runners.iter().map(backend).collect(),
        max_body_bytes: MAX_BODY_BYTES,
        in_callers: true,
        ..wire::RequestStage::default()
    };
    wire::FilterConfig { stage: Some(Stage::Request(stage)) }
}

/// The configuration of the upstream filter. None: no backend needs one.
pub fn attempt_config(catalog: &ir::Catalog) -> Option<wire::FilterConfig> {
    let backends: Vec<_> =
        catalog.backends.values().filter(|backend| backend.per_attempt).map(|backend| self::backend(backend)).collect();
    (!backends.is_empty())
        .then_some(wire::FilterConfig { stage: Some(Stage::Attempt(wire::AttemptStage { backends })) })
}

/// The configuration of the network filter that counts connections.
pub fn connection_config() -> wire::FilterConfig {
    let stage = wire::ConnectionStage { max_per_source: edge::MAX_CONNECTIONS_PER_SOURCE };
    wire::FilterConfig { stage: Some(Stage::Connection(stage)) }
}

/// The place of each in its list, by name.
fn places<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, u32> {
    names.zip(0..).collect()
}

fn pool(pool: &ir::Pool, backends: &BTreeMap<&str, u32>) -> wire::Pool {
    let target = |target: &ir::Target| {
        Some(wire::Target {
            backend: *backends.get(target.backend.as_str())?,
            model: target.model.clone().unwrap_or_default(),
            weight: target.weight,
            priority: target.priority,
        })
    };
    let access = match pool.access {
        ir::Access::Required => wire::Access::Required,
        ir::Access::Anonymous => wire::Access::Anonymous,
    };
    let (consumer_namespaces, all_namespaces) = match &pool.consumers {
        ir::ConsumerNamespaces::All => (Vec::new(), true),
        ir::ConsumerNamespaces::Only(names) => (names.iter().cloned().collect(), false),
    };
    wire::Pool {
        name: pool.origin.display_name(),
        access: access.into(),
        models: pool
            .models
            .iter()
            .map(|model| wire::Model {
                name: model.name.clone(),
                prefix: model.prefix,
                targets: model.targets.iter().filter_map(target).collect(),
                retries: model.retries,
                counts_as: String::new(),
            })
            .collect(),
        consumer_namespaces,
        all_namespaces,
    }
}

/// Those with the most claims come first.
fn claim_sets(sets: &BTreeSet<ir::ClaimSet>) -> Vec<wire::ClaimSet> {
    let set = |set: &ir::ClaimSet| wire::ClaimSet { issuer: set.issuer.clone(), claims: set.claims.clone() };
    let mut sets: Vec<_> = sets.iter().map(set).collect();
    sets.sort_by_key(|set| std::cmp::Reverse(set.claims.len()));
    sets
}

fn asked_model(model: &ir::AskedModel) -> wire::Model {
    let ir::AskedModel { name, prefix, counts_as } = model.clone();
    wire::Model { name, prefix, counts_as, ..wire::Model::default() }
}

fn backend(backend: &ir::Backend) -> wire::Backend {
    wire::Backend {
        name: backend.origin.display_name(),
        cluster: backend.cluster.clone(),
        path_prefix: backend.path_prefix.clone(),
        authority: backend.authority.clone(),
        per_attempt: backend.per_attempt,
        hands_over: backend.hands_over.is_some(),
    }
}

fn limit(limit: &ir::Limit) -> wire::Limit {
    let part = |part: &ir::ScopePart| wire::ScopePart {
        part: Some(match part {
            ir::ScopePart::Consumer => Part::Consumer(true),
            ir::ScopePart::Model => Part::Model(true),
            ir::ScopePart::Route => Part::Route(true),
            ir::ScopePart::Label(key) => Part::Label(key.clone()),
            ir::ScopePart::Claim(name) => Part::Claim(name.clone()),
        }),
    };
    wire::Limit {
        id: limit.id.clone(),
        scope: limit.scope.iter().map(part).collect(),
        count: Some(limit.count),
        shadow: limit.mode == ir::Mode::Shadow,
        allow_without_ledger: limit.on_ledger_unavailable == ir::OnLedgerUnavailable::Allow,
        on_early_end: match limit.on_early_end {
            ir::OnEarlyEnd::Estimate => wire::EarlyEnd::Estimate,
            ir::OnEarlyEnd::Reservation => wire::EarlyEnd::Reservation,
        }
        .into(),
    }
}
