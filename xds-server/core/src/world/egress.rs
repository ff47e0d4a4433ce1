//! Where the proxies of a Gateway connect to, as a NetworkPolicy can say it: the Pods behind the Services and
//! InferencePools that its routes lead to, what is outside of the cluster, and the collector of its spans.

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::fleet::{Destination, Egress};
use crate::ir;
use crate::objects::{Key, Object, Service};
use crate::terms::Collector;
use crate::translate::services::cluster_name;

use super::World;

/// What the name of a Service in DNS has behind its namespace.
const IN_CLUSTER: &str = "svc";

// === impl World ===

impl World {
    /// Nothing of a Gateway that is not served. `collector` takes the spans of all of them.
    pub fn egress(&self, gateway: &Key, collector: Option<&Collector>) -> Egress {
        let mut egress = Egress::new();
        let Some(gateway) = self.ir.gateways.get(gateway) else { return egress };
        for service in gateway.services.values() {
            self.to_service(service, &mut egress);
        }
        for backend in gateway.catalog.backends.values() {
            match &backend.endpoint {
                ir::Endpoint::Address { ip, port } => add(&mut egress, Destination::Address(*ip), [*port]),
                ir::Endpoint::Dns { hostname, port } => self.to_host(hostname, *port, &mut egress),
                // They are among the Services.
                ir::Endpoint::Service { .. } | ir::Endpoint::InferencePool { .. } => {}
            }
        }
        for issuer in &gateway.jwt_issuers {
            if let ir::JwtKeys::Remote { host, port, .. } = &issuer.keys {
                self.to_host(host, *port, &mut egress);
            }
        }
        if let Some(Collector { host, port, .. }) = collector {
            match host.parse() {
                Ok(ip) => add(&mut egress, Destination::Address(ip), [*port]),
                Err(_) => self.to_host(host, *port, &mut egress),
            }
        }
        egress
    }

    fn to_service(&self, service: &ir::Service, egress: &mut Egress) {
        let (namespace, name) = (&service.origin.namespace, &service.origin.name);
        if service.origin.kind == "InferencePool" {
            let Some(pool) = self.objects.inference_pools.get(namespace, name) else { return };
            let pods = Destination::Pods { namespace: namespace.to_string(), labels: pool.spec.labels.clone() };
            return add(egress, pods, pool.spec.ports.iter().copied());
        }
        let Some(object) = self.objects.services.get(namespace, name) else { return };
        match pods_of(object) {
            Some(pods) => {
                let is_its = |port: &&ServicePort| {
                    let cluster = u16::try_from(port.port).map(|number| cluster_name(namespace, name, number));
                    cluster.is_ok_and(|cluster| is_of(&service.cluster, &cluster))
                };
                // A Service whose first Pod has not started yet has no endpoint, and its Pods are reached once they have.
                let numbers = object.spec.spec.ports.iter().flatten().filter(is_its).filter_map(number_at_pods);
                let endpoints = service.endpoints.iter().map(|endpoint| endpoint.port);
                add(egress, pods, endpoints.chain(numbers));
            }
            // Somebody wrote its endpoints.
            None => {
                for endpoint in &service.endpoints {
                    add(egress, Destination::Address(endpoint.ip), [endpoint.port]);
                }
            }
        }
    }

    /// A name may be that of a Service of the cluster. Then a packet has the address of a Pod.
    fn to_host(&self, host: &str, port: u16, egress: &mut Egress) {
        let mut labels = host.split('.');
        let parts = (labels.next(), labels.next(), labels.next());
        let (Some(name), Some(namespace), Some(IN_CLUSTER)) = parts else {
            return add(egress, Destination::Outside, [port]);
        };
        let ports = self.services.output(&Key::new(namespace, name));
        let cluster = cluster_name(namespace, name, port);
        let service = ports.iter().flat_map(|ports| ports.iter()).find(|service| service.cluster == cluster);
        match service {
            Some(service) => self.to_service(service, egress),
            None => add(egress, Destination::Outside, [port]),
        }
    }
}

/// The Pods that a Service selects. None: it selects none.
fn pods_of(service: &Object<Service>) -> Option<Destination> {
    let labels = service.spec.spec.selector.clone().filter(|labels| !labels.is_empty())?;
    Some(Destination::Pods { namespace: service.meta.namespace().to_owned(), labels })
}

/// None: Pods give it a name, and each may have another number for it.
fn number_at_pods(port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        None => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(_)) => None,
    }
}

/// Whether a cluster is this one, or the same with another use.
fn is_of(cluster: &str, plain: &str) -> bool {
    cluster.strip_prefix(plain).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn add(egress: &mut Egress, destination: Destination, ports: impl IntoIterator<Item = u16>) {
    egress.entry(destination).or_default().extend(ports);
}
