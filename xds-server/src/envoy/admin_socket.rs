//! Where Envoy's admin API listens: on a socket in a folder that only its owner can open, since whoever reaches the
//! socket can stop Envoy from taking requests. Envoy leaves it behind, so we remove it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::state::private;

pub const NAME: &str = "envoy-admin.sock";

/// `sun_path` has 108 bytes, and the last one ends the text (unix(7)).
const MAX_PATH: usize = 107;

/// The place of a socket.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    /// A folder that was made for it.
    folder: Option<PathBuf>,
}

/// The socket's place. It is in the state directory if that path is short enough, else in a private folder with a short
/// name, which goes with the place.
///
/// # Errors
/// When that folder is not ours alone, or its path is too long as well.
pub fn of_state(state: &Path) -> io::Result<AdminSocket> {
    let path = state.join(NAME);
    if fits(&path).is_ok() {
        return Ok(AdminSocket { path, folder: None });
    }
    let digest = hex::encode(Sha256::digest(state.as_os_str().as_encoded_bytes()));
    let folder = std::env::temp_dir().join(format!("tollgate-{}", digest.get(..16).unwrap_or_default()));
    private::create_dir(&folder)?;
    // Anybody may make folders among the temporary files, and could have made this one.
    let found = std::fs::symlink_metadata(&folder)?;
    let ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if !ours {
        let message = format!("{} is not a folder of this user alone", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let socket = AdminSocket { path: folder.join(NAME), folder: Some(folder) };
    fits(socket.path()).map(|()| socket)
}

/// # Errors
/// When no socket can have this path.
pub fn fits(path: &Path) -> io::Result<()> {
    let bytes = path.as_os_str().len();
    if bytes <= MAX_PATH {
        return Ok(());
    }
    let message = format!("{}: a socket's path has at most {MAX_PATH} bytes, and this has {bytes}", path.display());
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

// === impl AdminSocket ===

impl AdminSocket {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// No Envoy listens there any more.
    pub fn remove(&self) {
        let _not_there = std::fs::remove_file(&self.path);
    }
}

impl Drop for AdminSocket {
    /// The folder stays if the socket does: an Envoy that we never took over may listen there.
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _not_empty = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_state_directory_has_its_socket_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of_state(dir.path()).unwrap().path(), dir.path().join(NAME));
        let long = dir.path().join("long-".repeat(30));
        let socket = of_state(&long).unwrap();
        let path = socket.path().to_owned();
        assert!(fits(&path).is_ok() && !path.starts_with(&long), "{}", path.display());
        let folder = path.parent().unwrap();
        assert_eq!(std::fs::metadata(folder).unwrap().mode() & 0o777, 0o700);
        std::fs::write(&path, "").unwrap();
        drop(socket);
        assert!(path.exists(), "an Envoy may listen there");
        let again = of_state(&long).unwrap();
        assert_eq!(again.path(), path, "the same for each run");
        again.remove();
        drop(again);
        assert!(!folder.exists());
    }
}
