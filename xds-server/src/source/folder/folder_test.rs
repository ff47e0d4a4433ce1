//! What is in force after files have changed.

use std::fs;
use std::sync::Arc;

use tollgate_core::objects::{Changes, Objects};
use tollgate_core::status::{Finding, Reason};

use super::{Folder, Reading};

const BACKEND: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: ModelBackend\nmetadata: {name: NAME}\nspec:\n  schema: OpenAI\n  endpoint: {hostname: 127.0.0.1, port: 8081}\n";

pub(super) fn backend(name: &str) -> String {
    BACKEND.replace("NAME", name)
}

/// What is in force after a reading.
pub(super) struct Read {
    pub objects: Objects,
    pub findings: Vec<Finding>,
}

/// A folder, and what all its readings have put in force.
pub(super) struct Followed {
    folder: Folder,
    objects: Objects,
}

impl Followed {
    pub fn new(folder: Folder) -> Self {
        Self { folder, objects: Objects::default() }
    }

    fn changes(&mut self) -> (Changes, Vec<Finding>) {
        let Reading { changes, findings, .. } = self.folder.read(&self.objects).unwrap();
        self.objects.apply(changes.clone(), &mut |_, _, _| {});
        self.folder.keep();
        (changes, findings)
    }
}

pub(super) fn read(folder: &mut Followed) -> Read {
    let (_, findings) = folder.changes();
    Read { objects: folder.objects.clone(), findings }
}

fn names(reading: &Read) -> Vec<String> {
    reading.objects.model_backends.iter().map(|object| object.meta.name().to_owned()).collect()
}

#[test]
fn only_files_that_changed_are_decoded_again() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, key) = (dir.path().join("1.yaml"), dir.path().join("2.yaml"), dir.path().join("key"));
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nfile: {apiKey: key}\n";
    fs::write(&one, format!("{}---\n{secret}", backend("a"))).unwrap();
    fs::write(&two, backend("b")).unwrap();
    fs::write(&key, "one").unwrap();
    let mut folder = Followed::new(Folder::new(dir.path()));
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
    let mut folder = Followed::new(Folder::new(dir.path()));
    let mut told = || {
        let (changes, _) = folder.changes();
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
    let mut folder = Followed::new(Folder::new(dir.path()));
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

#[test]
fn a_refused_object_keeps_its_last_good_version_and_its_neighbours_move_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("1.yaml");
    fs::write(&file, format!("{}---\n{}", backend("a"), backend("b"))).unwrap();
    let mut folder = Followed::new(Folder::new(dir.path()));
    read(&mut folder);
    let bad = backend("a").replace("8081", "808100");
    fs::write(&file, format!("{bad}---\n{}", backend("c"))).unwrap();
    let reading = read(&mut folder);
    assert_eq!(names(&reading), ["a", "c"]);
    assert!(reading.objects.refused.is_empty());
    assert!(!reading.findings.is_empty());
}

/// So many files that several cores have some of them.
#[test]
fn many_files_are_read_as_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    for number in 10..60 {
        fs::write(dir.path().join(format!("{number}.yaml")), backend(&format!("b{number}"))).unwrap();
    }
    fs::write(dir.path().join("59-again.yaml"), backend("b10")).unwrap();
    let reading = read(&mut Followed::new(Folder::new(dir.path())));
    assert_eq!(names(&reading), (10..60).map(|number| format!("b{number}")).collect::<Vec<_>>());
    let [finding] = reading.findings.as_slice() else { panic!("{:?}", reading.findings) };
    assert_eq!(finding.reason, Reason::Duplicate);
    assert!(finding.spot.as_ref().unwrap().file.ends_with("59-again.yaml"), "the first one is used: {finding}");
}
