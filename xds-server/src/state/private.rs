//! Files and folders for their owner only, whatever the umask. Everything in the state directory is made so.
//!
//! What we make gets its mode when it is created and not afterwards, because between the two somebody could open it.
//! What libraries and Envoy make for us (the ledger's file, Envoy's sockets) falls under [`mask`].

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit};

const FILE: u32 = 0o600;
const DIR: u32 = 0o700;
/// The rights of the group and of all others.
const OTHERS: u32 = 0o077;

/// From now on, nothing that this process and its children create gives rights to anybody else.
pub fn mask() {
    let _before = rustix::process::umask(Mode::from_bits_truncate(OTHERS));
}

/// From now on this process and its children, Envoy among them, leave no core file, because what their memory holds are keys.
/// No core file fits into one byte. With zero, a program that takes core files (`|` in core_pattern) would be given one all
/// the same; one is the value with which the kernel asks none.
pub fn leave_no_core() {
    let none = Rlimit { current: Some(1), maximum: Some(1) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "a crash may leave a core file");
    }
}

/// Makes the folder and those above it. If it is there already, it is closed to others.
///
/// # Errors
/// When it cannot be made.
pub fn create_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIR).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    // A volume can belong to another user who lets our group in: then it is as private as it gets.
    if mode & OTHERS != 0
        && let Err(error) = fs::set_permissions(path, Permissions::from_mode(mode & DIR))
    {
        tracing::warn!(path = %path.display(), %error, "others may look into this folder");
    }
    Ok(())
}

/// Makes a folder that must not be there yet.
///
/// # Errors
/// When it is there, or cannot be made.
pub fn create_new_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(DIR).create(path)
}

/// Opens a file to write from its beginning.
///
/// # Errors
/// When it cannot be opened.
pub fn create(path: &Path) -> io::Result<File> {
    open(OpenOptions::new().write(true).create(true).truncate(true), path)
}

/// Opens a file to write into, and leaves what it holds.
///
/// # Errors
/// When it cannot be opened.
pub fn create_or_keep(path: &Path) -> io::Result<File> {
    open(OpenOptions::new().write(true).create(true).truncate(false), path)
}

/// Writes a file, whole or not at all.
///
/// # Errors
/// When it cannot be written. Then what was there before is still there.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = beside(path);
    // A process with the same id may have left it when it was killed here.
    let _not_there = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// A name in the same folder that no other process uses.
pub fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.mode(FILE).open(path)?;
    // The mode above is for a new file; an older version may have made this one.
    file.set_permissions(Permissions::from_mode(FILE))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_and_folders_are_for_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join("a/b"), dir.path().join("a/b/file"));
        create_dir(&folder).unwrap();
        write(&file, b"x").unwrap();
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_was_open_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "old").unwrap();
        for path in [dir.path(), &file] {
            fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        }
        create_dir(dir.path()).unwrap();
        drop(create_or_keep(&file).unwrap());
        assert_eq!((mode(dir.path()), mode(&file)), (0o700, 0o600));
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    }
}
