//! One listener, of a Gateway or of a ListenerSet.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_api::apis::standard::gateways::{
    GatewayListeners, GatewayListenersTls, GatewayListenersTlsCertificateRefs as CertificateRef,
    GatewayListenersTlsMode,
};

use crate::ir::{Certificate, ClientAuthority, Domain};
use crate::objects::{Gateway, Key, Meta, Namespaces, Object, RefusedParts, Shown};
use crate::placement::Feature;
use crate::status::{Finding, Origin, Reason, Severity, StatusKind};

use super::addresses::Reach;
use super::certificates::{Owner, certificates};
use super::conflicts;
use super::hostname::ANY;
use super::refs::GroupKind;
use super::view::View;
use super::{allowed, clients, route_kinds};

/// A listener that is valid. Routes attach to it, even to one that waits for a certificate and is not opened until then.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenListener {
    /// The object that has it, with its name there as section.
    pub origin: Origin,
    /// The ListenerSet that has it. None: the Gateway itself.
    pub set: Option<Key>,
    /// Its place in that object.
    pub index: usize,
    /// Its name in that object.
    pub section: Arc<str>,
    /// Its name among all listeners of the Gateway.
    pub name: Arc<str>,
    pub protocol: String,
    pub port: u16,
    pub hostname: Domain,
    pub tls: ListenerTls,
    /// Present: clients are asked for a certificate.
    pub clients: Option<ClientAuthority>,
    /// The kinds of routes that may attach.
    pub kinds: Vec<StatusKind>,
    /// The namespaces whose routes may attach. None: no namespace, because the selector says something that nobody
    /// knows.
    pub allowed: Option<Namespaces>,
}

/// What is done with TLS.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerTls {
    None,
    /// It is terminated. Without any certificate it cannot be, and then the listener is not opened.
    Terminate(Vec<Certificate>),
    /// It is terminated by the certificate of the mesh, for members of the mesh alone.
    Mesh,
    /// It goes on to the backend.
    Passthrough,
}

/// How Istio's own Gateways are told to speak the TLS of the mesh to clients.
const MESH_OPTION: (&str, &str) = ("gateway.istio.io/tls-terminate-mode", "ISTIO_MUTUAL");

/// The object that has listeners.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub meta: &'a Meta,
    pub kind: GroupKind,
    pub refused: &'a RefusedParts,
    pub listeners: &'a [GatewayListeners],
    pub set: Option<&'a Key>,
    pub reach: Option<&'a Reach>,
}

/// The name that a listener has among all of its Gateway. Those of ListenerSets have slashes, which no name has.
pub fn name(set: Option<&Key>, section: &str) -> Arc<str> {
    match set {
        None => section.into(),
        Some(set) => format!("{set}/{section}").into(),
    }
}

pub fn field(index: usize) -> String {
    format!("spec.listeners[{index}]")
}

// === impl Source ===

impl Source<'_> {
    /// Adds the listeners that are valid and do not contradict those that are open.
    pub fn open(
        &self,
        view: View<'_>,
        gateway: &Object<Gateway>,
        open: &mut Vec<OpenListener>,
        findings: &mut Vec<Finding>,
    ) {
        for (index, spec) in self.listeners.iter().enumerate() {
            match self.listener((view, gateway), (index, spec), open, findings) {
                Ok(listener) => open.push(listener),
                Err(finding) => findings.push(finding),
            }
        }
    }

    fn listener(
        &self,
        (view, gateway): (View<'_>, &Object<Gateway>),
        (index, spec): (usize, &GatewayListeners),
        open: &[OpenListener],
        findings: &mut Vec<Finding>,
    ) -> Result<OpenListener, Finding> {
        let field = field(index);
        if let Some(finding) = self.refused.of(&field) {
            return Err(finding.clone());
        }
        let port = u16::try_from(spec.port).unwrap_or_default();
        if self.reach.is_some_and(|reach| !reach.leads_to(port)) {
            let message = format!("the Service of all Gateways does not have the port {port}");
            return Err(self.error(Reason::PortUnavailable, format!("{field}.port"), &message, "a port that it has"));
        }
        if view.placement().reserves(port) {
            let message = format!("port {port} is where the proxies tell whether they are ready, and their metrics");
            return Err(self.error(Reason::PortUnavailable, format!("{field}.port"), &message, "take another port"));
        }
        let hostname: Domain = spec.hostname.as_deref().unwrap_or(ANY).into();
        if let Some(conflict) = conflicts::find(open, (&spec.protocol, port, &hostname)) {
            return Err(conflict.finding(self, &field));
        }
        let tls = self.tls(view, (spec, &field), findings)?;
        if let Some(conflict) = conflicts::of_mesh(open, &tls, port) {
            return Err(conflict.finding(self, &field));
        }
        let clients = match spec.protocol.as_str() {
            "HTTPS" => clients::clients(view, gateway, (self, port, &field), findings)?,
            _ => None,
        };
        if tls == ListenerTls::Mesh && clients.is_some() {
            let message =
                "spec.tls.frontend asks the clients of this port for other certificates than those of the mesh";
            let hint = "perPort in spec.tls.frontend, or another port";
            return Err(self.error(Reason::Invalid, format!("{field}.tls.options"), message, hint));
        }
        route_kinds::check(spec, (self.meta, &field), findings);
        Ok(OpenListener {
            origin: self.meta.origin.section(spec.name.as_str()),
            set: self.set.cloned(),
            index,
            section: spec.name.as_str().into(),
            name: name(self.set, &spec.name),
            protocol: spec.protocol.clone(),
            port,
            hostname,
            tls,
            clients,
            kinds: route_kinds::allowed(spec),
            allowed: allowed::routes(spec.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref())),
        })
    }

    fn tls(
        &self,
        view: View<'_>,
        (spec, field): (&GatewayListeners, &str),
        findings: &mut Vec<Finding>,
    ) -> Result<ListenerTls, Finding> {
        let passes = |tls: &GatewayListenersTls| tls.mode == Some(GatewayListenersTlsMode::Passthrough);
        match (spec.protocol.as_str(), &spec.tls) {
            ("HTTP", None) => Ok(ListenerTls::None),
            ("HTTP", Some(_)) => {
                let message = "protocol HTTP has no TLS";
                Err(self.error(Reason::Invalid, format!("{field}.tls"), message, "protocol: HTTPS"))
            }
            ("HTTPS", Some(tls)) if passes(tls) => {
                let field = format!("{field}.tls.mode");
                Err(self.error(Reason::UnsupportedValue, field, "HTTPS is not passed through", "protocol: TLS"))
            }
            ("TLS", Some(tls)) if passes(tls) => Ok(ListenerTls::Passthrough),
            ("HTTPS", Some(GatewayListenersTls { options: Some(options), .. })) if !options.is_empty() => {
                self.of_mesh(view, options, spec.tls.as_ref().and_then(|tls| tls.certificate_refs.as_deref()), field)
            }
            ("HTTPS" | "TLS", Some(tls)) => self.terminated(view, (tls, field), findings),
            ("HTTPS", None) => {
                let message = "protocol HTTPS needs a certificate";
                Err(self.error(Reason::Invalid, format!("{field}.tls"), message, "certificateRefs"))
            }
            ("TLS", None) => {
                let message = "protocol TLS needs to know what is done with it";
                let hint = "mode: Passthrough, or certificateRefs";
                Err(self.error(Reason::Invalid, format!("{field}.tls"), message, hint))
            }
            (protocol, _) => {
                let message = format!("protocol {} is not served", Shown(protocol));
                let field = format!("{field}.protocol");
                Err(self.error(Reason::UnsupportedProtocol, field, &message, "one of HTTP, HTTPS, TLS"))
            }
        }
    }

    fn terminated(
        &self,
        view: View<'_>,
        (tls, field): (&GatewayListenersTls, &str),
        findings: &mut Vec<Finding>,
    ) -> Result<ListenerTls, Finding> {
        if tls.options.as_ref().is_some_and(|options| !options.is_empty()) {
            let field = format!("{field}.tls.options");
            return Err(self.error(Reason::UnsupportedValue, field, "no option is known", "remove them"));
        }
        let owner = Owner { meta: self.meta, kind: self.kind };
        let references = tls.certificate_refs.as_deref().unwrap_or_default();
        let field = format!("{field}.tls.certificateRefs");
        Ok(ListenerTls::Terminate(certificates(view, owner, (references, &field), findings)))
    }

    fn of_mesh(
        &self,
        view: View<'_>,
        options: &BTreeMap<String, String>,
        certificates: Option<&[CertificateRef]>,
        field: &str,
    ) -> Result<ListenerTls, Finding> {
        let field = format!("{field}.tls");
        let (name, value) = MESH_OPTION;
        let hint = format!("{name}: {value}, or no options");
        if options.len() != 1 || options.get(name).is_none_or(|given| given != value) {
            let message = "no other option is known than that of the mesh";
            return Err(self.error(Reason::UnsupportedValue, format!("{field}.options"), message, &hint));
        }
        if certificates.is_some_and(|references| !references.is_empty()) {
            let message = "the certificate of the mesh is shown, and no other";
            let field = format!("{field}.certificateRefs");
            return Err(self.error(Reason::Invalid, field, message, "remove them"));
        }
        match view.lack(Feature::IstioCertificates, self.meta, format!("{field}.options")) {
            Some(finding) => Err(finding),
            None => Ok(ListenerTls::Mesh),
        }
    }

    pub fn error(&self, reason: Reason, field: String, message: &str, hint: &str) -> Finding {
        self.meta.finding(Severity::Error, reason, field, message, hint)
    }
}

// === impl OpenListener ===

impl OpenListener {
    /// Whether it has all that it needs to be opened.
    pub fn is_served(&self) -> bool {
        match &self.tls {
            ListenerTls::None | ListenerTls::Passthrough | ListenerTls::Mesh => true,
            ListenerTls::Terminate(certificates) => !certificates.is_empty(),
        }
    }

    /// Whether connections are passed on as a whole.
    pub fn has_tunnels(&self) -> bool {
        self.protocol == "TLS"
    }
}
