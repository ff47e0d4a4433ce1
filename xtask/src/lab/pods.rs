//! What every Pod that the chart makes must say of its security, whatever the values: that of the Pod Security Standard
//! `restricted`, and more (rows A4 and A5 of docs/security.md). It is a rule and no list, so a new Pod is held to it, too.

use serde_json::{Value, json};

/// What is wrong with the Pods of an object, by path. An object without Pods has nothing wrong with it.
pub fn wrong(object: &Value) -> Vec<String> {
    let pod = match object.get("kind").and_then(Value::as_str) {
        Some("Pod") => object.get("spec"),
        Some("CronJob") => object.pointer("/spec/jobTemplate/spec/template/spec"),
        _ => object.pointer("/spec/template/spec"),
    };
    pod.map(of_pod).unwrap_or_default()
}

/// Whether an object has Pods.
pub fn has_pods(object: &Value) -> bool {
    ["/spec/containers", "/spec/template/spec/containers", "/spec/jobTemplate/spec/template/spec/containers"]
        .iter()
        .any(|pointer| object.pointer(pointer).is_some())
}

fn of_pod(pod: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    let context = |name: &str| pod.pointer(&format!("/securityContext/{name}"));
    must(context("runAsNonRoot") == Some(&json!(true)), "runAsNonRoot is not true".to_owned());
    for name in ["runAsUser", "runAsGroup", "fsGroup"] {
        let is_somebody = context(name).and_then(Value::as_u64).is_some_and(|id| id > 0);
        must(is_somebody, format!("{name} is no user but root"));
    }
    must(
        context("seccompProfile") == Some(&json!({"type": "RuntimeDefault"})),
        "seccomp is not RuntimeDefault".to_owned(),
    );
    for name in ["hostNetwork", "hostPID", "hostIPC"] {
        must(pod.get(name).is_none(), format!("{name} is there"));
    }
    let list = |name: &str| pod.get(name).and_then(Value::as_array).into_iter().flatten();
    for volume in list("volumes") {
        must(volume.get("hostPath").is_none(), format!("the volume {volume} is a folder of the node"));
    }
    for container in list("initContainers").chain(list("containers")) {
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        let context = container.get("securityContext").cloned().unwrap_or_default();
        // Nothing else either: a container may not take back what its Pod says.
        let wanted = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        });
        must(context == wanted, format!("the container {name} has the securityContext {context}"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"kind": "Pod", "spec": {
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 1, "runAsGroup": 1, "fsGroup": 1,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{"name": "c", "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            }}],
        }})
    }

    #[test]
    fn each_field_of_a_pod_counts() {
        assert_eq!(wrong(&pod()), Vec::<String>::new());
        let container = "/spec/containers/0/securityContext";
        for (at, name, value) in [
            ("/spec/securityContext", "runAsNonRoot", json!(false)),
            ("/spec/securityContext", "runAsUser", json!(0)),
            ("/spec/securityContext", "runAsGroup", json!(0)),
            ("/spec/securityContext", "fsGroup", json!(null)),
            ("/spec/securityContext", "seccompProfile", json!({"type": "Unconfined"})),
            ("/spec", "hostNetwork", json!(true)),
            ("/spec", "hostPID", json!(true)),
            ("/spec", "volumes", json!([{"name": "v", "hostPath": {"path": "/"}}])),
            ("/spec", "initContainers", json!([{"name": "i"}])),
            (container, "allowPrivilegeEscalation", json!(true)),
            (container, "readOnlyRootFilesystem", json!(false)),
            (container, "capabilities", json!({"drop": ["ALL"], "add": ["NET_ADMIN"]})),
            (container, "privileged", json!(true)),
            (container, "runAsUser", json!(0)),
        ] {
            let mut changed = pod();
            changed.pointer_mut(at).unwrap().as_object_mut().unwrap().insert(name.to_owned(), value);
            assert_eq!(wrong(&changed).len(), 1, "{at}/{name}: {:?}", wrong(&changed));
        }
    }

    #[test]
    fn pods_are_found_wherever_they_are() {
        let spec = json!({"containers": [{"name": "c"}]});
        for object in [
            json!({"kind": "Pod", "spec": spec}),
            json!({"kind": "Deployment", "spec": {"template": {"spec": spec}}}),
            json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}}),
        ] {
            assert!(has_pods(&object) && wrong(&object).len() == 6, "{object}");
        }
        let none = json!({"kind": "Service", "spec": {"ports": []}});
        assert!(!has_pods(&none) && wrong(&none).is_empty());
    }
}
