//! What is ignored and what is refused of objects of a newer version, for every kind: leniently in a cluster, strictly in
//! a file.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::cluster_test::{Given, cluster_of};
use super::{
    Cluster, EachKind, FileVersion, Kind, Lines, NoSecretSource, Objects, Provenance, Source, each_kind, parts, read,
    redact,
};
use crate::status::{Finding, Reason};

/// A document of each kind, with as many of its fields as it may have at once.
const DOCUMENTS: &str = include_str!("lenient_test.yaml");

/// What stands here is the user's choice, field by field.
const FREE: [&str; 8] = ["labels", "annotations", "matchLabels", "selector", "data", "options", "requests", "match"];

pub fn documents() -> Vec<Value> {
    crate::files::parse(DOCUMENTS).unwrap().into_iter().map(|document| document.value).collect()
}

/// The same as a document of a file.
fn strictly(document: &Value) -> (Objects, Vec<Finding>) {
    let (mut objects, mut findings) = (Objects::default(), Vec::new());
    let file = FileVersion { path: "f".into(), lines: Lines::starting_at(1), source: Source::none(), since: 0 };
    read::read(&mut objects, Provenance::File(file), document.clone(), &NoSecretSource, &mut findings);
    (objects, findings)
}

/// What the specifications of all objects say, and the parts of them that are refused.
fn shown(objects: &Objects) -> String {
    struct Showing<'a>(&'a Objects, String);
    impl EachKind for Showing<'_> {
        fn kind<T: Kind>(&mut self) {
            for object in T::store(self.0).iter() {
                self.1 += &format!("{} {:?} {:?}\n", object.meta.origin, object.meta.labels, object.refused);
                self.1 += &format!("{:?}\n", object.spec);
            }
        }
    }
    let mut showing = Showing(objects, String::new());
    each_kind(&mut showing);
    showing.1
}

/// The places of a document that pass a test, as JSON pointers and as paths of fields.
fn places(value: &Value, is_one: &dyn Fn(&Value) -> bool) -> Vec<(String, String)> {
    fn walk(value: &Value, at: (String, String), is_one: &dyn Fn(&Value) -> bool, found: &mut Vec<(String, String)>) {
        let (pointer, path) = &at;
        if is_one(value) {
            found.push(at.clone());
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter().filter(|(name, _)| !FREE.contains(&name.as_str())) {
                    let escaped = name.replace('~', "~0").replace('/', "~1");
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(value, (format!("{pointer}/{escaped}"), path), is_one, found);
                }
            }
            Value::Array(elements) => {
                for (index, value) in elements.iter().enumerate() {
                    walk(value, (format!("{pointer}/{index}"), format!("{path}[{index}]")), is_one, found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, (String::new(), String::new()), is_one, &mut found);
    found
}

#[test]
fn the_documents_are_valid_and_of_every_kind() {
    struct Names(BTreeSet<&'static str>);
    impl EachKind for Names {
        fn kind<T: Kind>(&mut self) {
            self.0.insert(T::NAME);
        }
    }
    let mut names = Names(BTreeSet::new());
    each_kind(&mut names);
    let documents = documents();
    let kinds: BTreeSet<&str> = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, names.0);
    for mut document in documents {
        let (objects, findings) = strictly(&document);
        assert!(objects.refused.is_empty(), "{findings:?}");
        // Of a cluster this is not read.
        if let Some(Value::Object(spec)) = document.get_mut("spec") {
            spec.shift_remove("useDefaultGateways");
        }
        let (objects, _) = strictly(&document);
        let cluster = cluster_of([Given::new(document)]);
        // Both ways lead to the same object.
        assert_eq!(shown(cluster.objects()), shown(&objects));
    }
}

#[test]
fn a_field_that_nobody_knows_is_ignored_in_a_cluster_and_refused_in_a_file() {
    let mut count = 0;
    for document in documents() {
        let clean = cluster_of([Given::new(document.clone())]);
        for (pointer, path) in places(&document, &Value::is_object) {
            let mut changed = document.clone();
            let fields = changed.pointer_mut(&pointer).unwrap().as_object_mut().unwrap();
            fields.insert("unheardOf".to_owned(), json!({"type": "Strange"}));
            let cluster = cluster_of([Given::new(changed.clone())]);
            assert_eq!(shown(cluster.objects()), shown(clean.objects()), "{path}");
            assert_eq!(cluster.findings(), clean.findings(), "{path}");
            // Of a Namespace nothing but the metadata is read.
            if document["kind"] != "Namespace" || path == "metadata" {
                let (objects, findings) = strictly(&changed);
                let field = if path.is_empty() { "unheardOf".to_owned() } else { format!("{path}.unheardOf") };
                let told = findings.iter().find(|finding| finding.field == redact::path(&field)).expect(&field);
                let is_secret = document["kind"] == "Secret" && path.is_empty();
                let message = if is_secret { "the value does not fit" } else { "unknown field `unheardOf`" };
                assert_eq!(told.message, message, "{told}");
                assert_eq!(objects.refused.len(), 1, "{told}");
            }
            count += 1;
        }
    }
    assert!(count > 80, "{count} places");
}

/// The fields that have one of a set of values, as the strict way says it.
fn fields_of_enums(document: &Value) -> Vec<(String, String)> {
    let is_told = |pointer: &str, path: &str| {
        let mut changed = document.clone();
        *changed.pointer_mut(pointer).unwrap() = json!("Strange");
        strictly(&changed)
            .1
            .iter()
            .any(|finding| finding.field == path && finding.message == "`Strange` is not a known value")
    };
    let texts = places(document, &Value::is_string).into_iter();
    texts.filter(|(pointer, path)| is_told(pointer, path)).collect()
}

/// What a value that nobody knows refuses, for every field that has one of a set of values.
const REFUSED: [(&str, &str); 36] = [
    ("Gateway spec.listeners[].allowedRoutes.namespaces.from", "spec.listeners[]"),
    ("Gateway spec.listeners[].tls.mode", "spec.listeners[]"),
    ("Gateway spec.allowedListeners.namespaces.from", "spec.allowedListeners"),
    ("Gateway spec.tls.frontend.default.validation.mode", "the object"),
    ("Gateway spec.tls.frontend.perPort[].tls.validation.mode", "the object"),
    ("ListenerSet spec.listeners[].allowedRoutes.namespaces.from", "spec.listeners[]"),
    ("ListenerSet spec.listeners[].tls.mode", "spec.listeners[]"),
    ("HTTPRoute spec.rules[].matches[].path.type", "spec.rules[].matches[]"),
    ("HTTPRoute spec.rules[].matches[].headers[].type", "spec.rules[].matches[]"),
    ("HTTPRoute spec.rules[].matches[].queryParams[].type", "spec.rules[].matches[]"),
    ("HTTPRoute spec.rules[].matches[].method", "spec.rules[].matches[]"),
    ("HTTPRoute spec.rules[].filters[].type", "spec.rules[].filters"),
    ("HTTPRoute spec.rules[].filters[].requestRedirect.scheme", "spec.rules[].filters"),
    ("HTTPRoute spec.rules[].filters[].requestRedirect.path.type", "spec.rules[].filters"),
    ("HTTPRoute spec.rules[].filters[].urlRewrite.path.type", "spec.rules[].filters"),
    ("HTTPRoute spec.rules[].backendRefs[].filters[].type", "spec.rules[].backendRefs[]"),
    ("HTTPRoute spec.rules[].filters[].externalAuth.protocol", "spec.rules[].filters"),
    ("HTTPRoute spec.rules[].sessionPersistence.type", "spec.rules[].sessionPersistence"),
    ("HTTPRoute spec.rules[].sessionPersistence.cookieConfig.lifetimeType", "spec.rules[].sessionPersistence"),
    // There are none, so it is not looked at.
    ("HTTPRoute spec.useDefaultGateways", "nothing"),
    ("GRPCRoute spec.rules[].matches[].method.type", "spec.rules[].matches[]"),
    ("GRPCRoute spec.rules[].matches[].headers[].type", "spec.rules[].matches[]"),
    ("GRPCRoute spec.rules[].filters[].type", "spec.rules[].filters"),
    ("GRPCRoute spec.rules[].backendRefs[].filters[].type", "spec.rules[].backendRefs[]"),
    ("BackendTLSPolicy spec.validation.subjectAltNames[].type", "spec.validation"),
    ("InferencePool spec.appProtocol", "the object"),
    ("InferencePool spec.endpointPickerRef.failureMode", "the object"),
    ("ModelPool spec.access", "the object"),
    ("ModelPool spec.allowedConsumers.namespaces.from", "the object"),
    ("ModelPool spec.models[].affinity", "spec.models[].affinity"),
    ("ModelBackend spec.schema", "the object"),
    ("ModelBackend spec.tls.mode", "the object"),
    ("TokenPolicy spec.mode", "the object"),
    ("TokenPolicy spec.onLedgerUnavailable", "the object"),
    ("TokenPolicy spec.onEarlyEnd", "the object"),
    ("ProxyParameters spec.service.type", "the object"),
];

/// Of a policy, a limit's own values are texts for the type, and its rules tell.
const REFUSED_BY_RULES: [(&str, &str); 2] =
    [("TokenPolicy spec.limits[].count", "the object"), ("TokenPolicy spec.limits[].scope[]", "the object")];

#[test]
fn a_value_that_nobody_knows_refuses_its_own_part() {
    let expected: BTreeMap<&str, &str> = REFUSED.into_iter().chain(REFUSED_BY_RULES).collect();
    let mut seen = BTreeSet::new();
    let without_indices = |path: &str| path.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    for document in documents() {
        let kind = document["kind"].as_str().unwrap();
        for (pointer, path) in fields_of_enums(&document) {
            let field = format!("{kind} {}", without_indices(&path));
            let (field, part) = expected.get_key_value(field.as_str()).expect(&field);
            seen.insert(*field);
            let mut changed = document.clone();
            *changed.pointer_mut(&pointer).unwrap() = json!("Strange");
            let cluster = cluster_of([Given::new(changed)]);
            let objects = cluster.objects();
            match *part {
                "nothing" => {
                    let clean = cluster_of([Given::new(document.clone())]);
                    assert_eq!(shown(objects), shown(clean.objects()), "{field}");
                    assert_eq!(cluster.findings(), clean.findings(), "{field}");
                }
                "the object" => {
                    let findings = cluster.findings();
                    let told = findings.iter().find(|finding| finding.field == path).expect(field);
                    assert!(told.spot.is_none() && told.origin.is_some() && !told.hint.is_empty(), "{told:?}");
                    assert_eq!(objects.refused.len(), 1, "{field}");
                }
                part => {
                    let refused = refused_parts(objects);
                    assert_eq!(without_indices(&refused[0].0), part, "{field}");
                    assert_eq!(refused.len(), 1);
                    let Finding { reason, field: told, message, hint, .. } = &refused[0].1;
                    assert_eq!((*reason, told.as_str()), (Reason::UnsupportedValue, path.as_str()));
                    assert_eq!(message, "`Strange` is not a known value");
                    assert!(hint.starts_with("one of "), "{hint}");
                    assert!(objects.refused.is_empty(), "{field}");
                }
            }
        }
    }
    assert_eq!(seen, expected.keys().copied().collect(), "a field is in no document");
}

fn refused_parts(objects: &Objects) -> Vec<(String, Finding)> {
    struct Parts<'a>(&'a Objects, Vec<(String, Finding)>);
    impl EachKind for Parts<'_> {
        fn kind<T: Kind>(&mut self) {
            for object in T::store(self.0).iter() {
                let part = |finding: &Finding| {
                    let part = parts::around(parts::of_kind(T::NAME), &finding.field).unwrap();
                    assert_eq!(object.refused.of(part), Some(finding));
                    (part.to_owned(), finding.clone())
                };
                self.1.extend(object.refused.findings().map(part));
            }
        }
    }
    let mut all = Parts(objects, Vec::new());
    each_kind(&mut all);
    all.1
}

/// A Secret of a cluster is no way to a file of ours.
#[test]
fn a_secret_of_a_cluster_has_its_data_and_nothing_else() {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "a"}, "type": "Opaque",
        "data": {"apiKey": "b25l", "binary": "//8="},
        "file": {"shadow": "/etc/shadow"}, "env": {"home": "HOME"},
    });
    let cluster: Cluster = cluster_of([Given::new(secret)]);
    assert_eq!(cluster.findings(), []);
    let secret = cluster.objects().secrets.get("a", "s").unwrap();
    let values: Vec<(&str, &str)> =
        secret.spec.values.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
    assert_eq!(values, [("apiKey", "one")]);
}
