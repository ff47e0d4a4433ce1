//! Arrows point downwards: no folder of the control plane uses one that stands after it here.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: what is wrong ends it")]

use std::fs;
use std::path::{Path, PathBuf};

/// The files and folders of `core/src`. Each may use those before it.
const CORE: [&str; 20] = [
    "terms",
    "sets",
    "status",
    "objects",
    "written",
    "files",
    "litellm",
    "mesh",
    "linkerd",
    "placement",
    "fleet",
    "scope",
    "ir",
    "translate",
    "snapshot",
    "envoy",
    "istio",
    "world",
    "subscription",
    "ledger",
];

/// The same of `src`, which may use all of the core.
const EDGE: [&str; 25] = [
    "causes",
    "identity",
    "accept",
    "audit",
    "otlp",
    "handshakes",
    "web",
    "report",
    "state",
    "filter_code",
    "source",
    "pipeline",
    "ledger",
    "serve",
    "leader",
    "replicas",
    "statuses",
    "notices",
    "fleet",
    "istio",
    "admin",
    "envoy",
    "proxy",
    "commands",
    "manifests",
];

/// `main.rs` and `lib.rs` are above all of it, and tests may look anywhere.
fn is_checked(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    path.extension().is_some_and(|extension| extension == "rs")
        && name != "main"
        && name != "lib"
        && name != "tests"
        && !name.ends_with("_test")
        && name != "test_support"
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The names that follow `prefix`.
fn after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_of_a_name = |c: char| c.is_alphanumeric() || c == '_';
    let rests = code.match_indices(prefix).filter(|(at, _)| !code[..*at].ends_with(is_of_a_name));
    rests
        .map(|(at, _)| &code[at + prefix.len()..])
        .map(|rest| rest.split(|c| !is_of_a_name(c)).next().unwrap())
        .collect()
}

/// What is wrong in a file with this path below `src`.
fn wrong(order: &[&str], path: &Path, code: &str) -> Vec<String> {
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut modules: Vec<_> = path.with_extension("").iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    modules.retain(|name| name != "mod");
    let place = |name: &str| order.iter().position(|other| *other == name);
    let own = place(&modules[0]);
    // From a file so deep, so many `super` lead to `src`.
    let up = "super::".repeat(modules.len());
    let used = after(code, "crate::").into_iter().chain(after(code, &up));
    let bad = used.filter(|name| place(name).is_none_or(|place| own.is_none_or(|own| own < place)));
    bad.map(|name| format!("{} uses `{name}`", path.display())).collect()
}

#[test]
fn no_folder_uses_one_above_it() {
    for (src, order) in [("core/src", CORE.as_slice()), ("src", EDGE.as_slice())] {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join(src);
        let files: Vec<PathBuf> = files(&src).into_iter().filter(|path| is_checked(path)).collect();
        let wrong: Vec<String> = files
            .iter()
            .flat_map(|path| wrong(order, path.strip_prefix(&src).unwrap(), &fs::read_to_string(path).unwrap()))
            .collect();
        assert_eq!(wrong, [] as [String; 0]);
        for name in order {
            assert!(src.join(name).is_dir() || src.join(name).with_extension("rs").is_file(), "{name} is not there");
        }
    }
}

#[test]
fn an_arrow_upwards_is_seen() {
    for (path, code) in [
        ("report/board.rs", "use crate::serve::ads::Ads;"),
        ("report/mod.rs", "use super::serve::Serving;"),
        ("serve/pki/mod.rs", "use super::super::admin;"),
        ("accept.rs", "/// See [`Ads`](crate::serve::ads::Ads)."),
        // What cannot be read here is wrong as well.
        ("admin/mod.rs", "use crate::{commands, ledger};"),
        ("other/mod.rs", "use crate::report;"),
    ] {
        assert_eq!(wrong(&EDGE, Path::new(path), code).len(), 1, "{path}: {code}");
    }
    for (path, code) in [
        ("serve/ads.rs", "use crate::report::board::Board;"),
        ("serve/ads.rs", "use super::tls; pub(in crate::serve) use tollgate_core::envoy;"),
        ("serve/ads.rs", "#[cfg(test)]\nmod tests {\n    use crate::commands;"),
    ] {
        assert_eq!(wrong(&EDGE, Path::new(path), code), [] as [String; 0], "{path}: {code}");
    }
}
