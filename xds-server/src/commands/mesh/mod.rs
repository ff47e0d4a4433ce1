//! The mesh that proxies are in, for the commands that must know it, and `tollgate mesh`, which is about it.

mod check;
mod code_place;
mod look;
pub mod policies;
mod sidecars;

pub use policies::written;
pub use sidecars::{At, SidecarArgs, SidecarPlace, TELLER};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use tollgate_core::mesh::Mesh;
use tollgate_core::objects::{Key, is_dns_label, is_dns_subdomain};
use tollgate_core::placement::{Placement, Setting};

use super::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the objects of Istio or Linkerd that let Gateways and nobody else call runners
    Policies(policies::Args),
    /// Say what keeps the mesh of a cluster from working with its Gateways; exit 1 when something does
    Check(check::Args),
}

/// Istio's, unless nothing is said.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "In an Istio mesh")]
pub struct MeshArgs {
    /// The proxies are in the mesh: the folder on their machine where Istio's agent keeps cert-chain.pem, key.pem and
    /// root-cert.pem (its OUTPUT_CERTS). Pods with the label security.istio.io/tlsMode=istio are reached by mutual TLS then
    #[arg(long, value_name = "DIR")]
    mesh_certificates: Option<PathBuf>,
    /// The mesh's trust domain
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = domain, requires = "mesh_certificates")]
    trust_domain: String,
    /// Another trust domain that certificates may be for, as while a mesh changes its own; may be given again
    #[arg(long, value_name = "DOMAIN", value_parser = domain, requires = "mesh_certificates")]
    trust_domain_alias: Vec<String>,
    /// The domain of Services
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = domain, requires = "mesh_certificates")]
    cluster_domain: String,
}

pub fn main(args: Args) -> anyhow::Result<Outcome> {
    match args.command {
        Command::Policies(args) => policies::main(args),
        Command::Check(args) => check::main(&args),
    }
}

/// The proxies on this machine could show nothing.
#[derive(Debug, thiserror::Error)]
#[error(
    "--mesh-certificates: {} cannot be read: {error} (istio-agent writes it, with OUTPUT_CERTS={})",
    path.display(), path.parent().unwrap_or(path).display()
)]
pub struct NoCertificate {
    path: PathBuf,
    error: std::io::Error,
}

// === impl MeshArgs ===

impl MeshArgs {
    /// What is translated for proxies in this place.
    pub fn setting(&self, placement: Placement) -> Setting {
        let mesh = self.mesh_certificates.as_deref().map(|folder| Arc::new(self.mesh(folder)));
        Setting { mesh, ..placement.into() }
    }

    /// The same for a proxy on this machine, whose certificate is looked at.
    ///
    /// # Errors
    /// When a file of it cannot be read.
    pub fn here(&self, placement: Placement) -> Result<Setting, NoCertificate> {
        let Some(folder) = &self.mesh_certificates else { return Ok(placement.into()) };
        certificate(folder)?;
        let mesh = match std::path::absolute(folder) {
            Ok(folder) => self.mesh(&folder),
            Err(error) => return Err(NoCertificate { path: folder.clone(), error }),
        };
        Ok(Setting { mesh: Some(Arc::new(mesh)), ..placement.into() })
    }

    /// The mesh that sidecars are in, whose certificates are theirs to find.
    pub fn of_sidecars(&self) -> Mesh {
        self.mesh(self.mesh_certificates.as_deref().unwrap_or(Path::new("")))
    }

    fn mesh(&self, folder: &Path) -> Mesh {
        Mesh {
            trust_domain: self.trust_domain.clone(),
            aliases: self.trust_domain_alias.clone(),
            cluster_domain: self.cluster_domain.clone(),
            certificates: folder.display().to_string(),
        }
    }
}

/// Looks for the certificate of this machine's proxy.
///
/// # Errors
/// When a file of it cannot be read.
pub fn certificate(folder: &Path) -> Result<(), NoCertificate> {
    let read = |path: PathBuf| match std::fs::read(&path) {
        Ok(_) => Ok(()),
        Err(error) => Err(NoCertificate { path, error }),
    };
    Mesh::FILES.iter().try_for_each(|name| read(folder.join(name)))
}

/// The letters that a trust domain may have (SPIFFE ID, 2.1), which are those of domains and an underscore.
fn domain(text: &str) -> Result<String, &'static str> {
    let is_letter = |letter: char| matches!(letter, 'a'..='z' | '0'..='9' | '-' | '.' | '_');
    match !text.is_empty() && text.len() <= 255 && text.chars().all(is_letter) {
        true => Ok(text.to_owned()),
        false => Err("a domain has lower case letters, digits, '-', '.' and '_'"),
    }
}

/// `NAME` or `NAMESPACE/NAME`.
fn place(text: &str) -> Result<Key, String> {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    Ok(Key::new(label(namespace)?, subdomain(name)?))
}

fn label(text: &str) -> Result<String, String> {
    if is_dns_label(text) { Ok(text.to_owned()) } else { Err(format!("`{text}` is no name of a namespace")) }
}

fn subdomain(text: &str) -> Result<String, String> {
    if is_dns_subdomain(text) { Ok(text.to_owned()) } else { Err(format!("`{text}` is no name in Kubernetes")) }
}
