//! BackendTLSPolicies: how the Services that they are for are reached by TLS.
//!
//! A policy that cannot be used closes its targets. Without it, requests would go there in plain text.

use std::sync::Arc;

use gateway_api::apis::standard::backendtlspolicies::{
    BackendTlsPolicyTargetRefs as Target, BackendTlsPolicyValidation as Validation,
    BackendTlsPolicyValidationCaCertificateRefs as CaRef, BackendTlsPolicyValidationSubjectAltNamesType as SanType,
};

use crate::ir::{Authority, SecretText, ServiceTls, SubjectName};
use crate::objects::{BackendTlsPolicy, ConfigMap, Key, Kind as _, Object, Service, Shown};
use crate::status::{Finding, Origin, Reason, Severity};

use super::clients::CA_CERTIFICATE;
use super::refs::{Reference, SERVICE};
use super::view::View;

const BACKEND_TLS_POLICY: super::refs::GroupKind = ("gateway.networking.k8s.io", "BackendTLSPolicy");

/// What a policy says, and the ports that it is for.
#[derive(Debug, PartialEq)]
pub struct BackendTls {
    pub targets: Vec<Port>,
    pub tls: Arc<ServiceTls>,
}

/// A port of a Service.
#[derive(Debug, PartialEq, Eq)]
pub struct Port {
    pub service: Key,
    /// None: all that no other policy names.
    pub name: Option<String>,
}

pub fn backend_tls(view: View<'_>, object: &Object<BackendTlsPolicy>, findings: &mut Vec<Finding>) -> BackendTls {
    findings.extend(object.refused.findings().cloned());
    let targets = object.spec.target_refs.iter().enumerate();
    let targets = targets.filter_map(|(index, target)| match self::target(view, object, (index, target)) {
        Ok(port) => Some(port),
        Err(finding) => {
            findings.push(finding);
            None
        }
    });
    let targets = targets.collect();
    BackendTls { targets, tls: Arc::new(tls(view, object, findings)) }
}

fn target(
    view: View<'_>,
    object: &Object<BackendTlsPolicy>,
    (index, target): (usize, &Target),
) -> Result<Port, Finding> {
    let meta = &object.meta;
    let field = format!("spec.targetRefs[{index}]");
    if (target.group.as_str(), target.kind.as_str()) != SERVICE {
        let message = format!("a target of kind {} is not acted on", Shown(&target.kind));
        return Err(meta.finding(Severity::Warning, Reason::NotActedOn, field, message, "a Service"));
    }
    if let Some(other) = first(view, object, target).filter(|other| *other != object.meta.name()) {
        let message = format!("BackendTLSPolicy {other} has this target already, and is older or first by name");
        return Err(meta.finding(Severity::Error, Reason::Conflicted, field, message, ""));
    }
    let reference = Reference {
        from: meta,
        from_kind: BACKEND_TLS_POLICY,
        to_kind: SERVICE,
        namespace: meta.namespace(),
        name: &target.name,
        field: &field,
    };
    let Some(service) = view.object::<Service>(meta.namespace(), &target.name) else {
        return Err(reference.not_found::<Service>(Reason::TargetNotFound, view));
    };
    if let Some(section) = &target.section_name {
        let mut names = service.spec.spec.ports.iter().flatten().filter_map(|port| port.name.as_ref());
        if !names.any(|name| name == section) {
            let message = format!("{} has no port of name {}", reference.target(), Shown(section));
            return Err(reference.finding(Reason::TargetNotFound, &message, "sectionName is the name of a port"));
        }
    }
    Ok(Port { service: Key::new(meta.namespace(), target.name.as_str()), name: target.section_name.clone() })
}

/// Of the policies with this very target the one that counts: the oldest, then the first by name.
fn first<'a>(view: View<'a>, object: &Object<BackendTlsPolicy>, target: &Target) -> Option<&'a str> {
    let all = view.of_namespace::<BackendTlsPolicy>(object.meta.namespace());
    let same = all.filter(|policy| policy.spec.target_refs.contains(target));
    same.map(|policy| (policy.meta.created.unwrap_or(i64::MAX), policy.meta.name())).min().map(|(_, name)| name)
}

fn tls(view: View<'_>, object: &Object<BackendTlsPolicy>, findings: &mut Vec<Finding>) -> ServiceTls {
    let origin = object.meta.origin.clone();
    let validation = &object.spec.validation;
    if !object.refused.is_empty() {
        return ServiceTls::Closed { origin };
    }
    let references = validation.ca_certificate_refs.as_deref().unwrap_or_default();
    let ca =
        if references.is_empty() { Some(Authority::System) } else { authority(view, object, references, findings) };
    match ca {
        Some(ca) => ServiceTls::Verified { origin, sni: validation.hostname.clone(), names: names(validation), ca },
        None => ServiceTls::Closed { origin },
    }
}

/// None: not one of the references can be used.
fn authority(
    view: View<'_>,
    object: &Object<BackendTlsPolicy>,
    references: &[CaRef],
    findings: &mut Vec<Finding>,
) -> Option<Authority> {
    const FIELD: &str = "spec.validation.caCertificateRefs";
    let mut usable: Vec<(Origin, &str)> = Vec::new();
    for (index, reference) in references.iter().enumerate() {
        match certificate(view, object, reference, &format!("{FIELD}[{index}]")) {
            Ok(found) => usable.push(found),
            Err(finding) => findings.push(finding),
        }
    }
    let Some((origin, _)) = usable.first() else {
        let message = "it has no certificate of an authority, so its targets are closed";
        let reason = Reason::NoValidCACertificate;
        findings.push(object.meta.finding(Severity::Error, reason, FIELD, message, ""));
        return None;
    };
    let pem: Vec<&str> = usable.iter().map(|(_, pem)| pem.trim_end()).collect();
    let name = object.meta.key().to_string();
    Some(Authority::Certificate { origin: origin.clone(), name, pem: SecretText::new(pem.join("\n")) })
}

fn certificate<'a>(
    view: View<'a>,
    object: &Object<BackendTlsPolicy>,
    reference: &CaRef,
    field: &str,
) -> Result<(Origin, &'a str), Finding> {
    let meta = &object.meta;
    let error =
        |reason: Reason, message: String, hint: &str| meta.finding(Severity::Error, reason, field, message, hint);
    if (reference.group.as_str(), reference.kind.as_str()) != ("", ConfigMap::NAME) {
        let message = format!("an authority cannot be {} of group {}", Shown(&reference.kind), Shown(&reference.group));
        return Err(error(Reason::InvalidKind, message, "kind: ConfigMap"));
    }
    let invalid = |message: String, hint: &str| error(Reason::InvalidCACertificateRef, message, hint);
    let Some(map) = view.object::<ConfigMap>(meta.namespace(), &reference.name) else {
        return Err(invalid(format!("ConfigMap {} does not exist", Shown(&reference.name)), ""));
    };
    match map.spec.values.get(CA_CERTIFICATE) {
        Some(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => Ok((map.meta.origin.clone(), pem)),
        Some(_) => {
            let message = format!("key `{CA_CERTIFICATE}` of ConfigMap {} is no certificate", Shown(&reference.name));
            Err(invalid(message, "PEM"))
        }
        None => Err(invalid(format!("ConfigMap {} has no key `{CA_CERTIFICATE}`", Shown(&reference.name)), "")),
    }
}

/// The certificate has to be for the hostname, unless other names are given.
fn names(validation: &Validation) -> Vec<SubjectName> {
    let given = validation.subject_alt_names.iter().flatten();
    let given = given.filter_map(|name| match name.r#type {
        SanType::Hostname => name.hostname.clone().map(SubjectName::Dns),
        SanType::Uri => name.uri.clone().map(SubjectName::Uri),
    });
    let given: Vec<SubjectName> = given.collect();
    if given.is_empty() { vec![SubjectName::Dns(validation.hostname.clone())] } else { given }
}

// === impl BackendTls ===

impl BackendTls {
    /// Whether it is for a port of this Service, and how closely.
    fn fits(&self, service: &Key, port: Option<&str>) -> Option<Closeness> {
        let of_service = self.targets.iter().filter(|target| target.service == *service);
        of_service
            .filter_map(|target| match &target.name {
                None => Some(Closeness::Service),
                Some(name) => (port == Some(name)).then_some(Closeness::Port),
            })
            .max()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    Service,
    Port,
}

/// How a port of a Service is reached by TLS. None: it is not.
pub fn of_port(view: View<'_>, service: &Key, port: Option<&str>) -> Option<Arc<ServiceTls>> {
    let policies = view.backend_tls(service);
    let fitting = policies.filter_map(|policy| Some((policy.fits(service, port)?, policy)));
    fitting.max_by_key(|(closeness, _)| *closeness).map(|(_, policy)| Arc::clone(&policy.tls))
}

#[cfg(test)]
mod tests {
    use crate::objects::cluster_test::{Given, cluster_of};
    use crate::placement::Placement;
    use crate::status::Reason;
    use crate::translate::translate;

    const SERVICE: &str =
        "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: a}, spec: {ports: [{port: 443}]}}";

    fn policy(name: &str, created: &str) -> Given {
        Given::yaml(&format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, \
             metadata: {{name: {name}, namespace: a, creationTimestamp: '{created}'}}, \
             spec: {{targetRefs: [{{group: '', kind: Service, name: s}}], \
             validation: {{hostname: s.org, wellKnownCACertificates: System}}}}}}"
        ))
    }

    #[test]
    fn of_policies_for_the_same_the_oldest_counts_then_the_first_by_name() {
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        for (first, second, lost) in [(new, old, "a"), (old, new, "b"), (old, old, "b")] {
            let cluster = cluster_of([Given::yaml(SERVICE), policy("a", first), policy("b", second)]);
            let findings = translate(cluster.objects(), Placement::OneHost).findings;
            let conflicts = findings.iter().filter(|finding| finding.reason == Reason::Conflicted);
            let names: Vec<&str> =
                conflicts.filter_map(|finding| finding.origin.as_ref()).map(|origin| &*origin.name).collect();
            assert_eq!(names, [lost]);
        }
    }
}
