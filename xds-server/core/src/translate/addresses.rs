//! How a Gateway is reached: the addresses that it asks for, and those that its Service has.

use std::collections::BTreeSet;

use gateway_api::apis::standard::gateways::GatewayAddresses;

use crate::fleet;
use crate::objects::{Gateway, Object, Service, Shown};
use crate::placement::{Feature, Placement};
use crate::status::{Address, AddressKind, Finding, Reason, Severity};

use super::view::View;

/// Of the Service that leads to the proxies of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    pub addresses: Vec<Address>,
    /// The ports that it has, where a Gateway's listeners do not decide about them.
    ports: Option<BTreeSet<u16>>,
    /// What the Gateway asks for and does not have.
    missing: Vec<String>,
}

/// None: no Service of ours leads to its proxies, or not yet.
pub fn reach(view: View<'_>, gateway: &Object<Gateway>, findings: &mut Vec<Finding>) -> Option<Reach> {
    let asked = gateway.spec.addresses.as_deref().unwrap_or_default();
    if let Some(lack) =
        (!asked.is_empty()).then(|| view.lack(Feature::Addresses, &gateway.meta, "spec.addresses")).flatten()
    {
        findings.push(lack);
        return None;
    }
    findings.extend(asked.iter().enumerate().filter(|(_, address)| !is_ip(address)).map(|(index, address)| {
        let kind = Shown(address.r#type.as_deref().unwrap_or_default());
        let field = format!("spec.addresses[{index}].type");
        let message = format!("addresses of type {kind} are not served");
        gateway.meta.finding(Severity::Error, Reason::UnsupportedAddress, field, message, "type: IPAddress")
    }));
    let service = match view.placement() {
        Placement::ProxyPerGateway => {
            let service = view.object::<Service>(gateway.meta.namespace(), &fleet::name_of(gateway))?;
            Some(service).filter(|service| fleet::is_of(&service.meta.labels, gateway.meta.name()))?
        }
        Placement::OneFleet(name) => match view.object::<Service>(&name.namespace, &name.name) {
            Some(service) => service,
            None => return Some(Reach { addresses: Vec::new(), ports: None, missing: Vec::new() }),
        },
        Placement::OneHost | Placement::Sidecar(_) => return None,
    };
    let service = &service.spec;
    let ports = matches!(view.placement(), Placement::OneFleet(_)).then(|| ports(service));
    let addresses = addresses(service);
    let is_there = |value: &str| addresses.iter().any(|address| address.value == value);
    let values = asked.iter().filter(|address| is_ip(address)).filter_map(|address| address.value.as_deref());
    let missing = values.filter(|value| !is_there(value)).map(str::to_owned).collect();
    Some(Reach { addresses, ports, missing })
}

fn is_ip(address: &GatewayAddresses) -> bool {
    address.r#type.as_deref().is_none_or(|kind| kind == "IPAddress")
}

fn ports(service: &Service) -> BTreeSet<u16> {
    let ports = service.spec.ports.iter().flatten();
    ports.filter_map(|port| u16::try_from(port.port).ok()).collect()
}

/// Those of the load balancer, where there is to be one, else those within the cluster.
fn addresses(service: &Service) -> Vec<Address> {
    let ip = |value: &String| Address { kind: AddressKind::IPAddress, value: value.clone() };
    if service.spec.type_.as_deref() == Some("LoadBalancer") {
        let balancer = service.status.load_balancer.as_ref();
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
        let address = |hostname: &String| Address { kind: AddressKind::Hostname, value: hostname.clone() };
        return ingress
            .filter_map(|one| one.ip.as_ref().map(ip).or_else(|| one.hostname.as_ref().map(address)))
            .collect();
    }
    service.spec.cluster_ips.iter().flatten().filter(|value| *value != "None").map(ip).collect()
}

// === impl Reach ===

impl Reach {
    /// Whether its Service has this port, or gets it because a listener has it.
    pub fn leads_to(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }

    /// Why nobody reaches the Gateway, or not where it is to be reached.
    pub fn trouble(&self) -> Option<(Reason, String)> {
        if !self.missing.is_empty() {
            let missing: Vec<String> = self.missing.iter().map(|value| Shown(value).to_string()).collect();
            let message = format!("its Service has not got the address {}", missing.join(", "));
            return Some((Reason::AddressNotUsable, message));
        }
        let message =
            "its Service has no address yet (a load balancer gives one; a Service of type ClusterIP needs none)";
        self.addresses.is_empty().then(|| (Reason::AddressNotAssigned, message.to_owned()))
    }
}
