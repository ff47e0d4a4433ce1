//! ModelPools with a Service as parent to frontends: what the sidecars of callers must know to choose a backend.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::{Access, Frontend, Runner};
use crate::objects::{Endpoint, Key, ModelBackend, ModelPool, Object, ParentService, Service, Shown, TargetKind, Tls};
use crate::placement::Feature;
use crate::status::{Finding, Reason, Severity};

use super::pools;
use super::refs::{MODEL_POOL, Reference, SERVICE};
use super::view::View;
use super::workloads::speaks_tcp;

/// One for each Service that is there. What a caller asks for at another port, or at a Service without Pods, is not ours.
pub fn frontends(view: View<'_>, object: &Object<ModelPool>, findings: &mut Vec<Finding>) -> Vec<Frontend> {
    let Object { meta, spec, .. } = object;
    if spec.parents.is_empty() {
        return Vec::new();
    }
    if let Some(lack) = view.lack(Feature::ParentServices, meta, "spec.parentRefs") {
        findings.push(lack);
        return Vec::new();
    }
    if view.limits(TargetKind::ModelPool, &meta.key()).next().is_some() {
        let message = "a TokenPolicy for this pool holds at Gateways, and not for what sidecars lead to its backends";
        let hint = "let a TokenPolicy have the Services of the backends as targets";
        findings.push(meta.finding(Severity::Warning, Reason::NotActedOn, "spec.parentRefs", message, hint));
    }
    let runners = runners(view, object, findings);
    // What is wrong with it besides was said where it became a pool.
    let mut pool = pools::pool(view, object, &mut Vec::new());
    // Who may ask, the runners' own sidecars decide.
    pool.access = Access::Anonymous;
    for (index, model) in pool.models.iter_mut().enumerate() {
        let had_any = !model.targets.is_empty();
        model.targets.retain(|target| runners.contains_key(&target.backend));
        model.retries = 0;
        if had_any && model.targets.is_empty() {
            let message = format!("sidecars reach no target of model {}: callers get 503", Shown(&model.name));
            let field = format!("spec.models[{index}]");
            findings.push(meta.finding(Severity::Error, Reason::NoTarget, field, message, ""));
        }
    }
    let mut frontends = Vec::new();
    for (index, parent) in spec.parents.iter().enumerate() {
        match ports(view, object, parent, &format!("spec.parentRefs[{index}]")) {
            Ok(ports) => frontends.push(Frontend {
                origin: meta.origin.clone(),
                service: Key::new(meta.namespace(), parent.name.as_str()),
                host: host(view, meta.namespace(), &parent.name),
                ports,
                callers: pool.consumers.clone(),
                pool: pool.clone(),
                runners: runners.clone(),
            }),
            Err(finding) => findings.push(finding),
        }
    }
    frontends
}

/// The ports of the Service at which the pool is asked.
fn ports(
    view: View<'_>,
    pool: &Object<ModelPool>,
    parent: &ParentService,
    field: &str,
) -> Result<BTreeSet<u16>, Finding> {
    let meta = &pool.meta;
    let reference = Reference {
        from: meta,
        from_kind: MODEL_POOL,
        to_kind: SERVICE,
        namespace: meta.namespace(),
        name: &parent.name,
        field,
    };
    let Some(service) = view.object::<Service>(meta.namespace(), &parent.name) else {
        return Err(reference.not_found::<Service>(Reason::TargetNotFound, view));
    };
    // A Service has one pool, as a request has one. It is the older one, then the first by name.
    let age = |pool: &Object<ModelPool>| (pool.meta.created.unwrap_or(i64::MAX), pool.meta.name().to_owned());
    let names_it = |pool: &&Object<ModelPool>| pool.spec.parents.iter().any(|other| other.name == parent.name);
    let first = view.of_namespace::<ModelPool>(meta.namespace()).filter(names_it).min_by_key(|pool| age(pool));
    if let Some(first) = first.filter(|first| first.meta.name() != meta.name()) {
        let message =
            format!("ModelPool {} has this Service already, and is older or first by name", first.meta.name());
        return Err(reference.finding(Reason::Conflicted, &message, "give each pool a Service of its own"));
    }
    let ports = service.spec.spec.ports.iter().flatten().filter(|port| speaks_tcp(port));
    let ports = ports.filter_map(|port| u16::try_from(port.port).ok());
    let ports: BTreeSet<u16> = ports.filter(|port| parent.port.is_none_or(|only| only == *port)).collect();
    if ports.is_empty() {
        let message = match parent.port {
            Some(port) => format!("{} has no port {port}", reference.target()),
            None => format!("{} has no port", reference.target()),
        };
        return Err(reference.finding(Reason::TargetNotFound, &message, ""));
    }
    Ok(ports)
}

/// The backends that sidecars reach, by cluster name.
fn runners(view: View<'_>, pool: &Object<ModelPool>, findings: &mut Vec<Finding>) -> BTreeMap<String, Runner> {
    let mut runners = BTreeMap::new();
    for (index, model) in pool.spec.models.iter().enumerate() {
        for (target_index, target) in model.targets.iter().enumerate() {
            let namespace = target.backend_namespace.as_deref().unwrap_or(pool.meta.namespace());
            let key = Key::new(namespace, target.backend_name.as_str());
            // One that cannot be used was told of where the targets became those of a pool.
            let usable = view.backend(&key).zip(view.object::<ModelBackend>(namespace, &target.backend_name));
            let Some(((cluster, _), backend)) = usable else { continue };
            match runner(backend) {
                Ok(runner) => {
                    runners.insert(cluster.to_owned(), runner);
                }
                Err(why) => {
                    let field = format!("spec.models[{index}].targets[{target_index}].backendRef");
                    let message = format!("the sidecars of callers do not reach ModelBackend {key}: {why}");
                    let hint = "lead to it by a Gateway";
                    findings.push(pool.meta.finding(Severity::Warning, Reason::NotActedOn, field, message, hint));
                }
            }
        }
    }
    runners
}

/// What a sidecar reaches by itself: a Service, to which the mesh makes the TLS.
fn runner(backend: &Object<ModelBackend>) -> Result<Runner, &'static str> {
    let ModelBackend { endpoint, tls, credential, path_prefix, .. } = &backend.spec;
    if credential.is_some() {
        return Err("it has a credential, which is not given to callers");
    }
    if matches!(tls, Tls::Simple { .. }) {
        return Err("it wants TLS of its own");
    }
    let Endpoint::Service { namespace, name, port } = endpoint else {
        return Err("it is no Service");
    };
    let namespace = namespace.as_deref().unwrap_or(backend.meta.namespace());
    Ok(Runner {
        backend: backend.meta.key(),
        service: Key::new(namespace, name.as_str()),
        port: *port,
        path_prefix: path_prefix.clone(),
    })
}

fn host(view: View<'_>, namespace: &str, service: &str) -> String {
    match view.mesh() {
        Some(mesh) => mesh.host(namespace, service),
        None => format!("{service}.{namespace}.svc.cluster.local"),
    }
}
