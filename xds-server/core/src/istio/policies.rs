//! The objects that hold a mesh to this: runners take requests of Gateways alone, and what they take is written down.

use serde_json::{Value, json};

use super::{ROOT, principal};
use crate::terms::Key;

/// What they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    pub trust_domain: String,
    /// The service accounts of the Gateways' proxies.
    pub gateways: Vec<Key>,
    /// The namespaces of the runners. Nobody else is called there.
    pub runners: Vec<String>,
    /// Namespaces whose workloads are to see the Gateways, themselves, and nothing else of the mesh.
    pub callers: Vec<String>,
}

// === impl Policies ===

impl Policies {
    /// The objects, for server-side apply.
    pub fn documents(&self) -> Vec<Value> {
        let runners = self.runners.iter().flat_map(|namespace| self.of_runners(namespace));
        runners.chain(self.callers.iter().map(|namespace| self.of_callers(namespace))).collect()
    }

    fn of_runners(&self, namespace: &str) -> [Value; 4] {
        let principals: Vec<String> =
            self.gateways.iter().map(|account| principal(&self.trust_domain, account)).collect();
        [
            object("PeerAuthentication", namespace, "tollgate-strict", &json!({"mtls": {"mode": "STRICT"}})),
            // A policy without a rule lets nobody in.
            object("AuthorizationPolicy", namespace, "tollgate-deny", &json!({})),
            object(
                "AuthorizationPolicy",
                namespace,
                "tollgate-gateways",
                &json!({"action": "ALLOW", "rules": [{"from": [{"source": {"principals": principals}}]}]}),
            ),
            object(
                "Telemetry",
                namespace,
                "tollgate-log",
                &json!({"accessLogging": [{"providers": [{"name": "envoy"}]}]}),
            ),
        ]
    }

    /// A namespace has one Sidecar for all of its workloads.
    fn of_callers(&self, namespace: &str) -> Value {
        let mut hosts = vec!["./*".to_owned(), format!("{ROOT}/*")];
        for gateway in &self.gateways {
            let host = format!("{}/*", gateway.namespace);
            if *gateway.namespace != *namespace && !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        object("Sidecar", namespace, "default", &json!({"egress": [{"hosts": hosts}]}))
    }
}

fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    let group = match kind {
        "PeerAuthentication" | "AuthorizationPolicy" => "security.istio.io",
        "Telemetry" => "telemetry.istio.io",
        _ => "networking.istio.io",
    };
    json!({
        "apiVersion": format!("{group}/v1"),
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_has_its_own_and_names_each_gateway_once() {
        let policies = Policies {
            trust_domain: "td".to_owned(),
            gateways: vec![Key::new("edge", "a"), Key::new("edge", "b"), Key::new("shop", "c")],
            runners: vec!["models".to_owned(), "more".to_owned()],
            callers: vec!["shop".to_owned()],
        };
        let all = policies.documents();
        let names: Vec<String> = all
            .iter()
            .map(|object| {
                format!("{} {}", object["metadata"]["namespace"], object["metadata"]["name"]).replace('"', "")
            })
            .collect();
        let of =
            |namespace: &str| ["strict", "deny", "gateways", "log"].map(|name| format!("{namespace} tollgate-{name}"));
        assert_eq!(names, [&of("models")[..], &of("more"), &["shop default".to_owned()]].concat());
        let principals = &all[2]["spec"]["rules"][0]["from"][0]["source"]["principals"];
        assert_eq!(*principals, json!(["td/ns/edge/sa/a", "td/ns/edge/sa/b", "td/ns/shop/sa/c"]));
        assert_eq!(all[8]["spec"]["egress"][0]["hosts"], json!(["./*", "istio-system/*", "edge/*"]));
        assert_eq!(all[1]["spec"], json!({}));
    }
}
