//! BackendTLSPolicies: the Gateway API's own type, held to the rules that its CRD has besides the types.
//!
//! What is wrong with `spec.validation` or `spec.options` refuses this part alone, in files too. So the policy keeps its targets, and they
//! are closed: without the policy, requests would go to them in plain text.

use gateway_api::apis::standard::backendtlspolicies::{
    BackendTlsPolicySpec, BackendTlsPolicyValidation as Validation,
    BackendTlsPolicyValidationSubjectAltNamesType as SanType,
};

use super::check::Check;
use super::redact::Shown;
use crate::terms::names::{is_dns_subdomain, is_wildcard_hostname};

pub type BackendTlsPolicy = BackendTlsPolicySpec;

/// The only set of authorities that the API names.
pub const SYSTEM: &str = "System";

const VALIDATION: &str = "spec.validation";

pub fn backend_tls_policy(spec: BackendTlsPolicySpec, check: &mut Check<'_>) -> Option<BackendTlsPolicySpec> {
    if spec.target_refs.is_empty() {
        check.error("spec.targetRefs", "the policy has no target", "list at least one");
    }
    if spec.options.as_ref().is_some_and(|options| !options.is_empty()) {
        check.unsupported("spec.options", "no option is known", "remove them");
    }
    validation(&spec.validation, check);
    Some(spec)
}

fn validation(validation: &Validation, check: &mut Check<'_>) {
    if !is_dns_subdomain(&validation.hostname) {
        let message = format!("{} is not a hostname", Shown(&validation.hostname));
        check.error(format_args!("{VALIDATION}.hostname"), message, "lowercase, without *");
    }
    let has_references = validation.ca_certificate_refs.as_ref().is_some_and(|references| !references.is_empty());
    match validation.well_known_ca_certificates.as_deref().unwrap_or_default() {
        "" if !has_references => {
            let hint = "caCertificateRefs, or the well-known ones: System";
            check.error(VALIDATION, "it names no authority", hint);
        }
        "" => {}
        _ if has_references => {
            let message = "it names caCertificateRefs and well-known authorities";
            check.error(VALIDATION, message, "one of them");
        }
        SYSTEM => {}
        other => {
            let message = format!("the well-known authorities {} are not known", Shown(other));
            check.error(VALIDATION, message, SYSTEM);
        }
    }
    for (index, name) in validation.subject_alt_names.iter().flatten().enumerate() {
        let field = format!("{VALIDATION}.subjectAltNames[{index}]");
        match (&name.r#type, name.hostname.as_deref(), name.uri.as_deref()) {
            (SanType::Hostname, Some(hostname), None | Some("")) if is_wildcard_hostname(hostname) => {}
            (SanType::Uri, None | Some(""), Some(uri)) if uri.contains("://") => {}
            (SanType::Hostname, ..) => check.error(field, "it has to be a hostname", "hostname: a.example.com"),
            (SanType::Uri, ..) => check.error(field, "it has to be a URI", "uri: spiffe://example/ns/a/sa/b"),
        }
    }
}
