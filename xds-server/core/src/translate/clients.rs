//! Certificates of clients: whose a listener of HTTPS accepts.

use crate::ir::{ClientAuthority, SecretText};
use crate::objects::{AuthorityRef, ConfigMap, Gateway, Kind as _, Object, Shown, client_validation};
use crate::status::{Finding, Origin, Reason};

use super::listener::Source;
use super::refs::{CONFIG_MAP, GATEWAY, Reference};
use super::view::View;

/// The key of a ConfigMap that certificates of authorities are in.
pub const CA_CERTIFICATE: &str = "ca.crt";

/// None: nobody asks clients for a certificate. `field` is that of the listener, which has what is wrong with it.
pub fn clients(
    view: View<'_>,
    gateway: &Object<Gateway>,
    (source, port, field): (&Source<'_>, u16, &str),
    findings: &mut Vec<Finding>,
) -> Result<Option<ClientAuthority>, Finding> {
    let Some(validation) = client_validation(&gateway.spec, port) else { return Ok(None) };
    let field = format!("{field}.tls");
    let mut usable: Vec<(Origin, &str)> = Vec::new();
    for reference in &validation.authorities {
        match authority(view, gateway, *reference) {
            Ok(found) => usable.push(found),
            Err((reason, message)) => {
                let message = format!("authorities of clients: {message}");
                findings.push(source.error(reason, field.clone(), &message, "spec.tls.frontend of the Gateway"));
            }
        }
    }
    let Some((origin, _)) = usable.first() else {
        let message = "no authority of clients can be used, so nobody is let in";
        return Err(source.error(Reason::NoValidCACertificate, field, message, "spec.tls.frontend of the Gateway"));
    };
    let pem: Vec<&str> = usable.iter().map(|(_, pem)| pem.trim_end()).collect();
    Ok(Some(ClientAuthority {
        origin: origin.clone(),
        name: format!("clients/{}/{port}", gateway.meta.key()),
        pem: SecretText::new(pem.join("\n")),
        is_optional: validation.is_optional,
    }))
}

fn authority<'a>(
    view: View<'a>,
    gateway: &Object<Gateway>,
    reference: AuthorityRef<'_>,
) -> Result<(Origin, &'a str), (Reason, String)> {
    let AuthorityRef { group, kind, namespace, name } = reference;
    if (group, kind) != CONFIG_MAP {
        let message = format!("{} of group {} is no {}", Shown(kind), Shown(group), ConfigMap::NAME);
        return Err((Reason::InvalidCACertificateKind, message));
    }
    let namespace = namespace.unwrap_or(gateway.meta.namespace());
    let meta = &gateway.meta;
    let reference =
        Reference { from: meta, from_kind: GATEWAY, to_kind: CONFIG_MAP, namespace, name, field: "spec.tls.frontend" };
    if !reference.is_permitted(view) {
        return Err((Reason::RefNotPermitted, reference.not_permitted().message));
    }
    let Some(map) = view.object::<ConfigMap>(namespace, name) else {
        return Err((Reason::InvalidCACertificateRef, format!("{} does not exist", reference.target())));
    };
    match map.spec.values.get(CA_CERTIFICATE) {
        Some(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => Ok((map.meta.origin.clone(), pem)),
        _ => {
            let message = format!("{} has no certificate under `{CA_CERTIFICATE}`", reference.target());
            Err((Reason::InvalidCACertificateRef, message))
        }
    }
}
