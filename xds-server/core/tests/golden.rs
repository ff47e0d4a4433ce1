//! Golden cases: `tests/cases/<area>/<name>.yaml` shows one input all the way, and this test walks it.
//!
//! The filter's configuration is read by the filter's own parser on the way, so the halves cannot drift.
//! `cargo xtask bless` (TOLLGATE_BLESS=1) writes down what comes out now.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test: what is wrong ends it")]

#[path = "golden/case.rs"]
mod case;
#[path = "golden/common.rs"]
mod common;
#[path = "golden/diff.rs"]
mod diff;

use std::fs;
use std::path::{Path, PathBuf};

use case::Case;
use common::Common;

#[test]
fn cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases");
    let bless = std::env::var_os("TOLLGATE_BLESS").is_some();
    let files = files(&root);
    let common = Common::read(&root.join("common.yaml"));
    assert!(!files.is_empty(), "no cases in tests/cases");
    let mut changed = Vec::new();
    for file in &files {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        let text = fs::read_to_string(file).unwrap();
        let case = Case::parse(&text);
        let actual = case.run(&name, &common);
        if actual == text {
            continue;
        }
        if bless {
            fs::write(file, actual).unwrap();
        } else {
            changed.push(format!("tests/cases/{name}\n{}", diff::lines(&text, &actual)));
        }
    }
    assert!(common.unused().is_empty(), "entries of tests/cases/common.yaml that no case has: {:?}", common.unused());
    assert!(
        changed.is_empty(),
        "{} golden cases differ (cargo xtask bless writes what comes out now)\n\n{}",
        changed.len(),
        changed.join("\n")
    );
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|area| area.unwrap().path())
        .filter(|area| area.is_dir())
        .flat_map(|area| fs::read_dir(area).unwrap().map(|file| file.unwrap().path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}
