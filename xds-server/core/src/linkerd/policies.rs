//! The objects that hold a Linkerd mesh to this: runners take requests of Gateways alone, and what they take is written down.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{ACCESS_LOG, AccessLog, LOG_LEVEL};
use crate::terms::Key;

/// The group of Linkerd's policies.
const GROUP: &str = "policy.linkerd.io";
const GATEWAYS: &str = "tollgate-gateways";
/// At `info` it says whom it has refused. The last two keep headers and requests out, whatever else is raised to `debug`: a
/// header may be a key.
const LEVEL: &str = "warn,linkerd=info,hickory=error,[{headers}]=off,[{request}]=off";

/// What they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    /// The service accounts of the Gateways' proxies.
    pub gateways: Vec<Key>,
    /// The namespaces of the runners. Nobody else is called there.
    pub runners: Vec<String>,
    /// Where the runners listen. Linkerd has a policy for each port of a Pod.
    pub ports: BTreeSet<Port>,
}

/// A port of Pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    Number(u16),
    /// As a container calls it.
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no port: a number from 1 to 65535, or the name of a container's port")]
pub struct InvalidPort(String);

// === impl Policies ===

impl Policies {
    /// The objects, for server-side apply.
    pub fn documents(&self) -> Vec<Value> {
        self.runners.iter().flat_map(|namespace| self.of_runners(namespace)).collect()
    }

    fn of_runners(&self, namespace: &str) -> Vec<Value> {
        // Pods get these when they are made. The first one holds for ports without a Server, too.
        let defaults = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "annotations": {
                "config.linkerd.io/default-inbound-policy": "deny",
                ACCESS_LOG: AccessLog::Json.name(),
                LOG_LEVEL: LEVEL,
            }},
        });
        let identities: Vec<Value> = self
            .gateways
            .iter()
            .map(|account| json!({"kind": "ServiceAccount", "name": *account.name, "namespace": *account.namespace}))
            .collect();
        let gateways =
            object("v1alpha1", "MeshTLSAuthentication", namespace, GATEWAYS, &json!({"identityRefs": identities}));
        let ports = self.ports.iter().flat_map(|port| of_port(namespace, port));
        [defaults, gateways].into_iter().chain(ports).collect()
    }
}

/// Who is let in at a port, whatever the Pod: the Gateways, and nobody else.
fn of_port(namespace: &str, port: &Port) -> [Value; 2] {
    let name = format!("tollgate-{port}");
    let server = json!({"podSelector": {}, "port": port.value(), "accessPolicy": "deny"});
    let policy = json!({
        "targetRef": {"group": GROUP, "kind": "Server", "name": name},
        "requiredAuthenticationRefs": [{"group": GROUP, "kind": "MeshTLSAuthentication", "name": GATEWAYS}],
    });
    [
        object("v1beta3", "Server", namespace, &name, &server),
        object("v1alpha1", "AuthorizationPolicy", namespace, &name, &policy),
    ]
}

fn object(version: &str, kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{version}"),
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

// === impl Port ===

impl Port {
    fn value(&self) -> Value {
        match self {
            Self::Number(number) => json!(number),
            Self::Name(name) => json!(name),
        }
    }
}

impl std::str::FromStr for Port {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let wrong = || InvalidPort(text.to_owned());
        if let Ok(number) = text.parse::<u16>() {
            return if number > 0 { Ok(Self::Number(number)) } else { Err(wrong()) };
        }
        // RFC 6335, 5.1, in lower case as Kubernetes has it.
        let is_sign = |sign: char| matches!(sign, 'a'..='z' | '0'..='9' | '-');
        let is_name = (1..=15).contains(&text.len())
            && text.chars().all(is_sign)
            && text.contains(|sign: char| sign.is_ascii_lowercase())
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.contains("--");
        if is_name { Ok(Self::Name(text.to_owned())) } else { Err(wrong()) }
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_and_port_has_its_own_and_names_each_gateway() {
        let policies = Policies {
            gateways: vec![Key::new("edge", "a"), Key::new("shop", "b")],
            runners: vec!["models".to_owned(), "more".to_owned()],
            ports: ["8000", "http"].map(|port| port.parse().unwrap()).into(),
        };
        let all = policies.documents();
        let text = |object: &Value, pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let names: Vec<String> = all
            .iter()
            .map(|object| {
                ["/kind", "/metadata/namespace", "/metadata/name"].map(|pointer| text(object, pointer)).join(" ")
            })
            .collect();
        let of = |namespace: &str| {
            [
                format!("Namespace  {namespace}"),
                format!("MeshTLSAuthentication {namespace} tollgate-gateways"),
                format!("Server {namespace} tollgate-8000"),
                format!("AuthorizationPolicy {namespace} tollgate-8000"),
                format!("Server {namespace} tollgate-http"),
                format!("AuthorizationPolicy {namespace} tollgate-http"),
            ]
        };
        assert_eq!(names, [of("models"), of("more")].concat());
        let annotations = json!({
            "config.linkerd.io/default-inbound-policy": "deny",
            "config.linkerd.io/access-log": "json",
            "config.linkerd.io/proxy-log-level": "warn,linkerd=info,hickory=error,[{headers}]=off,[{request}]=off",
        });
        assert_eq!(all[0]["metadata"]["annotations"], annotations);
        let accounts = [("a", "edge"), ("b", "shop")];
        let accounts =
            accounts.map(|(name, namespace)| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
        assert_eq!(all[1]["spec"], json!({"identityRefs": accounts}));
        // Linkerd tells a number from a name by its type.
        assert_eq!((&all[2]["spec"]["port"], &all[4]["spec"]["port"]), (&json!(8000), &json!("http")));
        for (server, policy) in [(&all[2], &all[3]), (&all[4], &all[5])] {
            assert_eq!(server["spec"]["accessPolicy"], "deny");
            assert_eq!(policy["spec"]["targetRef"]["name"], server["metadata"]["name"]);
            assert_eq!(policy["spec"]["requiredAuthenticationRefs"][0]["name"], all[1]["metadata"]["name"]);
        }
    }

    #[test]
    fn a_port_is_a_number_or_a_containers_name_for_it() {
        assert_eq!("65535".parse(), Ok(Port::Number(65535)));
        assert_eq!("http-2".parse(), Ok(Port::Name("http-2".to_owned())));
        for bad in ["", "0", "65536", "-1", "8000-8001", "HTTP", "a--b", "a-", "-a", "sixteen-letters0", "a b"] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
    }
}
