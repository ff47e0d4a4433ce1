//! Documents of one file into the stores: which kind each is, its metadata, and what becomes of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::status::{Finding, Origin, Severity, Spot};

use super::check::Check;
use super::decode::{Misfit, decode};
use super::document::{self, Document};
use super::secret::SecretSource;
use super::store::{Meta, Object, Store};
use super::{
    GATEWAY_GROUP, Objects, TOLLGATE_GROUP, consumer, model_backend, model_pool, secret, standard, token_policy,
};

/// The body of the usual object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec<T> {
    spec: T,
}

/// One object of a file on its way in.
struct Candidate {
    meta: Meta,
    body: Value,
}

pub fn add_yaml(objects: &mut Objects, file: &str, text: &str, secrets: &dyn SecretSource) -> Vec<Finding> {
    let mut findings = Vec::new();
    match document::parse(text) {
        Ok(documents) => {
            for document in documents {
                add(objects, file, document, secrets, &mut findings);
            }
        }
        Err(error) => findings.push(Finding {
            severity: Severity::Error,
            reason: "SyntaxError".to_owned(),
            origin: None,
            spot: Some(Spot { file: file.to_owned(), line: error.line }),
            field: String::new(),
            message: error.message,
            hint: "nothing of this file is used until it can be read".to_owned(),
        }),
    }
    findings.sort_by(Finding::by_spot);
    findings
}

fn add(objects: &mut Objects, file: &str, document: Document, secrets: &dyn SecretSource, findings: &mut Vec<Finding>) {
    let Document { value, lines } = document;
    let outside = |field: &str, message: &str, hint: &str| Finding {
        severity: Severity::Error,
        reason: "Invalid".to_owned(),
        origin: None,
        spot: Some(Spot { file: file.to_owned(), line: lines.of(field) }),
        field: field.to_owned(),
        message: message.to_owned(),
        hint: hint.to_owned(),
    };
    let Value::Object(mut body) = value else {
        findings.push(outside("", "not an object", "each document is one object with apiVersion, kind and metadata"));
        return;
    };
    let mut text_field = |name: &str| match body.shift_remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(outside(name, "not a text", "")),
        None => Err(outside(name, &format!("missing field `{name}`"), "each document is one object")),
    };
    let (api_version, kind) = match (text_field("apiVersion"), text_field("kind")) {
        (Ok(api_version), Ok(kind)) => (api_version, kind),
        (Err(finding), _) | (_, Err(finding)) => {
            findings.push(finding);
            return;
        }
    };
    // What a cluster says about the object is no input.
    body.shift_remove("status");
    let metadata = body.shift_remove("metadata").unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let metadata = decode::<ObjectMeta>(metadata);
    let mut meta = Meta {
        origin: Origin::new(&kind, "default", ""),
        labels: std::collections::BTreeMap::new(),
        created: None,
        file: file.to_owned(),
        lines,
    };
    match metadata {
        Ok(metadata) => {
            let namespace = metadata.namespace.unwrap_or_else(|| "default".to_owned());
            let namespace = if is_cluster_scoped(&kind) { String::new() } else { namespace };
            meta.origin = Origin::new(&kind, &namespace, &metadata.name.unwrap_or_default());
            meta.labels = metadata.labels.unwrap_or_default();
            meta.created = metadata.creation_timestamp.map(|time| time.0.as_second());
        }
        Err(misfits) => {
            refuse(objects, &meta, "metadata.", misfits, findings);
            return;
        }
    }
    if !is_known_place(&api_version, &kind, &meta, findings) {
        objects.refused.insert(meta.origin);
        return;
    }
    let mut check = Check::new(&meta, findings);
    if meta.name().is_empty() {
        check.error("metadata.name", "the object has no name", "");
    } else {
        check.name("metadata.name", meta.name());
    }
    if !meta.namespace().is_empty() && !super::is_dns_label(meta.namespace()) {
        check.error("metadata.namespace", format_args!("`{}` is not a valid namespace", meta.namespace()), "");
    }
    if check.failed() {
        objects.refused.insert(meta.origin);
        return;
    }
    route_to_store(objects, Candidate { meta, body: Value::Object(body) }, secrets, findings);
}

fn route_to_store(objects: &mut Objects, given: Candidate, secrets: &dyn SecretSource, findings: &mut Vec<Finding>) {
    let origin = given.meta.origin.clone();
    let o = &mut *objects;
    let taken = match origin.kind.as_str() {
        "GatewayClass" => with_spec(&mut o.gateway_classes, given, findings, |spec, _| Some(spec)),
        "Gateway" => with_spec(&mut o.gateways, given, findings, standard::gateway),
        "HTTPRoute" => with_spec(&mut o.http_routes, given, findings, standard::http_route),
        "ReferenceGrant" => with_spec(&mut o.reference_grants, given, findings, |spec, _| Some(spec)),
        "Service" => with_spec(&mut o.services, given, findings, |spec, _| Some(spec)),
        "Namespace" => insert(&mut o.namespaces, given, findings, |_: Value, _| Some(standard::Namespace)),
        "EndpointSlice" => insert(&mut o.endpoint_slices, given, findings, standard::endpoint_slice),
        "Secret" => insert(&mut o.secrets, given, findings, |wire, check| secret::secret(wire, secrets, check)),
        "ModelPool" => with_spec(&mut o.model_pools, given, findings, model_pool::model_pool),
        "ModelBackend" => with_spec(&mut o.model_backends, given, findings, model_backend::model_backend),
        "Consumer" => with_spec(&mut o.consumers, given, findings, consumer::consumer),
        "TokenPolicy" => with_spec(&mut o.token_policies, given, findings, token_policy::token_policy),
        _ => false,
    };
    if !taken {
        objects.refused.insert(origin);
    }
}

fn with_spec<W: DeserializeOwned, T>(
    store: &mut Store<T>,
    given: Candidate,
    findings: &mut Vec<Finding>,
    parse: impl FnOnce(W, &mut Check<'_>) -> Option<T>,
) -> bool {
    insert(store, given, findings, |body: Spec<W>, check| parse(body.spec, check))
}

/// Decodes, checks and stores. False: refused, and a finding says why.
fn insert<W: DeserializeOwned, T>(
    store: &mut Store<T>,
    given: Candidate,
    findings: &mut Vec<Finding>,
    parse: impl FnOnce(W, &mut Check<'_>) -> Option<T>,
) -> bool {
    let Candidate { meta, body } = given;
    if let Some(first) = store.get(meta.namespace(), meta.name()) {
        let first = first.meta.spot("");
        let message = format!("the same object is already at {}:{}", first.file, first.line);
        findings.push(meta.finding(Severity::Error, "Duplicate", "", message, "the first one is used"));
        // The first one stands, so the object as such is not refused.
        return true;
    }
    let mut check = Check::new(&meta, findings);
    let secret = meta.origin.kind == "Secret";
    let spec = match decode::<W>(body) {
        Ok(wire) => parse(wire, &mut check),
        Err(misfits) => {
            for misfit in misfits {
                // serde quotes values, and those of a Secret are nobody's business.
                let message = if secret { "the value does not fit".to_owned() } else { misfit.message };
                check.error(misfit.field, message, misfit.hint);
            }
            None
        }
    };
    match spec {
        Some(spec) if !check.failed() => {
            store.insert(Object { meta, spec });
            true
        }
        _ => false,
    }
}

fn refuse(objects: &mut Objects, meta: &Meta, prefix: &str, misfits: Vec<Misfit>, findings: &mut Vec<Finding>) {
    for misfit in misfits {
        let field = format!("{prefix}{}", misfit.field);
        findings.push(meta.finding(Severity::Error, "Invalid", field, misfit.message, misfit.hint));
    }
    objects.refused.insert(meta.origin.clone());
}

fn is_cluster_scoped(kind: &str) -> bool {
    matches!(kind, "GatewayClass" | "Namespace")
}

/// False: not an object for us; a finding says so when somebody may have expected otherwise.
fn is_known_place(api_version: &str, kind: &str, meta: &Meta, findings: &mut Vec<Finding>) -> bool {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let (known_group, versions): (&str, &[&str]) = match kind {
        "GatewayClass" | "Gateway" | "HTTPRoute" => (GATEWAY_GROUP, &["v1"]),
        "ReferenceGrant" => (GATEWAY_GROUP, &["v1", "v1beta1"]),
        "Service" | "Secret" | "Namespace" => ("", &["v1"]),
        "EndpointSlice" => ("discovery.k8s.io", &["v1"]),
        "ModelPool" | "ModelBackend" | "Consumer" | "TokenPolicy" => (TOLLGATE_GROUP, &["v1alpha1"]),
        _ => ("", &[]),
    };
    if !versions.is_empty() && group == known_group {
        if versions.contains(&version) {
            return true;
        }
        let message = format!("{kind} has no version `{version}` here");
        let hint = format!("one of {}", versions.join(", "));
        findings.push(meta.finding(Severity::Error, "UnsupportedVersion", "apiVersion", message, hint));
        return false;
    }
    let (severity, message, hint) = match group {
        TOLLGATE_GROUP => {
            let kinds = ["ModelPool", "ModelBackend", "Consumer", "TokenPolicy"];
            let hint = match super::decode::closest(kind, &kinds) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("kinds of {TOLLGATE_GROUP}: {}", kinds.join(", ")),
            };
            (Severity::Error, format!("there is no kind `{kind}` in {group}"), hint)
        }
        // Leaving a policy or a route out is not harmless, so it is an error and not a remark.
        GATEWAY_GROUP | "inference.networking.k8s.io" => {
            (Severity::Error, format!("{kind} is not served yet"), "it has no effect".to_owned())
        }
        _ => (Severity::Warning, format!("{api_version} {kind} is not for Tollgate"), "it is ignored".to_owned()),
    };
    findings.push(meta.finding(severity, "UnsupportedKind", "kind", message, hint));
    false
}
