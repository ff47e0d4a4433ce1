//! Documents of one file into the stores: which kind each is, its metadata, and what becomes of it.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::status::{Finding, Reason, Severity, Spot};

use super::check::Check;
use super::decode::decode;
use super::document::{self, Document, Lines};
use super::redact::{self, Shown};
use super::refused_policy::{self, Suspect};
use super::secret::SecretSource;
use super::store::{Meta, Object, Source, Store};
use super::{
    FileVersion, GATEWAY_GROUP, KINDS, Objects, Provenance, TOLLGATE_GROUP, consumer, model_backend, model_pool,
    secret, standard, token_policy,
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
    let file: Arc<str> = file.into();
    let mut findings = Vec::new();
    match document::parse(text) {
        Ok(documents) => {
            objects.files.insert(file.to_string());
            for document in documents {
                add(objects, &file, document, 0, secrets, &mut findings);
            }
        }
        Err(error) => {
            objects.refused_policies.extend(refused_policy::in_broken_text(&file, text));
            findings.push(Finding {
                severity: Severity::Error,
                reason: Reason::SyntaxError,
                origin: None,
                spot: Some(Spot { file: file.to_string(), line: error.line }),
                field: String::new(),
                message: error.message,
                hint: "nothing of this file is used until it can be read".to_owned(),
            });
        }
    }
    findings.sort_by(Finding::by_spot);
    findings
}

/// See [`Objects::add_source`].
pub fn add_source(
    objects: &mut Objects,
    file: &str,
    line: u64,
    source: &Source,
    since: i64,
    secrets: &dyn SecretSource,
) {
    if let Ok(value) = serde_json::from_str(source.expose()) {
        let document = Document { value, lines: Lines::starting_at(line) };
        add(objects, &file.into(), document, since, secrets, &mut Vec::new());
    }
}

/// Takes the document, or writes down that it was refused and what it would have closed.
fn add(
    objects: &mut Objects,
    file: &Arc<str>,
    document: Document,
    since: i64,
    secrets: &dyn SecretSource,
    findings: &mut Vec<Finding>,
) {
    let Document { value, lines } = document;
    let source = Source::new(&value.to_string());
    let Value::Object(body) = value else {
        let hint = "each document is one object with apiVersion, kind and metadata";
        let spot = Spot { file: file.to_string(), line: lines.of("") };
        findings.push(nameless(Some(spot), "", "not an object", hint));
        return;
    };
    let suspect = Suspect::of(&body);
    let origin = refused_policy::origin(&body);
    let labels = std::collections::BTreeMap::new();
    let provenance = Provenance::File(FileVersion { path: Arc::clone(file), lines, source, since });
    let meta = Meta { origin, labels, created: None, provenance };
    if let Err(meta) = try_add(objects, meta, body, secrets, findings)
        && let Some(suspect) = suspect
    {
        objects.refused_policies.push(suspect.refused(meta));
    }
}

/// A finding before there is an object to hold it against.
fn nameless(spot: Option<Spot>, field: &str, message: &str, hint: &str) -> Finding {
    Finding {
        severity: Severity::Error,
        reason: Reason::Invalid,
        origin: None,
        spot,
        field: field.to_owned(),
        message: message.to_owned(),
        hint: hint.to_owned(),
    }
}

fn try_add(
    objects: &mut Objects,
    mut meta: Meta,
    mut body: serde_json::Map<String, Value>,
    secrets: &dyn SecretSource,
    findings: &mut Vec<Finding>,
) -> Result<(), Meta> {
    let mut text_field = |name: &str| match body.shift_remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(nameless(meta.provenance.spot(name), name, "not a text", "")),
        None => {
            let message = format!("missing field `{name}`");
            Err(nameless(meta.provenance.spot(name), name, &message, "each document is one object"))
        }
    };
    let (api_version, kind) = match (text_field("apiVersion"), text_field("kind")) {
        (Ok(api_version), Ok(kind)) => (api_version, kind),
        (Err(finding), _) | (_, Err(finding)) => {
            findings.push(finding);
            return Err(meta);
        }
    };
    // What a cluster says about the object is no input.
    body.shift_remove("status");
    let metadata = body.shift_remove("metadata").unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    if is_cluster_scoped(&kind) {
        meta.origin.namespace = "".into();
    }
    match decode::<ObjectMeta>(metadata) {
        Ok(metadata) => {
            meta.labels = metadata.labels.unwrap_or_default();
            meta.created = metadata.creation_timestamp.map(|time| time.0.as_second());
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

fn refused(objects: &mut Objects, meta: Meta) -> Result<(), Meta> {
    objects.refused.insert(meta.origin.clone(), meta.provenance.observed_generation());
    Err(meta)
}

/// What became of a document.
enum Outcome {
    Taken,
    /// A finding says why.
    Refused(Meta),
    /// Another document has the object, and says something else.
    Duplicate(Meta),
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
        _ => Outcome::Refused(given.meta),
    }
}

fn with_spec<W: DeserializeOwned, T>(
    store: &mut Store<T>,
    given: Candidate,
    findings: &mut Vec<Finding>,
    parse: impl FnOnce(W, &mut Check<'_>) -> Option<T>,
) -> Outcome {
    insert(store, given, findings, |body: Spec<W>, check| parse(body.spec, check))
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
            Outcome::Taken
        }
        _ => Outcome::Refused(meta),
    }
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
        GATEWAY_GROUP | "inference.networking.k8s.io" => {
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
