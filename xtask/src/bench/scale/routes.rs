//! The folder of routes: each has a hostname of its own, ten share a namespace, and a hundred share a file. All are
//! attached to one Gateway. A pool, a backend and a consumer are there too, so that Envoy has the filter.

use std::path::{Path, PathBuf};

use super::changes::Change;
use super::client::{Answer, Probe};
use crate::bench::config;

/// The path that routes redirect to; the route and its version follow.
pub const PATH: &str = "/route/";
const PER_NAMESPACE: u32 = 10;
const PER_FILE: u32 = 100;

/// The hostname of the models' route.
pub const MODELS_HOST: &str = "models.example.com";

pub struct Routes {
    folder: PathBuf,
    /// The version of each route.
    versions: Vec<u32>,
}

// === impl Routes ===

impl Routes {
    pub fn write(folder: &Path, port: u16, count: u32) -> anyhow::Result<Self> {
        let size = usize::try_from(count)?;
        let routes = Self { folder: folder.to_path_buf(), versions: vec![0; size] };
        std::fs::write(folder.join("models.yaml"), models(port))?;
        for file in 0..count.div_ceil(PER_FILE) {
            std::fs::write(routes.path(file), routes.text(file))?;
        }
        Ok(routes)
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
        let file = route / PER_FILE;
        Change { file: self.path(file), text: self.text(file), before, after: self.probe(route) }
    }

    fn version(&self, route: u32) -> u32 {
        self.versions.get(route as usize).copied().unwrap_or_default()
    }

    fn path(&self, file: u32) -> PathBuf {
        self.folder.join(format!("routes-{file:05}.yaml"))
    }

    fn text(&self, file: u32) -> String {
        let first = file * PER_FILE;
        let end = (first + PER_FILE).min(u32::try_from(self.versions.len()).unwrap_or(u32::MAX));
        (first..end).map(|route| document(route, self.version(route))).collect::<Vec<_>>().join("---\n")
    }
}

/// The route of the change with this index. One change after the other lands far away, and none comes twice before
/// there were as many changes as routes (unless their number is a multiple of this prime).
pub fn spread(index: u32, count: u32) -> u32 {
    let route = u64::from(index) * 7_919 % u64::from(count.max(1));
    u32::try_from(route).unwrap_or_default()
}

fn host(route: u32) -> String {
    format!("host-{route}.example.com")
}

fn document(route: u32, version: u32) -> String {
    let (namespace, host) = (route / PER_NAMESPACE, host(route));
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route-{route}, namespace: team-{namespace}}}
spec:
  parentRefs: [{{name: scale, namespace: default}}]
  hostnames: [{host}]
  rules:
  - filters:
    - type: RequestRedirect
      requestRedirect: {{statusCode: 302, path: {{type: ReplaceFullPath, replaceFullPath: {PATH}{route}/{version}}}}}
"
    )
}

/// The Gateway, and a route to a pool with one backend and one consumer. No request reaches the backend.
pub fn models(port: u16) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: scale}}
spec:
  gatewayClassName: tollgate
  listeners: [{{name: http, port: {port}, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: models}}
spec:
  parentRefs: [{{name: scale}}]
  hostnames: [{MODELS_HOST}]
  rules: [{{backendRefs: [{{group: tollgate.dev, kind: ModelPool, name: models}}]}}]
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {{name: models}}
spec: {{models: [{{name: smol, targets: [{{backendRef: {{name: runner}}}}]}}]}}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {{name: runner}}
spec: {{schema: OpenAI, endpoint: {{hostname: 127.0.0.1, port: 9}}}}
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {{name: bench}}
spec: {{keys: [{{sha256: {}}}]}}
",
        config::HASH
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::parsed;
    use super::*;

    #[test]
    fn the_control_plane_takes_the_files_and_routes_to_all_of_it() {
        let mut routes = Routes { folder: PathBuf::new(), versions: vec![0; 230] };
        let change = routes.change(215);
        assert_eq!(change.file, Path::new("routes-00002.yaml"));
        assert_eq!(change.before, Answer::Redirect { route: 215, version: 0 });
        assert_eq!(change.after.answer, Answer::Redirect { route: 215, version: 1 });
        assert!(change.text.contains("/route/215/1") && change.text.contains("/route/216/0"), "{}", change.text);
        let texts = [models(8080), routes.text(0), routes.text(1), change.text];
        let ir = parsed::ir(&texts);
        let sites = ir.gateways.values().flat_map(|gateway| &gateway.listeners).flat_map(|listener| &listener.sites);
        let hosts: BTreeSet<&str> =
            sites.flat_map(|site| site.virtual_hosts.values()).map(|host| &*host.domain).collect();
        assert!((0..230).map(host).chain([MODELS_HOST.to_owned()]).all(|host| hosts.contains(&*host)), "{hosts:?}");
    }

    #[test]
    fn changes_are_spread() {
        let all: BTreeSet<u32> = (0..100).map(|index| spread(index, 100)).collect();
        assert_eq!(all.len(), 100);
        assert!((0..20).all(|index| spread(index, 1) == 0));
    }
}
