//! Objects of Istio: those that hold a mesh to what Tollgate is for, and what is wrong with those that are there. A person
//! installs them; nothing here watches them.

mod check;
mod frontends;
mod kept;
mod policies;
mod sidecars;

pub use check::{
    Found, FoundControlPlane, FoundFilter, FoundGateway, FoundPod, FoundService, Remark, Version, check, is_ambient,
};
pub use frontends::frontend;
pub use kept::{Kept, KeptKind, KeptName};
pub use policies::Policies;
pub use sidecars::{SIDECAR_CODE_PORT, SIDECARS_PORT, envoy_filter, is_name, leading};

use crate::terms::Key;

/// How AuthorizationPolicies name whoever has a service account.
fn principal(trust_domain: &str, account: &Key) -> String {
    format!("{trust_domain}/ns/{}/sa/{}", account.namespace, account.name)
}

/// Where istiod runs. What of it is there holds for the namespaces that say nothing themselves.
const ROOT: &str = "istio-system";
