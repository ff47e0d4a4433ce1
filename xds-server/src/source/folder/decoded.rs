//! What one file says.

use std::path::Path;
use std::{fs, io};

use tollgate_core::objects::Objects;
use tollgate_core::status::{Finding, Reason, Severity};

use super::print::Print;
use super::secrets::LocalSecrets;

#[derive(Debug)]
pub(super) struct Decoded {
    /// The file itself, and those that its Secrets refer to, readable or not.
    file: Print,
    secret_files: Vec<Print>,
    pub objects: Objects,
    pub findings: Vec<Finding>,
}

/// A file larger than this is a mistake.
const MAX_FILE_BYTES: u64 = 256 << 20;

// === impl Decoded ===

impl Decoded {
    /// Reads a file of the folder `root`.
    pub fn of(path: &Path, root: &Path) -> io::Result<Self> {
        // If the file changes while it is read, this print is of before, and it is read again.
        let print = Print::of(path.to_owned());
        let text = read(path)?;
        let secrets = LocalSecrets::of(root);
        let mut objects = Objects::default();
        let findings = objects.add_yaml(&path.display().to_string(), &text, &secrets);
        Ok(Self { file: print, secret_files: secrets.into_prints(), objects, findings })
    }

    /// Whether this is still what the file says.
    pub fn is_current(&self) -> bool {
        self.file.is_current() && self.secret_files.iter().all(Print::is_current)
    }

    /// Whether the file says nothing that could not be taken.
    pub fn is_plain(&self) -> bool {
        let Objects { refused, refused_policies, files, .. } = &self.objects;
        let is_readable = !files.is_empty() && !self.is_broken();
        is_readable && refused.is_empty() && refused_policies.is_empty()
    }

    /// Whether it is open which objects the user meant. Then everything of the file that seems to be gone is kept.
    pub fn is_broken(&self) -> bool {
        self.findings.iter().any(hides_an_object)
    }

    /// As they were before they were read.
    pub fn secret_files(&self) -> &[Print] {
        &self.secret_files
    }
}

/// Whether the finding leaves open which object the user meant.
fn hides_an_object(finding: &Finding) -> bool {
    let nameless = finding.origin.as_ref().is_none_or(|origin| origin.name.is_empty());
    let wrong_kind = matches!(finding.reason, Reason::UnsupportedKind | Reason::UnsupportedVersion);
    finding.severity == Severity::Error && (nameless || wrong_kind)
}

pub(super) fn read(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("the file is larger than {MAX_FILE_BYTES} bytes")));
    }
    fs::read_to_string(path)
}
