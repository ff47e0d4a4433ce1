//! A folder of YAML files as objects. What was good stays in force while what replaced it is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use jiff::Timestamp;
use tollgate_core::objects::{Changes, Objects, Replaced};
use tollgate_core::status::{Finding, Reason, Severity, Spot};

use super::last_good::LastGood;
use super::print::Print;
use super::secrets::LocalSecrets;

/// A folder (or one file) and what was last good in it.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// What each file says. A file is decoded again when it, or a file that a Secret of it refers to, has changed.
    files: BTreeMap<PathBuf, Decoded>,
    /// What is in force.
    objects: Objects,
    /// What was in force when another process used the state, until the first reading.
    last: Option<Objects>,
    together: Together,
    /// None: what was good is kept only for as long as this process lives.
    kept: Option<LastGood>,
}

/// How what is in force comes from what the files say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Together {
    /// It is what they say: each object once, and nothing refused. A file that changes changes its own objects.
    Plainly,
    /// Something is there twice, refused, or kept from before.
    WithCare,
}

/// The files that say something else than before.
#[derive(Debug, Default)]
struct Changed {
    /// What each of them said until now.
    before: BTreeMap<PathBuf, Option<Decoded>>,
    unreadable: Vec<(PathBuf, io::Error)>,
}

/// What one file says.
#[derive(Debug)]
struct Decoded {
    /// The file itself, and those that its Secrets refer to, readable or not.
    file: Print,
    secret_files: Vec<Print>,
    objects: Objects,
    findings: Vec<Finding>,
}

/// One reading of the folder.
#[derive(Debug)]
pub struct Reading {
    pub changes: Changes,
    pub findings: Vec<Finding>,
    /// Files outside (or inside) that Secrets refer to.
    pub secret_files: BTreeSet<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{path}: {error} (-f names a folder with .yaml files)")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{path}: {error} (the state directory must be writable; --state names another)")]
    State { path: PathBuf, error: io::Error },
}

/// Folders deeper than this are not read, because symbolic links may form circles.
const MAX_DEPTH: usize = 16;

/// A file larger than this is a mistake.
const MAX_FILE_BYTES: u64 = 256 << 20;

// === impl Folder ===

impl Folder {
    /// Begins as on a first start, with nothing that was good before.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            files: BTreeMap::new(),
            objects: Objects::default(),
            last: None,
            together: Together::WithCare,
            kept: None,
        }
    }

    /// Begins with what was last good when a process used this state directory.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn with_state(root: &Path, state: &Path) -> Result<Self, FolderError> {
        let unusable = |error| FolderError::State { path: state.to_owned(), error };
        let kept = LastGood::open(state, root).map_err(unusable)?;
        let last = kept.read(&LocalSecrets::new(base(root)));
        Ok(Self { last: Some(last), kept: Some(kept), ..Self::new(root) })
    }

    /// What is in force.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Reads what has changed.
    ///
    /// # Errors
    /// When the folder itself cannot be read. What was read before stays good.
    pub fn read(&mut self) -> Result<Reading, FolderError> {
        let changed = self.look(list(&self.root)?);
        let mut findings: Vec<Finding> =
            self.files.values().flat_map(|decoded| decoded.findings.iter().cloned()).collect();
        let changes = match self.plain_changes(&changed) {
            Some(changes) => {
                self.keep_files(&changed);
                changes
            }
            None => self.put_together(&changed, &mut findings),
        };
        let secret_files = self.files.values().flat_map(|decoded| &decoded.secret_files);
        let secret_files = secret_files.map(|print| print.path.clone()).collect();
        self.objects.apply(changes.clone(), &mut |_, _, _| {});
        Ok(Reading { changes, findings, secret_files })
    }

    /// Decodes what is new or changed, and forgets what is gone.
    fn look(&mut self, paths: Vec<PathBuf>) -> Changed {
        let mut before = std::mem::take(&mut self.files);
        let mut changed = Changed::default();
        for path in paths {
            let known = before.remove(&path);
            if known.as_ref().is_some_and(Decoded::is_current) {
                self.files.extend(known.map(|known| (path, known)));
                continue;
            }
            match self.decode(&path) {
                Ok(decoded) => {
                    self.files.insert(path.clone(), decoded);
                }
                // The file went away between listing and reading.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => changed.unreadable.push((path.clone(), error)),
            }
            changed.before.insert(path, known);
        }
        changed.before.extend(before.into_iter().map(|(path, decoded)| (path, Some(decoded))));
        changed
    }

    /// The changes, if they can be told from the files that changed.
    fn plain_changes(&self, changed: &Changed) -> Option<Changes> {
        let plain = self.together == Together::Plainly && changed.unreadable.is_empty();
        if !plain || !self.files.values().all(Decoded::is_plain) {
            return None;
        }
        let replaced: Vec<Replaced<'_>> = changed
            .before
            .iter()
            .map(|(path, before)| Replaced {
                before: before.as_ref().map(|decoded| &decoded.objects),
                after: self.files.get(path).map(|decoded| &decoded.objects),
            })
            .collect();
        Changes::of_files(&self.objects, &replaced)
    }

    /// Puts together what all files say, and keeps what was good of what is broken.
    fn put_together(&mut self, changed: &Changed, findings: &mut Vec<Finding>) -> Changes {
        let mut objects = Objects::default();
        let mut broken = BTreeSet::new();
        let mut plain = true;
        for (path, decoded) in &self.files {
            if decoded.findings.iter().any(hides_an_object) {
                broken.insert(path.display().to_string());
            }
            plain &= decoded.is_plain();
            let twice = objects.merge(&decoded.objects);
            plain &= twice.is_empty();
            findings.extend(twice);
        }
        for (path, error) in &changed.unreadable {
            let file = path.display().to_string();
            findings.push(unreadable(&file, error));
            objects.add_unreadable(&file);
            broken.insert(file);
        }
        let last = self.last.take();
        let kept = objects.keep_last_good(last.as_ref().unwrap_or(&self.objects), &broken);
        plain &= kept.is_empty() && broken.is_empty();
        findings.extend(kept);
        if let Some(kept) = &mut self.kept {
            kept.write(&objects);
        }
        self.together = if plain { Together::Plainly } else { Together::WithCare };
        let changes = Changes::between(&self.objects, &objects);
        self.objects.files = objects.files;
        changes
    }

    /// Writes down what the files that changed say, for the next start.
    fn keep_files(&mut self, changed: &Changed) {
        for path in changed.before.keys() {
            let file = path.display().to_string();
            match self.files.get(path) {
                Some(decoded) => {
                    self.objects.files.insert(file);
                    if let Some(kept) = &mut self.kept {
                        kept.write_file(&decoded.objects);
                    }
                }
                None => {
                    self.objects.files.remove(&file);
                    if let Some(kept) = &mut self.kept {
                        kept.remove_file(&file);
                    }
                }
            }
        }
    }

    fn decode(&self, path: &Path) -> io::Result<Decoded> {
        // If the file changes while it is read, this print is of before, and it is read again.
        let print = Print::of(path.to_owned());
        let text = read(path)?;
        let secrets = LocalSecrets::new(base(&self.root));
        let mut objects = Objects::default();
        let findings = objects.add_yaml(&path.display().to_string(), &text, &secrets);
        objects.date(self.last.as_ref().unwrap_or(&self.objects), Timestamp::now().as_second());
        Ok(Decoded { file: print, secret_files: secrets.into_prints(), objects, findings })
    }
}

// === impl Decoded ===

impl Decoded {
    /// Whether the file says nothing that could not be taken.
    fn is_plain(&self) -> bool {
        let Objects { refused, refused_policies, files, .. } = &self.objects;
        let is_readable = !files.is_empty() && !self.findings.iter().any(hides_an_object);
        is_readable && refused.is_empty() && refused_policies.is_empty()
    }

    fn is_current(&self) -> bool {
        self.file.is_current() && self.secret_files.iter().all(Print::is_current)
    }
}

/// Where relative paths of Secrets start.
fn base(root: &Path) -> &Path {
    if root.is_dir() { root } else { Path::new("") }
}

/// Whether the finding leaves open which object the user meant. Then everything of the file that seems to be gone is
/// kept.
fn hides_an_object(finding: &Finding) -> bool {
    let nameless = finding.origin.as_ref().is_none_or(|origin| origin.name.is_empty());
    let wrong_kind = matches!(finding.reason, Reason::UnsupportedKind | Reason::UnsupportedVersion);
    finding.severity == Severity::Error && (nameless || wrong_kind)
}

fn unreadable(file: &str, error: &io::Error) -> Finding {
    Finding {
        severity: Severity::Error,
        reason: Reason::Unreadable,
        origin: None,
        spot: Some(Spot { file: file.to_owned(), line: 1 }),
        field: String::new(),
        message: error.to_string(),
        hint: "what was read of it before stays".to_owned(),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("the file is larger than {MAX_FILE_BYTES} bytes")));
    }
    fs::read_to_string(path)
}

/// The files that are read, sorted: `*.yaml`, `*.yml` and `*.json`. Hidden files are left out, and links are followed.
/// A mounted ConfigMap has its files as links into a hidden folder, so each is read once and not twice.
///
/// # Errors
/// When the root cannot be read.
pub fn list(root: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let unreadable = |error| FolderError::Unreadable { path: root.to_owned(), error };
    if fs::metadata(root).map_err(unreadable)?.is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let mut files = Vec::new();
    walk(root, 0, &mut files).map_err(unreadable)?;
    files.sort();
    Ok(files)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let Ok(kind) = fs::metadata(&path) else { continue };
        if kind.is_dir() && depth < MAX_DEPTH {
            // If a folder below cannot be read, the others are read all the same.
            let _unreadable = walk(&path, depth + 1, files);
        } else if kind.is_file() && is_configuration(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn is_configuration(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const BACKEND: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: ModelBackend\nmetadata: {name: NAME}\nspec:\n  schema: OpenAI\n  endpoint: {hostname: 127.0.0.1, port: 8081}\n";

    fn backend(name: &str) -> String {
        BACKEND.replace("NAME", name)
    }

    /// What is in force after a reading.
    struct Read {
        objects: Objects,
        findings: Vec<Finding>,
    }

    fn read(folder: &mut Folder) -> Read {
        let findings = folder.read().unwrap().findings;
        Read { objects: folder.objects().clone(), findings }
    }

    fn names(reading: &Read) -> Vec<String> {
        reading.objects.model_backends.iter().map(|object| object.meta.name().to_owned()).collect()
    }

    #[test]
    fn which_files_count() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("below/..data")).unwrap();
        fs::write(root.join("below/..data/c.yaml"), backend("c")).unwrap();
        std::os::unix::fs::symlink("..data/c.yaml", root.join("below/c.yaml")).unwrap();
        fs::write(root.join("a.yml"), backend("a")).unwrap();
        fs::write(root.join(".a.yaml.swp"), "x").unwrap();
        fs::write(root.join(".hidden.yaml"), "x").unwrap();
        fs::write(root.join("README.md"), "x").unwrap();
        let reading = read(&mut Folder::new(root));
        assert_eq!(reading.findings, []);
        assert_eq!(names(&reading), ["a", "c"]);
    }

    #[test]
    fn only_files_that_changed_are_decoded_again() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two, key) = (dir.path().join("1.yaml"), dir.path().join("2.yaml"), dir.path().join("key"));
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nfile: {apiKey: key}\n";
        fs::write(&one, format!("{}---\n{secret}", backend("a"))).unwrap();
        fs::write(&two, backend("b")).unwrap();
        fs::write(&key, "one").unwrap();
        let mut folder = Folder::new(dir.path());
        let mut before = read(&mut folder).objects;
        // Whether each of the two backends and the Secret is the one in memory that it was before.
        let mut same = || {
            let now = read(&mut folder).objects;
            let pairs = now.model_backends.shared().zip(before.model_backends.shared());
            let mut same: Vec<bool> = pairs.map(|(now, before)| Arc::ptr_eq(now, before)).collect();
            let secrets = now.secrets.shared().zip(before.secrets.shared());
            same.extend(secrets.map(|(now, before)| Arc::ptr_eq(now, before)));
            before = now;
            same
        };
        assert_eq!(same(), [true, true, true]);
        fs::write(&two, backend("b").replace("8081", "8082")).unwrap();
        assert_eq!(same(), [true, false, true]);
        assert_eq!(same(), [true, true, true]);
        fs::write(&key, "another").unwrap();
        assert_eq!(same(), [true, true, false], "the file's Secret is in another file");
        // It stays as it was last read.
        fs::remove_file(&key).unwrap();
        assert_eq!(same(), [true, true, true]);
        fs::write(&key, "a third").unwrap();
        assert_eq!(same(), [true, true, false]);
    }

    #[test]
    fn a_change_is_told_by_the_objects_that_it_concerns() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("1.yaml"), dir.path().join("2.yaml"));
        fs::write(&one, format!("{}---\n{}", backend("a"), backend("b"))).unwrap();
        fs::write(&two, backend("c")).unwrap();
        let mut folder = Folder::new(dir.path());
        let mut told = || {
            let changes = folder.read().unwrap().changes;
            let set = changes.set.model_backends.iter().map(|object| format!("+{}", object.meta.name()));
            let told: Vec<String> = set.chain(changes.gone.iter().map(|(_, key)| format!("-{}", key.name))).collect();
            told.join(" ")
        };
        assert_eq!(told(), "+a +b +c");
        assert_eq!(told(), "");
        let other = backend("b").replace("8081", "8082");
        fs::write(&one, format!("{}---\n{other}", backend("a"))).unwrap();
        assert_eq!(told(), "+b");
        // It is at another line now, and findings on it say so.
        fs::write(&one, format!("# b\n{other}")).unwrap();
        assert_eq!(told(), "+b -a");
        // It is in both files. The first one counts, whatever the other says.
        fs::write(&two, format!("{}---\n{}", backend("b"), backend("d"))).unwrap();
        assert_eq!(told(), "+d -c");
        fs::remove_file(&one).unwrap();
        assert_eq!(told(), "+b");
        // It moves to another file.
        fs::write(&one, backend("d")).unwrap();
        fs::write(&two, backend("b")).unwrap();
        assert_eq!(told(), "+d");
        fs::write(&two, "kind: [").unwrap();
        assert_eq!(told(), "");
        fs::write(&two, backend("e")).unwrap();
        assert_eq!(told(), "+e -b");
    }

    #[test]
    fn a_broken_file_keeps_its_objects_and_a_removed_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("1.yaml"), dir.path().join("2.yaml"));
        fs::write(&one, backend("a")).unwrap();
        fs::write(&two, backend("b")).unwrap();
        let mut folder = Folder::new(dir.path());
        assert_eq!(names(&read(&mut folder)), ["a", "b"]);
        fs::write(&one, "kind: [").unwrap();
        let reading = read(&mut folder);
        assert_eq!(names(&reading), ["a", "b"]);
        // The mistake, and what goes on in spite of it.
        let reasons: Vec<Reason> = reading.findings.iter().map(|finding| finding.reason).collect();
        assert_eq!(reasons, [Reason::SyntaxError, Reason::LastGood]);
        // It stays, however often the broken file is read.
        assert_eq!(names(&read(&mut folder)), ["a", "b"]);
        fs::remove_file(&one).unwrap();
        assert_eq!(names(&read(&mut folder)), ["b"]);
    }

    /// A folder with one pool route and a policy on it, and where its state goes.
    struct Start {
        dir: tempfile::TempDir,
    }

    const ENTRY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm}
spec: {gatewayClassName: tollgate, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat}
spec: {parentRefs: [{name: llm}], rules: [{backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: chat}
spec: {models: [{name: smol, targets: [{backendRef: {name: a}}]}]}
---
";
    const POLICY: &str = "\
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: budget}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: chat}]
  limits: [{name: day, tokens: 1000, window: 1d}]
";

    impl Start {
        fn new(policy: &str) -> Self {
            let start = Self { dir: tempfile::tempdir().unwrap() };
            fs::create_dir(start.path("conf")).unwrap();
            fs::write(start.path("conf/entry.yaml"), format!("{ENTRY}{}", backend("a"))).unwrap();
            start.write(policy);
            start
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, policy: &str) {
            fs::write(self.path("conf/policy.yaml"), policy).unwrap();
        }

        /// A new process with the old state.
        fn folder(&self) -> Folder {
            Folder::with_state(&self.path("conf"), &self.path("state")).unwrap()
        }
    }

    /// What holds on the route: the size of its budget, or the policy that closes it.
    fn holds(reading: &Read) -> String {
        use tollgate_core::ir::Action;
        let ir = tollgate_core::translate::translate(&reading.objects, tollgate_core::placement::Placement::OneHost).ir;
        let route = ir.gateways.values().next().unwrap().routes().next().unwrap().clone();
        let Action::Pool { closed_by, limits, .. } = route.action else { panic!("no pool") };
        let tokens =
            ir.limits.values().filter(|limit| limits.contains(&limit.id)).map(|limit| limit.tokens).sum::<u64>();
        closed_by.map_or(format!("{tokens} tokens"), |policy| format!("closed by {policy}"))
    }

    #[test]
    fn a_policy_that_was_never_good_closes_its_route_until_it_is_mended() {
        for broken in
            [POLICY.replace("1d", "1 dy"), POLICY.replace("limits:", "limit:"), POLICY.replace("v1alpha1", "v1")]
        {
            let start = Start::new(&broken);
            assert_eq!(holds(&read(&mut start.folder())), "closed by default/budget", "{broken}");
            // The next process finds the route closed as well.
            let mut folder = start.folder();
            assert_eq!(holds(&read(&mut folder)), "closed by default/budget");
            // Worse than before: the file cannot be read at all.
            start.write(&format!("{broken}  }}"));
            assert_eq!(holds(&read(&mut folder)), "closed by default/budget");
            assert_eq!(holds(&read(&mut start.folder())), "closed by default/budget");
            start.write(POLICY);
            assert_eq!(holds(&read(&mut folder)), "1000 tokens");
        }
        let start = Start::new(&POLICY.replace("spec:", "spec: {"));
        assert_eq!(holds(&read(&mut start.folder())), "closed by default/(unnamed)");
        // Not even text.
        fs::write(start.path("conf/policy.yaml"), b"\xff\xfe").unwrap();
        assert_eq!(holds(&read(&mut start.folder())), "closed by default/(unnamed)");
        // A policy in Shadow mode would refuse nobody, so it closes nothing.
        let start = Start::new(&POLICY.replace("1d", "1 dy").replace("spec:", "spec:\n  mode: Shadow"));
        assert_eq!(holds(&read(&mut start.folder())), "0 tokens");
        // Somebody else's broken file closes nothing.
        let start = Start::new("{{ template }}");
        assert_eq!(holds(&read(&mut start.folder())), "0 tokens");
    }

    #[test]
    fn a_restart_changes_nothing() {
        let start = Start::new(POLICY);
        assert_eq!(holds(&read(&mut start.folder())), "1000 tokens");
        for broken in [
            POLICY.replace("1d", "1 dy"),
            POLICY.replace("kind: TokenPolicy", "kind: TokenPolcy"),
            POLICY.replace("metadata: {name: budget}", "metadata: {}"),
            POLICY.replace("spec:", "spec: {"),
        ] {
            start.write(&broken);
            // There are two starts, because what is kept is written down again.
            for _ in 0..2 {
                let reading = read(&mut start.folder());
                assert_eq!(holds(&reading), "1000 tokens", "{broken}");
                let kept = reading.findings.iter().find(|finding| finding.reason == Reason::LastGood).unwrap();
                assert_eq!(kept.severity, Severity::Warning);
                assert!(kept.message.contains("20") && kept.message.contains('T'), "{kept}");
            }
        }
        // An object that the user removes is meant to go.
        start.write("# nothing");
        assert_eq!(holds(&read(&mut start.folder())), "0 tokens");
        start.write(&POLICY.replace("1d", "1 dy"));
        assert_eq!(holds(&read(&mut start.folder())), "closed by default/budget");
        fs::remove_file(start.path("conf/policy.yaml")).unwrap();
        assert_eq!(holds(&read(&mut start.folder())), "0 tokens");
    }

    #[test]
    fn the_state_is_private_and_holds_no_value_of_a_reference() {
        use std::os::unix::fs::PermissionsExt as _;
        let start = Start::new(POLICY);
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nfile: {apiKey: ../key}\n";
        fs::write(start.path("key"), "the-value-of-the-key").unwrap();
        fs::write(start.path("conf/secret.yaml"), secret).unwrap();
        let reading = read(&mut start.folder());
        assert!(reading.objects.secrets.get("default", "s").is_some());
        for entry in fs::read_dir(start.path("state")).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(!fs::read_to_string(&path).unwrap().contains("the-value-of-the-key"));
        }
        // The next process reads the key again, although the document is broken.
        fs::write(start.path("conf/secret.yaml"), secret.replace("file:", "fil:")).unwrap();
        let reading = read(&mut start.folder());
        assert!(reading.objects.secrets.get("default", "s").is_some());
        // State of another folder, and state that cannot be read, count for nothing.
        fs::rename(start.path("conf"), start.path("other")).unwrap();
        let reading = read(&mut Folder::with_state(&start.path("other"), &start.path("state")).unwrap());
        assert!(reading.objects.secrets.get("default", "s").is_none());
        for entry in fs::read_dir(start.path("state")).unwrap() {
            fs::write(entry.unwrap().path(), "{\"version\": 99}").unwrap();
        }
        fs::write(start.path("other/policy.yaml"), POLICY.replace("1d", "1 dy")).unwrap();
        let reading = read(&mut Folder::with_state(&start.path("other"), &start.path("state")).unwrap());
        assert_eq!(holds(&reading), "closed by default/budget");
    }

    #[test]
    fn a_refused_object_keeps_its_last_good_version_and_its_neighbours_move_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("1.yaml");
        fs::write(&file, format!("{}---\n{}", backend("a"), backend("b"))).unwrap();
        let mut folder = Folder::new(dir.path());
        read(&mut folder);
        let bad = backend("a").replace("8081", "808100");
        fs::write(&file, format!("{bad}---\n{}", backend("c"))).unwrap();
        let reading = read(&mut folder);
        assert_eq!(names(&reading), ["a", "c"]);
        assert!(reading.objects.refused.is_empty());
        assert!(!reading.findings.is_empty());
    }
}
