//! The routes: each has a hostname of its own, and ten share a namespace until there are a thousand namespaces. All are
//! attached to one Gateway.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::api::Api;
use super::changes::Change;
use super::client::{Answer, Probe};
use crate::lab::install::GATEWAY_CLASS;
use crate::poll;

/// The path that routes redirect to; the route and its version follow.
pub const PATH: &str = "/route/";
/// The Gateway of all routes, in the namespace `default`.
pub const GATEWAY: &str = "scale";

const PER_NAMESPACE: u32 = 10;
const NAMESPACES: u32 = 1_000;
/// Statuses are written 50 a second.
const PATIENCE: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_secs(3);
const GROUP: &str = "/apis/gateway.networking.k8s.io/v1";

pub struct Routes {
    /// The version of each route.
    versions: Vec<u32>,
}

// === impl Routes ===

impl Routes {
    pub fn new(count: u32) -> anyhow::Result<Self> {
        Ok(Self { versions: vec![0; usize::try_from(count)?] })
    }

    /// Makes all of them, and their namespaces before.
    pub async fn make(&self, api: &Api) -> anyhow::Result<()> {
        let namespaces: BTreeSet<String> = self.all().map(namespace).collect();
        let namespaces = namespaces.into_iter().map(|name| {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            ("/api/v1/namespaces".to_owned(), object)
        });
        api.create(namespaces).await?;
        api.create(self.all().map(|route| (collection(route), object(route, self.version(route))))).await
    }

    /// Waits until the control plane has told everybody what it thinks of their routes. It takes its time for that.
    pub async fn all_have_a_status(&self, api: &Api) -> anyhow::Result<()> {
        let path = format!("{GROUP}/httproutes");
        poll::within(PATIENCE, "all routes have a status", || async {
            // The list is long: who asks for it all the time slows down what is waited for.
            tokio::time::sleep(PAUSE).await;
            let list = api.get(&path).await?;
            let all = list.get("items").and_then(Value::as_array).context("no list")?;
            let told = |route: &&Value| route.pointer("/status/parents/0/conditions/0").is_some();
            let count = all.iter().filter(told).count();
            anyhow::ensure!(count == self.versions.len(), "{count} of {} routes have one", self.versions.len());
            Ok(())
        })
        .await
    }

    /// The route that never changes.
    pub fn last(&self) -> u32 {
        self.all().end.saturating_sub(1)
    }

    /// Asks for this route.
    pub fn probe(&self, route: u32) -> Probe {
        let request = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", host(route)).into_bytes();
        Probe { request, answer: Answer::Redirect { route, version: self.version(route) } }
    }

    /// A new version of this route.
    pub fn change(&mut self, route: u32) -> Change {
        let before = self.probe(route).answer;
        if let Some(version) = self.versions.get_mut(route as usize) {
            *version += 1;
        }
        Change {
            path: format!("{}/{}", collection(route), name(route)),
            fields: json!({"spec": {"rules": rules(route, self.version(route))}}),
            before,
            after: self.probe(route),
        }
    }

    fn all(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.versions.len()).unwrap_or(u32::MAX)
    }

    fn version(&self, route: u32) -> u32 {
        self.versions.get(route as usize).copied().unwrap_or_default()
    }
}

/// The route of the change with this index. One change after the other lands far away, and none comes twice before
/// there were as many changes as routes (unless their number is a multiple of this prime).
pub fn spread(index: u32, count: u32) -> u32 {
    let route = u64::from(index) * 7_919 % u64::from(count.max(1));
    u32::try_from(route).unwrap_or_default()
}

pub fn gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": GATEWAY, "namespace": "default"},
        "spec": {
            "gatewayClassName": GATEWAY_CLASS,
            "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}},
            ],
        },
    })
}

fn name(route: u32) -> String {
    format!("route-{route}")
}

fn namespace(route: u32) -> String {
    format!("team-{}", route / PER_NAMESPACE % NAMESPACES)
}

fn host(route: u32) -> String {
    format!("host-{route}.example.com")
}

/// The path of the collection that the route is in.
fn collection(route: u32) -> String {
    format!("{GROUP}/namespaces/{}/httproutes", namespace(route))
}

fn object(route: u32, version: u32) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name(route), "namespace": namespace(route)},
        "spec": {
            "parentRefs": [{"name": GATEWAY, "namespace": "default"}],
            "hostnames": [host(route)],
            "rules": rules(route, version),
        },
    })
}

fn rules(route: u32, version: u32) -> Value {
    let path = json!({"type": "ReplaceFullPath", "replaceFullPath": format!("{PATH}{route}/{version}")});
    json!([{"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 302, "path": path}}]}])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_its_route_and_version() {
        let mut routes = Routes::new(230).unwrap();
        let change = routes.change(215);
        assert_eq!(change.path, "/apis/gateway.networking.k8s.io/v1/namespaces/team-21/httproutes/route-215");
        assert_eq!(change.before, Answer::Redirect { route: 215, version: 0 });
        assert_eq!(change.after.answer, Answer::Redirect { route: 215, version: 1 });
        assert!(change.fields.to_string().contains("/route/215/1"), "{}", change.fields);
        assert_eq!(routes.last(), 229);
    }

    #[test]
    fn there_are_a_thousand_namespaces_at_most() {
        let all: BTreeSet<String> = (0..30_000).map(namespace).collect();
        assert_eq!(all.len(), 1_000);
    }
}
