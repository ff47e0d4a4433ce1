//! manifests/audit-policy.yaml keeps what it says it keeps, by the API server's own rule: the first one that fits counts.

use std::fs;
use std::path::Path;

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use tollgate_core::objects::places;

fn policy() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("manifests/audit-policy.yaml");
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The level at which such a request is kept.
fn level(verb: &str, group: &str, resource: &str) -> Option<String> {
    let has = |list: &Value, text: &str| list.as_array().unwrap().iter().any(|found| found == text);
    let policy = policy();
    let fits = |rule: &&Value| {
        let of_verb = rule["verbs"].is_null() || has(&rule["verbs"], verb);
        let resources = rule["resources"].as_array().unwrap();
        of_verb && resources.iter().any(|of| of["group"] == group && has(&of["resources"], resource))
    };
    let rules = policy["rules"].as_array().unwrap();
    rules.iter().find(fits).map(|rule| rule["level"].as_str().unwrap().to_owned())
}

#[test]
fn the_audit_policy_keeps_who_reads_secrets_and_who_changes_what_decides() {
    assert_eq!((&policy()["apiVersion"], &policy()["kind"]), (&"audit.k8s.io/v1".into(), &"Policy".into()));
    for verb in ["get", "list", "watch", "create", "delete"] {
        assert_eq!(level(verb, "", "secrets").as_deref(), Some("Metadata"), "{verb}: no content of a Secret");
    }
    const GATEWAY: &str = "gateway.networking.k8s.io";
    for verb in ["create", "update", "patch", "delete", "deletecollection"] {
        for resource in ["referencegrants", "gateways", "httproutes", "grpcroutes", "tlsroutes"] {
            assert_eq!(level(verb, GATEWAY, resource).as_deref(), Some("Request"), "{verb} {resource}");
        }
        assert_eq!(level(verb, "tollgate.dev", "consumers").as_deref(), Some("Metadata"));
        assert_eq!(level(verb, "tollgate.dev", "tokenpolicies").as_deref(), Some("Request"));
    }
    assert_eq!(level("patch", GATEWAY, "httproutes/status"), None, "what we write all the time");
    assert_eq!(level("list", GATEWAY, "httproutes"), None);
}

#[test]
fn the_audit_policy_knows_every_kind_of_ours_and_of_the_gateway_api() {
    for place in places().filter(|place| ["tollgate.dev", "gateway.networking.k8s.io"].contains(&place.group)) {
        let plural = match place.kind {
            "ProxyParameters" => "proxyparameters".to_owned(),
            kind => ApiResource::from_gvk(&GroupVersionKind::gvk(place.group, "v1", kind)).plural,
        };
        assert!(level("patch", place.group, &plural).is_some(), "{}/{plural}", place.group);
    }
}
