//! Agents of sidecars fetch the filter's code as soon as istiod tells them of it, and give up after some seconds. So nothing is
//! told before somebody serves the code where it is told to be: this control plane begins before its Service leads to it.

use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};
use tollgate_core::envoy::{FilterCode, FilterSetup};

/// What is not reached until then is told of nevertheless.
const LIMIT: Duration = Duration::from_secs(30);
const ATTEMPT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(500);

/// Returns when the place of the code answers. Where nobody knows its name, as outside of a cluster, that is at once.
pub async fn wait(setup: &FilterSetup) {
    let FilterCode::ByAgent { uri, .. } = &setup.code else { return };
    let Some(place) = place_of(uri) else { return };
    if lookup_host(place).await.is_err() {
        return;
    }
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if timeout(ATTEMPT, TcpStream::connect(place)).await.is_ok_and(|connected| connected.is_ok()) {
            return;
        }
        sleep(PAUSE).await;
    }
    tracing::warn!("nobody serves the filter's code at {place} yet: sidecars may be told of it too early");
}

/// The host and the port of a URI.
fn place_of(uri: &str) -> Option<&str> {
    uri.strip_prefix("http://")?.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_code_is_read_from_its_uri() {
        assert_eq!(place_of("http://tollgate.system.svc:18003/code/abc.wasm"), Some("tollgate.system.svc:18003"));
        assert_eq!(place_of("oci://registry/code"), None);
    }
}
