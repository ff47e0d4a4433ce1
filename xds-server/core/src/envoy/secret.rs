//! Credentials, certificates and authorities by SDS. They are never inside a listener or a cluster.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, GenericSecret, SdsSecretConfig, Secret, TlsCertificate, secret,
};

use crate::ir;
use crate::snapshot::{Resource, ResourceType, Snapshot};
use crate::status::Origin;

use super::wire::{ads, inline};

pub fn add(snapshot: &mut Snapshot, gateway: &ir::Gateway) {
    let mut insert = |name: String, value: secret::Type, origins: Vec<Origin>| {
        let message = Secret { name: name.clone(), r#type: Some(value) };
        snapshot.insert(ResourceType::Secret, name, Resource::new(&message, origins));
    };
    for backend in gateway.catalog.backends.values() {
        if let Some(credential) = &backend.credential {
            let secret = GenericSecret { secret: Some(inline(credential.secret.expose())), ..Default::default() };
            let origins = vec![backend.origin.clone(), credential.origin.clone()];
            insert(credential_name(backend), secret::Type::GenericSecret(secret), origins);
        }
        if let ir::Tls::Simple { ca: ir::Authority::Certificate { origin, name, pem }, .. } = &backend.tls {
            let context = CertificateValidationContext { trusted_ca: Some(inline(pem.expose())), ..Default::default() };
            let origins = vec![backend.origin.clone(), origin.clone()];
            insert(authority_name(name), secret::Type::ValidationContext(context), origins);
        }
    }
    for site in gateway.listeners.iter().flat_map(|listener| &listener.sites) {
        if let Some(certificate) = &site.certificate {
            let value = TlsCertificate {
                certificate_chain: Some(inline(certificate.chain.expose())),
                private_key: Some(inline(certificate.private_key.expose())),
                ..Default::default()
            };
            let origins = vec![site.origin.clone(), certificate.origin.clone()];
            insert(certificate_name(certificate), secret::Type::TlsCertificate(value), origins);
        }
    }
}

pub fn credential_name(backend: &ir::Backend) -> String {
    format!("credential/{}/{}", backend.origin.namespace, backend.origin.name)
}

pub fn authority_name(name: &str) -> String {
    format!("authority/{name}")
}

pub fn certificate_name(certificate: &ir::Certificate) -> String {
    format!("certificate/{}", certificate.name)
}

pub fn by_sds(name: String) -> SdsSecretConfig {
    SdsSecretConfig { name, sds_config: Some(ads()) }
}
