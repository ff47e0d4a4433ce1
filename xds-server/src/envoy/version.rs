//! Which version of Envoy a binary is, as it says itself. A dynamic module may be loaded by one of them alone.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use tollgate_core::envoy::MODULE_ENVOY;

use super::process::EnvoyError;

/// A binary that says nothing for so long is no Envoy.
const PATIENCE: Duration = Duration::from_secs(10);

/// # Errors
/// When the binary does not say that it is the Envoy that the filter's module is for.
pub async fn is_for_module(binary: &Path) -> Result<(), EnvoyError> {
    let asked = Command::new(binary).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let output = output.map_err(|error| EnvoyError::NotStarted { path: binary.to_owned(), error })?;
    let version = of(&String::from_utf8_lossy(&output.stdout));
    if version.as_deref().is_some_and(is_right) {
        return Ok(());
    }
    let version = version.unwrap_or_else(|| "of an unknown version".to_owned());
    Err(EnvoyError::NotForModule { path: binary.to_owned(), version })
}

/// Finds `1.40.0` in `envoy  version: 9e55…/1.40.0/Clean/RELEASE/BoringSSL`.
fn of(said: &str) -> Option<String> {
    let (_, said) = said.split_once("version:")?;
    said.split('/').nth(1).map(str::to_owned).filter(|version| !version.is_empty())
}

fn is_right(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let (major, minor) = MODULE_ENVOY;
    (numbers.next().flatten(), numbers.next().flatten()) == (Some(major), Some(minor))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_version_is_told_from_what_envoy_prints() {
        let said =
            "\ntarget/envoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL\n\n";
        assert_eq!(of(said).as_deref(), Some("1.40.0"));
        assert_eq!((of("version: abc"), of("1/1.40.0"), of("version: a//b")), (None, None, None));
        for (version, right) in [
            ("1.40.0", true),
            ("1.40.7-dev", true),
            ("1.4.0", false),
            ("1.41.0", false),
            ("2.40.0", false),
            ("1", false),
        ] {
            assert_eq!(is_right(version), right, "{version}");
        }
    }

    #[tokio::test]
    async fn another_envoy_is_refused_with_its_version() {
        let dir = tempfile::tempdir().unwrap();
        let said = async |text: &str| {
            let path = dir.path().join("envoy");
            std::fs::write(&path, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            is_for_module(&path).await.map_err(|error| error.to_string())
        };
        assert_eq!(said("envoy  version: ab/1.40.2/Clean/RELEASE/BoringSSL").await, Ok(()));
        let refused = said("envoy  version: ab/1.39.0/Clean/RELEASE/BoringSSL").await.unwrap_err();
        assert!(refused.contains("1.39.0") && refused.contains("--filter wasm"), "{refused}");
        assert!(said("hello").await.unwrap_err().contains("unknown version"));
        assert!(is_for_module(&dir.path().join("none")).await.is_err());
    }
}
