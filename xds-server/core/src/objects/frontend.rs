//! How a Gateway checks the certificates of clients (`spec.tls.frontend`), for a port.

use gateway_api::apis::standard::gateways::{
    GatewayTlsFrontendDefaultValidationMode as DefaultMode, GatewayTlsFrontendPerPortTlsValidationMode as PortMode,
};

use super::Gateway;

/// The two places where authorities are named have types of their own, with the same fields.
macro_rules! authorities {
    ($validation:expr) => {
        $validation
            .ca_certificate_refs
            .iter()
            .map(|wire| AuthorityRef {
                group: &wire.group,
                kind: &wire.kind,
                namespace: wire.namespace.as_deref(),
                name: &wire.name,
            })
            .collect()
    };
}

/// What holds for the clients of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientValidation<'a> {
    pub authorities: Vec<AuthorityRef<'a>>,
    /// Clients with no certificate, or with one of another authority, are let in as well.
    pub is_optional: bool,
}

/// A reference to an object with certificates of authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorityRef<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub namespace: Option<&'a str>,
    pub name: &'a str,
}

/// What a Gateway says of the clients of a port. A port that it names has its own, even if that is nothing.
pub fn client_validation(gateway: &Gateway, port: u16) -> Option<ClientValidation<'_>> {
    let frontend = gateway.tls.as_ref()?.frontend.as_ref()?;
    let mut ports = frontend.per_port.iter().flatten();
    match ports.find(|of_port| of_port.port == i32::from(port)) {
        Some(of_port) => of_port.tls.validation.as_ref().map(|validation| ClientValidation {
            authorities: authorities!(validation),
            is_optional: validation.mode == Some(PortMode::AllowInsecureFallback),
        }),
        None => default_validation(gateway),
    }
}

fn default_validation(gateway: &Gateway) -> Option<ClientValidation<'_>> {
    let validation = gateway.tls.as_ref()?.frontend.as_ref()?.default.validation.as_ref()?;
    Some(ClientValidation {
        authorities: authorities!(validation),
        is_optional: validation.mode == Some(DefaultMode::AllowInsecureFallback),
    })
}

/// All that a Gateway says of clients, for whatever port.
pub fn client_validations(gateway: &Gateway) -> impl Iterator<Item = ClientValidation<'_>> {
    let frontend = gateway.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
    let ports = frontend.and_then(|frontend| frontend.per_port.as_ref()).into_iter().flatten();
    let ports = ports.filter_map(|of_port| client_validation(gateway, u16::try_from(of_port.port).ok()?));
    ports.chain(default_validation(gateway))
}
