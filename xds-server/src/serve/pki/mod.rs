//! The certificates between control plane and proxies.
//!
//! ```text
//! origin.rs     where the CA comes from: made here, or somebody else's in a folder or a Secret
//! given.rs      its files, here and there
//! authority.rs  what it signs
//! trust.rs      whom we trust by it
//! keeper.rs     makes new certificates in time, and puts another CA in the place of this one
//! folder.rs     an Envoy's certificate as files that this Envoy watches
//! ```
//! **Leaves live for a day** and are renewed at two thirds of it. So a control plane that is away for a night costs
//! nothing, and a copied key is soon worthless. Nothing is restarted for a renewal: our server asks for its certificate
//! at each handshake, and Envoy reads its files again when they are swapped. Open connections go on. A proxy that comes
//! with a certificate that has ended is refused at the handshake.
//!
//! **The CA lives for ten years**, with its key in the state directory (0600 in a folder of 0700). It signs by itself,
//! so a shorter life would protect from nothing: who can read this key can read the next one. A shorter life would cost
//! a second root at every Envoy that was started elsewhere, and an outage where one was missed. If the key is lost,
//! remove the folder. Then a new CA is made, our own Envoy gets its certificate at the next start, and others get
//! theirs by `tollgate bootstrap`.
//!
//! **Somebody else's CA** lives as long as they say. It is replaced in three steps, between which each proxy gets what is new
//! (`docs/certificates.md`): both are trusted, the new one signs, the old one is trusted no more. In one step it costs no
//! stream either, but a proxy that must connect anew has to wait until it has heard of the new CA.

mod authority;
mod folder;
#[cfg(test)]
pub mod foreign;
mod given;
mod keeper;
mod origin;
mod trust;

pub use authority::{Authority, InvalidAuthority, Issued, Leaf, Validity};
pub use folder::{AUTHORITY_SECRET, CERTIFICATE_SECRET, Folder, ProxyFiles};
pub use keeper::{CurrentAuthority, Keeper, ServerCertificate};
pub use origin::{Maker, Origin};
pub use trust::{Clients, certificates, roots};

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The name that proxies expect in our certificate.
pub const SERVER_NAME: &str = "tollgate-control";

/// How long a leaf lives unless told otherwise, as the command line says it.
pub const LIFETIME: &str = "24h";

/// The shortest life of a leaf. Certificates count in whole seconds.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);

/// How long a leaf is to live, as the command line says it.
///
/// # Errors
/// When it is no duration, or too short.
pub fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = tollgate_core::objects::parse_duration(text).map_err(|error| error.to_string())?;
    if lifetime < SHORTEST_LIFETIME {
        Err("no certificate lives for less than a second".to_owned())
    } else {
        Ok(lifetime)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{path}: {error} (the state directory must be writable; --state names another)")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "{path}: the CA cannot be used: {error}. If it is our own, remove the folder to have a new one made; proxies then need new certificates"
    )]
    Unusable { path: PathBuf, error: InvalidAuthority },
    #[error("the certificate that was just made cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}
