//! TLS to backends and from clients.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
    TlsParameters, UpstreamTlsContext, certificate_validation_context::TrustChainVerification, common_tls_context,
    common_tls_context::CombinedCertificateValidationContext, subject_alt_name_matcher::SanType,
    tls_parameters::TlsProtocol,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};

use envoy_types::pb::google::protobuf::BoolValue;

use crate::ir;
use crate::terms::{Collector, Security};

use super::secret::{MESH_AUTHORITY, MESH_CERTIFICATE, authority_name, by_sds, certificate_name};
use super::wire::{any, file, inline};

/// Where Debian, Alpine and distroless images keep the authorities that they trust.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// To a backend whose certificate is for its own name.
pub fn upstream((sni, authority): (&str, &ir::Authority), client: Option<&ir::Certificate>) -> core::TransportSocket {
    let trusted = match authority {
        ir::Authority::System => Trusted::OfTheMachine,
        ir::Authority::Certificate { name, .. } => Trusted::Secret(authority_name(name)),
    };
    let (sni, san) = own_name(sni);
    verified(sni, vec![san], trusted, shown(client), &[])
}

/// To a collector of OpenTelemetry. None: without TLS. It is gRPC, and servers of it refuse who does not ask for HTTP/2.
pub fn to_collector(collector: &Collector) -> Option<core::TransportSocket> {
    let trusted = match &collector.security {
        Security::None => return None,
        Security::SystemAuthorities => Trusted::OfTheMachine,
        Security::Authorities(pem) => Trusted::Given(pem.clone()),
    };
    let (sni, san) = own_name(&collector.host);
    Some(verified(sni, vec![san], trusted, Vec::new(), &["h2"]))
}

/// What somebody is asked for by TLS and has to show, who is known by this name or address.
fn own_name(name: &str) -> (&str, SubjectAltNameMatcher) {
    let bare = name.trim_matches(['[', ']']);
    let is_ip = bare.parse::<IpAddr>().is_ok();
    let san = san(if is_ip { SanType::IpAddress } else { SanType::Dns }, exact(bare));
    // An address is not a server name (RFC 6066, 3).
    (if is_ip { "" } else { name }, san)
}

/// Whose certificates count.
enum Trusted {
    /// Of the authorities that the Envoy's machine trusts.
    OfTheMachine,
    /// Of those in the secret of this name.
    Secret(String),
    /// Of these (PEM).
    Given(String),
}

/// What Istio's proxies take for traffic of the mesh, before what it is inside (`istio-http/1.1` and so on are their names
/// in ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    Http1,
    Http2,
    /// Anything.
    Tcp,
}

/// To those of the mesh: each shows its certificate, and is one of `peers`.
pub fn mesh(peers: &ir::Peers, inside: Inside) -> core::TransportSocket {
    let sans = peers.identities.iter().map(|identity| san(SanType::Uri, exact(identity)));
    let alpn: &[&str] = match inside {
        Inside::Http1 => &["istio-http/1.1", "istio", "http/1.1"],
        Inside::Http2 => &["istio-h2", "istio", "h2"],
        Inside::Tcp => &["istio"],
    };
    let shown = vec![by_sds(MESH_CERTIFICATE.to_owned())];
    verified(&peers.server_name, sans.collect(), Trusted::Secret(MESH_AUTHORITY.to_owned()), shown, alpn)
}

/// To a Service. None: nobody reaches it.
pub fn to_service(
    (cluster, tls): (&str, &ir::ServiceTls),
    client: Option<&ir::Certificate>,
) -> Option<core::TransportSocket> {
    let (sni, names, ca) = match tls {
        ir::ServiceTls::Verified { sni, names, ca, .. } => (sni, names, ca),
        ir::ServiceTls::Unverified => return Some(unverified(client)),
        ir::ServiceTls::Closed { .. } => return None,
    };
    let sans = names.iter().map(|name| match name {
        ir::SubjectName::Dns(name) => match name.strip_prefix('*') {
            Some(suffix) => san(SanType::Dns, MatchPattern::Suffix(suffix.to_owned())),
            None => san(SanType::Dns, exact(name)),
        },
        ir::SubjectName::Uri(uri) => san(SanType::Uri, exact(uri)),
    });
    let trusted = match ca {
        ir::Authority::System => Trusted::OfTheMachine,
        ir::Authority::Certificate { .. } => Trusted::Secret(authority_name(cluster)),
    };
    Some(verified(sni, sans.collect(), trusted, shown(client), &[]))
}

fn exact(text: &str) -> MatchPattern {
    MatchPattern::Exact(text.to_owned())
}

fn san(kind: SanType, pattern: MatchPattern) -> SubjectAltNameMatcher {
    let matcher = StringMatcher { match_pattern: Some(pattern), ..Default::default() };
    SubjectAltNameMatcher { san_type: kind.into(), matcher: Some(matcher), ..Default::default() }
}

/// Without protocols (ALPN), those of the cluster are negotiated.
fn verified(
    sni: &str,
    sans: Vec<SubjectAltNameMatcher>,
    trusted: Trusted,
    shown: Vec<SdsSecretConfig>,
    alpn: &[&str],
) -> core::TransportSocket {
    let context = CertificateValidationContext { match_typed_subject_alt_names: sans, ..Default::default() };
    let by = |authorities| {
        let context = CertificateValidationContext { trusted_ca: Some(authorities), ..context.clone() };
        common_tls_context::ValidationContextType::ValidationContext(context)
    };
    let validation = match trusted {
        Trusted::OfTheMachine => by(file(SYSTEM_AUTHORITIES)),
        Trusted::Given(pem) => by(inline(&pem)),
        Trusted::Secret(name) => combined(context, name),
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(versions()),
            tls_certificate_sds_secret_configs: shown,
            validation_context_type: Some(validation),
            alpn_protocols: alpn.iter().map(|protocol| (*protocol).to_owned()).collect(),
            ..Default::default()
        }),
        sni: sni.to_owned(),
        ..Default::default()
    };
    socket(core::transport_socket::ConfigType::TypedConfig(any(&context)))
}

fn unverified(client: Option<&ir::Certificate>) -> core::TransportSocket {
    let common = CommonTlsContext {
        tls_params: Some(versions()),
        tls_certificate_sds_secret_configs: shown(client),
        ..Default::default()
    };
    let context = UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
    socket(core::transport_socket::ConfigType::TypedConfig(any(&context)))
}

/// What we show to the other side.
fn shown(client: Option<&ir::Certificate>) -> Vec<SdsSecretConfig> {
    client.map(|certificate| by_sds(certificate_name(certificate))).into_iter().collect()
}

/// `protocols` are those that may be negotiated (ALPN). Without any, nothing is. None: TLS is not terminated.
pub fn downstream(site: &ir::Site, protocols: &[&str]) -> Option<core::TransportSocket> {
    let (shown, validation, is_required) = match &site.tls {
        ir::SiteTls::None {} => return None,
        ir::SiteTls::Certificates { certificates, clients } => {
            let shown = certificates.iter().map(|certificate| by_sds(certificate_name(certificate))).collect();
            let validation = clients.as_ref().map(|clients| {
                let mut context = CertificateValidationContext::default();
                if clients.is_optional {
                    context.trust_chain_verification = TrustChainVerification::AcceptUntrusted.into();
                }
                combined(context, authority_name(&clients.name))
            });
            (shown, validation, clients.as_ref().is_some_and(|clients| !clients.is_optional))
        }
        ir::SiteTls::Mesh { trust_domains } => {
            let sans = trust_domains
                .iter()
                .map(|domain| san(SanType::Uri, MatchPattern::Prefix(format!("spiffe://{domain}/"))));
            let context =
                CertificateValidationContext { match_typed_subject_alt_names: sans.collect(), ..Default::default() };
            (vec![by_sds(MESH_CERTIFICATE.to_owned())], Some(combined(context, MESH_AUTHORITY.to_owned())), true)
        }
    };
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(versions()),
            tls_certificate_sds_secret_configs: shown,
            validation_context_type: validation,
            alpn_protocols: protocols.iter().map(|protocol| (*protocol).to_owned()).collect(),
            ..Default::default()
        }),
        require_client_certificate: is_required.then_some(BoolValue { value: true }),
        ..Default::default()
    };
    Some(socket(core::transport_socket::ConfigType::TypedConfig(any(&context))))
}

/// What is given here, and the authorities of a secret.
fn combined(context: CertificateValidationContext, secret: String) -> common_tls_context::ValidationContextType {
    common_tls_context::ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(context),
        validation_context_sds_secret_config: Some(by_sds(secret)),
        ..Default::default()
    })
}

/// By which names of a client a filter chain is found.
pub fn server_names(hostname: &str) -> Vec<String> {
    if hostname == "*" { Vec::new() } else { vec![hostname.to_owned()] }
}

/// Envoy's default for TLS to backends ends at version 1.2.
fn versions() -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..Default::default()
    }
}

fn socket(config: core::transport_socket::ConfigType) -> core::TransportSocket {
    core::TransportSocket { name: "envoy.transport_sockets.tls".to_owned(), config_type: Some(config) }
}
