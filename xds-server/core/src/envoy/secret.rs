//! Credentials, certificates and authorities by SDS. They are never inside a listener or a cluster.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, GenericSecret, SdsSecretConfig, Secret, TlsCertificate, secret,
};

use envoy_types::pb::envoy::config::core::v3 as core;

use crate::ir;
use crate::mesh::Mesh;
use crate::snapshot::{Resource, ResourceType, Snapshot};
use crate::status::Origin;

use super::wire::{ads, file, inline};

pub fn add(snapshot: &mut Snapshot, gateway: &ir::Gateway) {
    for backend in gateway.catalog.backends.values() {
        if let Some(credential) = &backend.credential {
            let secret = GenericSecret { secret: Some(inline(credential.secret.expose())), ..Default::default() };
            let origins = vec![backend.origin.clone(), credential.origin.clone()];
            insert(snapshot, credential_name(backend), secret::Type::GenericSecret(secret), origins);
        }
        if let ir::Tls::Simple { ca: ir::Authority::Certificate { origin, name, pem }, .. } = &backend.tls {
            let origins = vec![backend.origin.clone(), origin.clone()];
            insert(snapshot, authority_name(name), trusted(pem), origins);
        }
    }
    for service in gateway.services.values() {
        if let Some(resource) = of_service(service) {
            snapshot.insert(ResourceType::Secret, authority_name(&service.cluster), resource);
        }
    }
    for site in gateway.listeners.iter().flat_map(|listener| &listener.sites) {
        let ir::SiteTls::Certificates { certificates, clients } = &site.tls else { continue };
        if let Some(clients) = clients {
            let origins = vec![site.origin.clone(), clients.origin.clone()];
            insert(snapshot, authority_name(&clients.name), trusted(&clients.pem), origins);
        }
        for certificate in certificates {
            insert_certificate(snapshot, &site.origin, certificate);
        }
    }
    if let Some(certificate) = gateway.client_certificate.shown() {
        insert_certificate(snapshot, &gateway.origin, certificate);
    }
    if let Some(mesh) = &gateway.mesh {
        for (name, value) in of_mesh(mesh) {
            insert(snapshot, name.to_owned(), value, vec![gateway.origin.clone()]);
        }
    }
}

pub const MESH_CERTIFICATE: &str = "mesh/certificate";
pub const MESH_AUTHORITY: &str = "mesh/authority";

/// The certificate of the proxy in its mesh, and who signs those of the others. They are on the proxy's own machine, and
/// the key never leaves it: what is sent are the names of the files. Envoy reads them again when another one is moved
/// there.
fn of_mesh(mesh: &Mesh) -> [(&'static str, secret::Type); 2] {
    let [chain, key, authorities] = Mesh::FILES.map(|name| Some(file(&format!("{}/{name}", mesh.certificates))));
    let watched_directory = Some(core::WatchedDirectory { path: mesh.certificates.clone(), ..Default::default() });
    let certificate = TlsCertificate {
        certificate_chain: chain,
        private_key: key,
        watched_directory: watched_directory.clone(),
        ..Default::default()
    };
    let authority = CertificateValidationContext { trusted_ca: authorities, watched_directory, ..Default::default() };
    [
        (MESH_CERTIFICATE, secret::Type::TlsCertificate(certificate)),
        (MESH_AUTHORITY, secret::Type::ValidationContext(authority)),
    ]
}

fn insert_certificate(snapshot: &mut Snapshot, owner: &Origin, certificate: &ir::Certificate) {
    let value = TlsCertificate {
        certificate_chain: Some(inline(certificate.chain.expose())),
        private_key: Some(inline(certificate.private_key.expose())),
        ..Default::default()
    };
    let origins = vec![owner.clone(), certificate.origin.clone()];
    insert(snapshot, certificate_name(certificate), secret::Type::TlsCertificate(value), origins);
}

/// The authority that signs the certificates of a Service. Its name is that of the cluster.
pub fn of_service(service: &ir::Service) -> Option<Resource> {
    let ir::ServiceTls::Verified { origin: policy, ca, .. } = service.tls.as_deref()? else { return None };
    let ir::Authority::Certificate { origin, pem, .. } = ca else { return None };
    let message = Secret { name: authority_name(&service.cluster), r#type: Some(trusted(pem)) };
    Some(Resource::new(&message, vec![policy.clone(), origin.clone()]))
}

fn trusted(pem: &ir::SecretText) -> secret::Type {
    let trusted_ca = Some(inline(pem.expose()));
    secret::Type::ValidationContext(CertificateValidationContext { trusted_ca, ..Default::default() })
}

fn insert(snapshot: &mut Snapshot, name: String, value: secret::Type, origins: Vec<Origin>) {
    let message = Secret { name: name.clone(), r#type: Some(value) };
    snapshot.insert(ResourceType::Secret, name, Resource::new(&message, origins));
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
