//! The gateway's configuration: one port, and a route for each part that can be left out.

use std::path::Path;

/// The hostname of a listener of its own, on the same port. Routes without hostnames are for all hosts of their
/// listeners, so no route to a pool names this listener.
pub const PLAIN_HOST: &str = "plain.bench";
/// The parent of the routes for all other hosts.
const BESIDE_PLAIN: &str = "{name: bench, sectionName: http}";
pub const KEY: &str = "the-key-of-the-benchmark";
/// SHA-256 of the key.
pub const HASH: &str = "920a127c5852dec7b929e99ccf74a9f7d8d07efec5597c248d88d4a10a754dac";

/// Writes the configuration. On `port` there are four routes: `/pass` leads to the backend as a Service, `/open` needs
/// no key, `/key` needs a key, and `/budget` needs a key and has a budget. [`PLAIN_HOST`] leads to the backend. On `bare`
/// there is a Gateway that routes to no model and so has no filter.
pub fn write(folder: &Path, port: u16, bare: u16, backend: u16) -> anyhow::Result<()> {
    let mut documents = vec![
        format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: bare}}
spec: {{gatewayClassName: tollgate, listeners: [{{name: http, port: {bare}, protocol: HTTP}}]}}
"
        ),
        format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: bench}}
spec:
  gatewayClassName: tollgate
  listeners:
  - {{name: http, port: {port}, protocol: HTTP}}
  - {{name: plain, port: {port}, protocol: HTTP, hostname: {PLAIN_HOST}}}
"
        ),
        format!(
            "\
apiVersion: v1
kind: Service
metadata: {{name: backend}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: backend-1, labels: {{kubernetes.io/service-name: backend}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: http, port: {backend}}}]
"
        ),
        route(BESIDE_PLAIN, "pass", "{name: backend, port: 80}"),
        route("{name: bare}", "bare", "{name: backend, port: 80}"),
        format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: plain}}
spec:
  parentRefs: [{{name: bench, sectionName: plain}}]
  rules: [{{backendRefs: [{{name: backend, port: 80}}]}}]
"
        ),
        format!(
            "\
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {{name: bench}}
spec: {{keys: [{{sha256: {HASH}}}]}}
"
        ),
        // Tokens that never run out, so that every request is admitted from a lease.
        "\
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: bench}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: budget}]
  limits: [{name: all, tokens: 1000000000000, window: 3650d, scope: [Consumer], count: Total}]
"
        .to_owned(),
    ];
    for (name, access) in [("open", "Anonymous"), ("key", "Required"), ("budget", "Required")] {
        let pool_of = format!("{{group: tollgate.dev, kind: ModelPool, name: {name}}}");
        documents.push(route(BESIDE_PLAIN, name, &pool_of));
        documents.push(pool(name, access));
    }
    for name in ["single", "first", "second"] {
        documents.push(format!(
            "\
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {{name: {name}}}
spec: {{schema: OpenAI, endpoint: {{hostname: 127.0.0.1, port: {backend}}}}}
"
        ));
    }
    std::fs::write(folder.join("bench.yaml"), documents.join("---\n"))?;
    Ok(())
}

fn route(parent: &str, name: &str, backend: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{parent}]
  rules: [{{matches: [{{path: {{type: PathPrefix, value: /{name}}}}}], backendRefs: [{backend}]}}]
"
    )
}

/// `smol` has one backend; `pair` has two, so its attempts pass the filter once more.
fn pool(name: &str, access: &str) -> String {
    format!(
        "\
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {{name: {name}}}
spec:
  access: {access}
  models:
  - {{name: smol, targets: [{{backendRef: {{name: single}}, model: m}}]}}
  - name: pair
    targets:
    - {{backendRef: {{name: first}}, model: m}}
    - {{backendRef: {{name: second}}, model: m, priority: 1}}
"
    )
}
