//! One document to one object: which kind it is, its metadata, and its specification. It is the same for a document of
//! a file and for an object of a cluster, but for how strictly it is read.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::status::{Finding, Origin, Reason, Severity, Spot};

use super::check::Check;
use super::decode::{Decoded, Misfit, decode};
use super::kinds::NAMES;
use super::redact::{self, Shown};
use super::refused_policy::{self, Suspect};
use super::secret::{self, SecretSource};
use super::store::{Meta, Object, Store};
use super::{
    GATEWAY_GROUP, INFERENCE_GROUP, KINDS, Objects, Provenance, SECURITY_GROUP, TOLLGATE_GROUP, backend_tls_policy,
    config_map, consumer, grpc_route, http_route, inference_pool, listener_set, model_backend, model_pool, pod,
    proxy_parameters, request_authentication, standard, tls_route, token_policy,
};

/// The body of the usual object.
#[derive(Deserialize)]
struct Spec<T> {
    spec: T,
}

/// One object on its way in.
struct Candidate {
    meta: Meta,
    body: Value,
}

/// What became of a document.
enum Outcome {
    Taken,
    /// A finding says why.
    Refused(Meta),
    /// Another document has the object, and says something else.
    Duplicate(Meta),
}

/// Takes the document, or writes down that it was refused and what it would have closed.
pub fn read(
    objects: &mut Objects,
    provenance: Provenance,
    document: Value,
    secrets: &dyn SecretSource,
    findings: &mut Vec<Finding>,
) {
    let Value::Object(body) = document else {
        let hint = "each document is one object with apiVersion, kind and metadata";
        findings.push(nameless(&provenance, "", "not an object", hint));
        return;
    };
    let suspect = Suspect::of(&body);
    let origin = origin(&body);
    let meta = Meta { origin, labels: BTreeMap::new(), created: None, is_ending: false, provenance };
    if let Err(meta) = try_read(objects, meta, body, secrets, findings)
        && let Some(suspect) = suspect
    {
        objects.refused_policies.push(suspect.refused(meta));
    }
}

/// What can be read of who it is.
pub fn origin(body: &Map<String, Value>) -> Origin {
    let mut origin = refused_policy::origin(body);
    if is_cluster_scoped(&origin.kind) {
        origin.namespace = "".into();
    }
    origin
}

/// A finding before there is an object to hold it against.
fn nameless(provenance: &Provenance, field: &str, message: &str, hint: &str) -> Finding {
    Finding {
        severity: Severity::Error,
        reason: Reason::Invalid,
        origin: None,
        spot: provenance.spot(field),
        field: field.to_owned(),
        message: message.to_owned(),
        hint: hint.to_owned(),
    }
}

fn try_read(
    objects: &mut Objects,
    mut meta: Meta,
    mut body: Map<String, Value>,
    secrets: &dyn SecretSource,
    findings: &mut Vec<Finding>,
) -> Result<(), Meta> {
    let mut text_field = |name: &str| match body.shift_remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(nameless(&meta.provenance, name, "not a text", "")),
        None => {
            let message = format!("missing field `{name}`");
            Err(nameless(&meta.provenance, name, &message, "each document is one object"))
        }
    };
    let (api_version, kind) = match (text_field("apiVersion"), text_field("kind")) {
        (Ok(api_version), Ok(kind)) => (api_version, kind),
        (Err(finding), _) | (_, Err(finding)) => {
            findings.push(finding);
            return Err(meta);
        }
    };
    if !has_status_as_input(&kind, &meta.provenance) {
        body.shift_remove("status");
    }
    let metadata = body.shift_remove("metadata").unwrap_or_else(|| Value::Object(Map::new()));
    match decode::<ObjectMeta>(metadata, meta.provenance.strictness()) {
        Ok(Decoded { value: metadata, .. }) => {
            meta.labels = metadata.labels.unwrap_or_default();
            meta.created = metadata.creation_timestamp.map(|time| time.0.as_second());
            meta.is_ending = metadata.deletion_timestamp.is_some();
        }
        Err(misfits) => {
            for misfit in misfits {
                let field = format!("metadata.{}", misfit.field);
                findings.push(meta.finding(Severity::Error, Reason::Invalid, field, misfit.message, misfit.hint));
            }
            return refused(objects, meta);
        }
    }
    if !is_known_place(&api_version, &kind, &meta, findings) {
        return refused(objects, meta);
    }
    let mut check = Check::new(&meta, findings);
    if meta.name().is_empty() {
        check.error("metadata.name", "the object has no name", "");
    } else {
        check.name("metadata.name", meta.name());
    }
    if !meta.namespace().is_empty() && !super::is_dns_label(meta.namespace()) {
        let message = format_args!("{} is not a valid namespace", Shown(meta.namespace()));
        check.error("metadata.namespace", message, "");
    }
    check.labels();
    if check.failed() {
        return refused(objects, meta);
    }
    match route_to_store(objects, Candidate { meta, body: Value::Object(body) }, secrets, findings) {
        Outcome::Taken => Ok(()),
        Outcome::Refused(meta) => refused(objects, meta),
        // The first one stands, so the object as such is not refused.
        Outcome::Duplicate(meta) => Err(meta),
    }
}

/// What a cluster says about an object is no input, but for the addresses of a Service, which others give it. A Pod has its
/// address and its readiness there, in files as well.
pub fn has_status_as_input(kind: &str, provenance: &Provenance) -> bool {
    kind == "Pod" || (kind == "Service" && provenance.cluster().is_some())
}

fn refused(objects: &mut Objects, meta: Meta) -> Result<(), Meta> {
    objects.refused.insert(meta.origin.clone(), meta.provenance.observed_generation());
    Err(meta)
}

fn route_to_store(
    o: &mut Objects,
    given: Candidate,
    secrets: &dyn SecretSource,
    findings: &mut Vec<Finding>,
) -> Outcome {
    match given.meta.origin.kind.clone().as_ref() {
        "GatewayClass" => with_spec(&mut o.gateway_classes, given, findings, |spec, _| Some(spec)),
        "Gateway" => with_spec(&mut o.gateways, given, findings, standard::gateway),
        "ListenerSet" => with_spec(&mut o.listener_sets, given, findings, listener_set::listener_set),
        "HTTPRoute" => with_spec(&mut o.http_routes, without_default_gateways(given), findings, http_route::http_route),
        "GRPCRoute" => with_spec(&mut o.grpc_routes, given, findings, grpc_route::grpc_route),
        "TLSRoute" => with_spec(&mut o.tls_routes, given, findings, tls_route::tls_route),
        "BackendTLSPolicy" => {
            with_spec(&mut o.backend_tls_policies, given, findings, backend_tls_policy::backend_tls_policy)
        }
        "ReferenceGrant" => with_spec(&mut o.reference_grants, given, findings, |spec, _| Some(spec)),
        "Service" => insert(&mut o.services, given, findings, |service, _| Some(service)),
        "Namespace" => insert(&mut o.namespaces, given, findings, |_: Value, _| Some(standard::Namespace)),
        "EndpointSlice" => insert(&mut o.endpoint_slices, given, findings, standard::endpoint_slice),
        "InferencePool" => with_spec(&mut o.inference_pools, given, findings, inference_pool::inference_pool),
        "Pod" => insert(&mut o.pods, given, findings, |wire, check| Some(pod::pod(wire, check.meta()))),
        "Secret" => match given.meta.provenance {
            Provenance::File(_) => {
                insert(&mut o.secrets, given, findings, |wire, check| secret::secret(wire, secrets, check))
            }
            Provenance::Cluster(_) => {
                insert(&mut o.secrets, given, findings, |wire, _| Some(secret::cluster_secret(wire)))
            }
        },
        "ConfigMap" => insert(&mut o.config_maps, given, findings, config_map::config_map),
        "ModelPool" => with_spec(&mut o.model_pools, given, findings, model_pool::model_pool),
        "ModelBackend" => with_spec(&mut o.model_backends, given, findings, model_backend::model_backend),
        "Consumer" => with_spec(&mut o.consumers, given, findings, consumer::consumer),
        "TokenPolicy" => with_spec(&mut o.token_policies, given, findings, token_policy::token_policy),
        "ProxyParameters" => with_spec(&mut o.proxy_parameters, given, findings, proxy_parameters::proxy_parameters),
        "RequestAuthentication" => {
            with_spec(&mut o.request_authentications, given, findings, request_authentication::request_authentication)
        }
        _ => Outcome::Refused(given.meta),
    }
}

/// There are no default Gateways. So whatever a cluster says of them is no reason to refuse the route.
fn without_default_gateways(mut given: Candidate) -> Candidate {
    if given.meta.provenance.cluster().is_some()
        && let Some(Value::Object(spec)) = given.body.get_mut("spec")
    {
        spec.shift_remove("useDefaultGateways");
    }
    given
}

fn with_spec<W: DeserializeOwned, T>(
    store: &mut Store<T>,
    given: Candidate,
    findings: &mut Vec<Finding>,
    parse: impl FnOnce(W, &mut Check<'_>) -> Option<T>,
) -> Outcome {
    insert(store, given, findings, |body: Spec<W>, check| parse(body.spec, check))
}

/// Decodes, checks and stores.
fn insert<W: DeserializeOwned, T>(
    store: &mut Store<T>,
    given: Candidate,
    findings: &mut Vec<Finding>,
    parse: impl FnOnce(W, &mut Check<'_>) -> Option<T>,
) -> Outcome {
    let Candidate { meta, body } = given;
    if let Some(first) = store.get(meta.namespace(), meta.name()) {
        findings.push(duplicate(&first.meta, &meta));
        let (first, again) = (first.meta.file(), meta.file());
        let is_same = first.zip(again).is_some_and(|(first, again)| first.source == again.source);
        return if is_same { Outcome::Taken } else { Outcome::Duplicate(meta) };
    }
    let mut check = Check::new(&meta, findings);
    let secret = meta.origin.kind == "Secret";
    let spec = match decode::<W>(body, meta.provenance.strictness()) {
        Ok(Decoded { value: wire, unknown }) => {
            unknown.into_iter().for_each(|misfit| check.unknown_value(misfit));
            // What stands in for an unknown value says nothing about the rest.
            if check.failed() { None } else { parse(wire, &mut check) }
        }
        Err(misfits) => {
            for misfit in misfits {
                // serde quotes values, and those of a Secret are nobody's business.
                let message = if secret { "the value does not fit".to_owned() } else { misfit.message };
                check.unreadable(Misfit { message, ..misfit });
            }
            None
        }
    };
    match spec {
        Some(spec) if !check.failed() => {
            let refused = check.into_refused();
            store.insert(Object { meta, spec, refused });
            Outcome::Taken
        }
        _ => Outcome::Refused(meta),
    }
}

/// Another object has the name already.
pub fn duplicate(first: &Meta, meta: &Meta) -> Finding {
    let finding = meta.finding(Severity::Error, Reason::Duplicate, "", "", "the first one is used");
    // The file's name is the user's own choice and is shown with every finding.
    let message = match first.provenance.spot("") {
        Some(Spot { file, line }) => format!("the same object is already at {file}:{line}"),
        None => "the same object is already in the cluster".to_owned(),
    };
    Finding { message, ..finding }
}

/// Where a cluster has the objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub kind: &'static str,
    pub group: &'static str,
    /// Those that can be read, the best one first.
    pub versions: &'static [&'static str],
    pub is_cluster_scoped: bool,
}

/// Every kind that is read.
pub fn places() -> impl Iterator<Item = Place> {
    NAMES.iter().map(|kind| {
        let (group, versions) = place_of(kind);
        Place { kind, group, versions, is_cluster_scoped: is_cluster_scoped(kind) }
    })
}

fn is_cluster_scoped(kind: &str) -> bool {
    matches!(kind, "GatewayClass" | "Namespace")
}

/// The group and the versions of a kind. A kind that is not known has no version.
fn place_of(kind: &str) -> (&'static str, &'static [&'static str]) {
    match kind {
        "GatewayClass" | "Gateway" | "ListenerSet" | "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "BackendTLSPolicy" => {
            (GATEWAY_GROUP, &["v1"])
        }
        "ReferenceGrant" => (GATEWAY_GROUP, &["v1", "v1beta1"]),
        "Service" | "Secret" | "ConfigMap" | "Namespace" | "Pod" => ("", &["v1"]),
        "InferencePool" => (INFERENCE_GROUP, &["v1"]),
        "RequestAuthentication" => (SECURITY_GROUP, &["v1", "v1beta1"]),
        "EndpointSlice" => ("discovery.k8s.io", &["v1"]),
        "ModelPool" | "ModelBackend" | "Consumer" | "TokenPolicy" | "ProxyParameters" => {
            (TOLLGATE_GROUP, &["v1alpha1"])
        }
        _ => ("", &[]),
    }
}

fn group_and_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Whether the kind is one of ours. Other groups may have kinds of the same name.
pub fn is_of_known_group(api_version: &str, kind: &str) -> bool {
    let (known_group, versions) = place_of(kind);
    !versions.is_empty() && group_and_version(api_version).0 == known_group
}

/// False: not an object for us; a finding says so when somebody may have expected otherwise.
fn is_known_place(api_version: &str, kind: &str, meta: &Meta, findings: &mut Vec<Finding>) -> bool {
    let (group, version) = group_and_version(api_version);
    let (known_group, versions) = place_of(kind);
    if !versions.is_empty() && group == known_group {
        if versions.contains(&version) {
            return true;
        }
        let message = format!("{kind} has no version {} here", Shown(version));
        let hint = format!("one of {}", versions.join(", "));
        findings.push(meta.finding(Severity::Error, Reason::UnsupportedVersion, "apiVersion", message, hint));
        return false;
    }
    let (severity, message, hint) = match group {
        TOLLGATE_GROUP => {
            let hint = match super::decode::closest(kind, &KINDS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("kinds of {TOLLGATE_GROUP}: {}", KINDS.join(", ")),
            };
            (Severity::Error, format!("there is no kind {} in {group}", Shown(kind)), hint)
        }
        _ if kind == "TokenPolicy" => {
            let hint = format!("apiVersion: {TOLLGATE_GROUP}/v1alpha1");
            (Severity::Error, format!("a TokenPolicy is not of group {}", Shown(group)), hint)
        }
        // Leaving a policy or a route out is not harmless, so it is an error and not a remark.
        GATEWAY_GROUP | INFERENCE_GROUP => {
            (Severity::Error, format!("{} is not served yet", redact::plain(kind)), "it has no effect".to_owned())
        }
        _ => {
            let (version, kind) = (redact::plain(api_version), redact::plain(kind));
            (Severity::Warning, format!("{version} {kind} is not for Tollgate"), "it is ignored".to_owned())
        }
    };
    findings.push(meta.finding(severity, Reason::UnsupportedKind, "kind", message, hint));
    false
}
