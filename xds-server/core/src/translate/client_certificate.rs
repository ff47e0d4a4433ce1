//! The certificate that a Gateway shows to backends (`spec.tls.backend`).

use crate::ir::ClientCertificate;
use crate::objects::{Gateway, Object, client_certificate};
use crate::status::{Finding, Reason};

use super::certificates::{Owner, certificate};
use super::refs::GATEWAY;
use super::view::View;

const FIELD: &str = "spec.tls.backend.clientCertificateRef";

/// What is wrong with it is no reason to close the listeners (GatewayConditionResolvedRefs).
pub fn of_gateway(view: View<'_>, gateway: &Object<Gateway>, findings: &mut Vec<Finding>) -> ClientCertificate {
    let Some(reference) = client_certificate(&gateway.spec) else { return ClientCertificate::None };
    let owner = Owner { meta: &gateway.meta, kind: GATEWAY };
    match certificate(view, owner, &reference, FIELD) {
        Ok(certificate) => ClientCertificate::Shown(certificate),
        Err(finding) => {
            findings.push(Finding { reason: as_of_client(finding.reason), ..finding });
            ClientCertificate::Missing
        }
    }
}

fn as_of_client(reason: Reason) -> Reason {
    match reason {
        Reason::RefNotPermitted => reason,
        _ => Reason::InvalidClientCertificateRef,
    }
}
