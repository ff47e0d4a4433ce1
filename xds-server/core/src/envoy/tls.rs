//! TLS to backends and from clients.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SubjectAltNameMatcher, TlsParameters,
    UpstreamTlsContext, common_tls_context, common_tls_context::CombinedCertificateValidationContext,
    subject_alt_name_matcher::SanType, tls_parameters::TlsProtocol,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};

use crate::ir;

use super::secret::{authority_name, by_sds, certificate_name};
use super::wire::any;

/// Where Debian, Alpine and distroless images keep the authorities that they trust.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

pub fn upstream(sni: &str, authority: &ir::Authority) -> core::TransportSocket {
    let is_ip = sni.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let san = SubjectAltNameMatcher {
        san_type: if is_ip { SanType::IpAddress } else { SanType::Dns }.into(),
        matcher: Some(StringMatcher {
            match_pattern: Some(string_matcher::MatchPattern::Exact(sni.trim_matches(['[', ']']).to_owned())),
            ..Default::default()
        }),
        ..Default::default()
    };
    let context = CertificateValidationContext { match_typed_subject_alt_names: vec![san], ..Default::default() };
    let validation = match authority {
        ir::Authority::System => {
            common_tls_context::ValidationContextType::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(core::DataSource {
                    specifier: Some(core::data_source::Specifier::Filename(SYSTEM_AUTHORITIES.to_owned())),
                    ..Default::default()
                }),
                ..context
            })
        }
        ir::Authority::Certificate { name, .. } => {
            common_tls_context::ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(context),
                validation_context_sds_secret_config: Some(by_sds(authority_name(name))),
                ..Default::default()
            })
        }
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(versions()),
            validation_context_type: Some(validation),
            ..Default::default()
        }),
        // An address is not a server name (RFC 6066, 3).
        sni: if is_ip { String::new() } else { sni.to_owned() },
        ..Default::default()
    };
    socket(core::transport_socket::ConfigType::TypedConfig(any(&context)))
}

pub fn downstream(certificate: &ir::Certificate) -> core::TransportSocket {
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(versions()),
            tls_certificate_sds_secret_configs: vec![by_sds(certificate_name(certificate))],
            alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
            ..Default::default()
        }),
        ..Default::default()
    };
    socket(core::transport_socket::ConfigType::TypedConfig(any(&context)))
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
