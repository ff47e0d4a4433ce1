//! The CustomResourceDefinition of a kind: its names, columns and status around the schema of its `spec`.

use serde_json::{Map, Value, json};

pub struct Names {
    kind: &'static str,
    pub plural: &'static str,
    short: &'static str,
    /// Title, type and JSONPath.
    columns: &'static [[&'static str; 3]],
}

const ACCEPTED: [&str; 3] = ["Accepted", "string", ".status.conditions[?(@.type=='Accepted')].status"];

const USED_BY: [&str; 3] = ["Used By", "integer", ".status.usedBy.total"];

pub fn names(kind: &'static str) -> Names {
    let (plural, short, columns): (_, _, &[_]) = match kind {
        "ModelPool" => (
            "modelpools",
            "mp",
            &[
                ["Access", "string", ".spec.access"],
                ["Models", "string", ".spec.models[*].name"],
                ["Backends", "integer", ".status.backends.total"],
                ["Ready", "integer", ".status.backends.ready"],
                USED_BY,
                ACCEPTED,
            ],
        ),
        "ModelBackend" => (
            "modelbackends",
            "mb",
            &[
                ["Schema", "string", ".spec.schema"],
                ["Host", "string", ".spec.endpoint.hostname"],
                ["Service", "string", ".spec.endpoint.service.name"],
                USED_BY,
                ACCEPTED,
            ],
        ),
        "Consumer" => (
            "consumers",
            "tgc",
            &[
                ["Models", "string", ".spec.models[*]"],
                ["Keys", "integer", ".status.keys"],
                ["Last Used", "date", ".status.lastUsed"],
                ["Spent Today", "integer", ".status.spentToday.tokens"],
                ACCEPTED,
            ],
        ),
        "TokenPolicy" => (
            "tokenpolicies",
            "tp",
            &[
                ["Mode", "string", ".spec.mode"],
                ["Targets", "string", ".spec.targetRefs[*].name"],
                ["Accepted", "string", ".status.ancestors[*].conditions[?(@.type=='Accepted')].status"],
            ],
        ),
        "ProxyParameters" => {
            ("proxyparameters", "pxp", &[["Image", "string", ".spec.image"], ["Replicas", "integer", ".spec.replicas"]])
        }
        _ => panic!("{kind} has no names yet"),
    };
    Names { kind, plural, short, columns }
}

pub fn definition(names: &Names, spec: &Value) -> Value {
    let column = |[name, kind, path]: &[&str; 3]| json!({"name": name, "type": kind, "jsonPath": path});
    let mut columns: Vec<Value> = names.columns.iter().map(column).collect();
    columns.push(column(&["Age", "date", ".metadata.creationTimestamp"]));
    let mut schema = json!({
        "type": "object",
        "description": spec["description"],
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(spec.clone()),
            "status": status(names),
        },
    });
    if names.kind == "Consumer" {
        schema["x-kubernetes-validations"] = json!([{"rule": "self.metadata.name != 'anonymous'", "message": "`anonymous` stands for the callers of anonymous pools"}]);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.tollgate.dev", names.plural)},
        "spec": {
            "group": "tollgate.dev",
            "scope": "Namespaced",
            "names": {
                "kind": names.kind,
                "listKind": format!("{}List", names.kind),
                "plural": names.plural,
                "singular": names.kind.to_lowercase(),
                "shortNames": [names.short],
                "categories": ["tollgate"],
            },
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
            }],
        },
    })
}

/// What the API server wants otherwise than schemars writes it: no titles, an optional enum in one piece, and bounds on
/// every text and list, without which it refuses rules as too expensive.
pub fn structural(mut schema: Value) -> Value {
    let Value::Object(object) = &mut schema else { return schema };
    object.remove("title");
    // An absent object means the same as an empty one.
    if object
        .get("default")
        .is_some_and(|default| !(default.is_string() || default.is_number() || default.is_boolean()))
    {
        object.remove("default");
    }
    for (kind, bound) in [("string", "maxLength"), ("array", "maxItems")] {
        let is_one = object.get("type").is_some_and(|it| it == kind) && !object.contains_key("enum");
        if is_one && !object.contains_key(bound) {
            object.insert(bound.into(), json!(253));
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        let inner = std::mem::take(properties);
        *properties = inner.into_iter().map(|(name, it)| (name, structural(it))).collect::<Map<_, _>>();
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key).filter(|inner| inner.is_object()) {
            *inner = structural(inner.take());
        }
    }
    for key in ["anyOf", "allOf", "oneOf"] {
        let Some(Value::Array(parts)) = object.get(key) else { continue };
        let typed: Vec<_> = parts.iter().filter(|part| part.get("type").is_some()).cloned().collect();
        if let [Value::Object(only)] = typed.as_slice() {
            object.remove(key);
            for (name, value) in only.clone() {
                object.entry(name).or_insert(value);
            }
            return structural(schema);
        }
    }
    schema
}

fn count(description: &str) -> Value {
    json!({"type": "integer", "format": "int64", "minimum": 0, "description": description})
}

fn reference(description: &str) -> Value {
    let text = json!({"type": "string", "maxLength": 253});
    json!({
        "type": "object",
        "description": description,
        "required": ["name"],
        "properties": {"group": text, "kind": text, "namespace": text, "name": text},
    })
}

fn status(names: &Names) -> Value {
    let text = |most: u32| json!({"type": "string", "maxLength": most});
    let generation = json!({"type": "integer", "format": "int64", "minimum": 0});
    let mut properties = json!({
        "observedGeneration": generation,
        "conditions": {
            "type": "array",
            "maxItems": 64,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type", "status", "reason", "message", "lastTransitionTime"],
                "properties": {
                    "type": text(316),
                    "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                    "reason": text(1024),
                    "message": text(32768),
                    "lastTransitionTime": {"type": "string", "format": "date-time"},
                    "observedGeneration": generation,
                },
            },
        },
    });
    if names.kind == "TokenPolicy" {
        // As the Gateway API has it for policies (PolicyAncestorStatus).
        properties["ancestors"] = json!({
            "type": "array",
            "maxItems": 16,
            "description": "What became of it at each of its targets.",
            "items": {
                "type": "object",
                "required": ["ancestorRef", "controllerName"],
                "properties": {
                    "ancestorRef": reference("A target, as the policy names it."),
                    "controllerName": text(253),
                    "conditions": properties["conditions"],
                },
            },
        });
    }
    let used_by = match names.kind {
        "ModelPool" => "The routes that lead to it, where they are attached.",
        "ModelBackend" => "The ModelPools that name it and may use it.",
        "Consumer" => "The ModelPools in which it counts. Callers of anonymous pools are no Consumers.",
        _ => "",
    };
    if !used_by.is_empty() {
        properties["usedBy"] = json!({
            "type": "object",
            "description": used_by,
            "required": ["total"],
            "properties": {
                "total": count("How many there are."),
                "objects": {
                    "type": "array",
                    "maxItems": 16,
                    "x-kubernetes-list-type": "atomic",
                    "description": "The first 16 of them, by namespace and name.",
                    "items": reference("Such an object."),
                },
            },
        });
    }
    if names.kind == "ModelPool" {
        properties["backends"] = json!({
            "type": "object",
            "description": "The ModelBackends that it names, each once.",
            "required": ["total", "ready"],
            "properties": {
                "total": count("How many it names."),
                "ready": count("How many of them can be used and have an endpoint that takes requests. What is no Service counts as one."),
            },
        });
    }
    if names.kind == "Consumer" {
        properties["keys"] = count("How many of its keys count now.");
        properties["spentToday"] = json!({
            "type": "object",
            "description": "What it has spent on the day of UTC that was last written, to the minute. Absent: nothing on this day.",
            "required": ["date", "tokens"],
            "properties": {
                "date": {"type": "string", "format": "date"},
                "tokens": count("Tokens of its requests and their answers, as they were settled."),
            },
        });
        properties["lastUsed"] = json!({"type": "string", "format": "date-time", "description": "When a request of it was settled last, to some minutes."});
    }
    json!({"type": "object", "description": "What became of it.", "properties": properties})
}
