//! Where a run keeps what must outlive it: certificates, ledger, port, Envoy's files. One run at a time uses it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use crate::state::private;

#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Held for as long as this run lives. The kernel releases it, however the run ends.
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    #[error("{path}: {error} (the state directory must be writable; --state names another)")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path}: another tollgate uses this state directory (end it, or name another with --state)")]
    InUse { path: PathBuf },
    #[error("there is no place for the state: neither XDG_STATE_HOME nor HOME is set (name one with --state)")]
    NoHome,
}

/// Where the state of a configuration folder is kept unless `--state` says otherwise: `tollgate/<folder>-<8 hex of its
/// path's hash>` in `$XDG_STATE_HOME`, or in `~/.local/state` if that is not set.
///
/// # Errors
/// When there is no home.
pub fn default_path(configuration: &Path) -> Result<PathBuf, StateDirError> {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = of("XDG_STATE_HOME").or_else(|| Some(of("HOME")?.join(".local/state"))).ok_or(StateDirError::NoHome)?;
    let full = fs::canonicalize(configuration).unwrap_or_else(|_| configuration.to_owned());
    let digest = hex::encode(Sha256::digest(full.as_os_str().as_encoded_bytes()));
    let name = full.file_name().map_or_else(|| "root".into(), |name| name.to_string_lossy());
    Ok(base.join("tollgate").join(format!("{name}-{}", digest.get(..8).unwrap_or_default())))
}

// === impl StateDir ===

impl StateDir {
    /// Makes and locks the directory.
    ///
    /// # Errors
    /// When it cannot be used, or another process uses it.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let io = |error| StateDirError::Io { path: path.to_owned(), error };
        private::create_dir(path).map_err(io)?;
        // Envoy and its bootstrap need a path that does not depend on where they are started.
        let path = fs::canonicalize(path).map_err(io)?;
        let mut lock = private::create_or_keep(&path.join("lock"))
            .map_err(|error| StateDirError::Io { path: path.clone(), error })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateDirError::InUse { path }),
            Err(TryLockError::Error(error)) => return Err(StateDirError::Io { path, error }),
        }
        // For people who look into the folder. Nothing reads it.
        let _only_a_note = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The xDS port of the last run if it is still free, so that an Envoy that lives on finds us again. Else a free
    /// one.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn xds_listener(&self) -> Result<TcpListener, StateDirError> {
        let path = self.join("xds-port");
        let io = |error| StateDirError::Io { path: path.clone(), error };
        let before = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u16>().ok());
        if let Some(port) = before
            && let Ok(listener) = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
        {
            return Ok(listener);
        }
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.map_err(io)?;
        let port = listener.local_addr().map_err(io)?.port();
        private::write(&path, port.to_string().as_bytes()).map_err(io)?;
        Ok(listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_run_at_a_time_and_the_port_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateDirError::InUse { .. })));
        let port = state.xds_listener().await.unwrap().local_addr().unwrap().port();
        drop(state);
        let state = StateDir::open(dir.path()).unwrap();
        assert_eq!(state.xds_listener().await.unwrap().local_addr().unwrap().port(), port);
    }
}
