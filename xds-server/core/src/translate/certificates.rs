//! The certificates of a listener. Envoy chooses among them by the name and the kinds of keys that a client asks for.

use gateway_api::apis::standard::gateways::GatewayListenersTlsCertificateRefs as CertificateRef;

use crate::ir::Certificate;
use crate::objects::{Meta, SecretRef};
use crate::status::{Finding, Reason, Severity};

use super::refs::{self, GroupKind};
use super::view::View;

/// Whose certificates they are.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    pub meta: &'a Meta,
    pub kind: GroupKind,
}

/// Those that can be used, each once. What is wrong with the others is told. `field` is that of the list.
pub fn certificates(
    view: View<'_>,
    owner: Owner<'_>,
    (references, field): (&[CertificateRef], &str),
    findings: &mut Vec<Finding>,
) -> Vec<Certificate> {
    if references.is_empty() {
        let hint = "name a Secret of type kubernetes.io/tls";
        findings.push(owner.invalid(field, "TLS cannot be terminated without a certificate", hint));
    }
    let mut usable: Vec<Certificate> = Vec::new();
    for (index, reference) in references.iter().enumerate() {
        match certificate(view, owner, reference, &format!("{field}[{index}]")) {
            Ok(certificate) if usable.contains(&certificate) => {}
            Ok(certificate) => usable.push(certificate),
            Err(finding) => findings.push(finding),
        }
    }
    usable
}

pub fn certificate(
    view: View<'_>,
    owner: Owner<'_>,
    reference: &CertificateRef,
    field: &str,
) -> Result<Certificate, Finding> {
    if reference.group.as_deref().is_some_and(|group| !group.is_empty())
        || reference.kind.as_deref().unwrap_or("Secret") != "Secret"
    {
        return Err(owner.invalid(field, "a certificate is a Secret", "kind: Secret"));
    }
    let part = |key: &str, begin: &str| {
        let secret =
            SecretRef { namespace: reference.namespace.clone(), name: reference.name.clone(), key: key.to_owned() };
        let (origin, value) = refs::secret_value(view, owner.meta, owner.kind, &secret, field)?;
        if value.expose().contains("-----BEGIN ") && value.expose().contains(begin) {
            Ok((origin, value))
        } else {
            Err(owner.invalid(field, &format!("key `{key}` is not PEM"), &format!("it has -----BEGIN ... {begin}")))
        }
    };
    let (origin, chain) = part("tls.crt", "CERTIFICATE-----")?;
    let (_, private_key) = part("tls.key", "PRIVATE KEY-----")?;
    let name = origin.key().to_string();
    Ok(Certificate { origin, name, chain, private_key })
}

// === impl Owner ===

impl Owner<'_> {
    fn invalid(&self, field: &str, message: &str, hint: &str) -> Finding {
        self.meta.finding(Severity::Error, Reason::InvalidCertificateRef, field, message, hint)
    }
}
