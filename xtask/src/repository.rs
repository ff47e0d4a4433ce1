//! Checks of the repository's files themselves: no file holds a key, no build script starts a program.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;
use crate::workspace::Workspace;

/// No committed file holds a key, only hashes and files to be made.
pub fn no_keys(workspace: &Workspace) -> anyhow::Result<()> {
    println!("==> no key in a committed file");
    let mut found = Vec::new();
    for file in files(workspace)? {
        // The file is not text, or it is deleted and not committed yet.
        let Ok(text) = std::fs::read_to_string(workspace.root().join(&file)) else {
            continue;
        };
        if let Some(at) = key_in(&text) {
            let line = text.get(..at).unwrap_or_default().lines().count().max(1);
            found.push(format!("{}:{line}", file.display()));
        }
    }
    anyhow::ensure!(found.is_empty(), "keys in {}", found.join(", "));
    println!("    ok");
    Ok(())
}

/// Checks that no build script starts a program. What such a program finds depends on the machine and on its caches.
pub fn build_scripts_are_alone(workspace: &Workspace) -> anyhow::Result<()> {
    println!("==> build scripts start no program");
    let mut found = Vec::new();
    for file in files(workspace)? {
        if file.file_name().is_some_and(|name| name == "build.rs")
            && starts_programs(&std::fs::read_to_string(workspace.root().join(&file)).unwrap_or_default())
        {
            found.push(file.display().to_string());
        }
    }
    anyhow::ensure!(found.is_empty(), "{} must not", found.join(", "));
    println!("    ok");
    Ok(())
}

fn starts_programs(code: &str) -> bool {
    code.contains("process::") || code.contains("process}") || code.contains("process,")
}

/// The repository's files, by path from its root: what git knows, or all there is where git or the history is
/// missing.
pub fn files(workspace: &Workspace) -> anyhow::Result<Vec<PathBuf>> {
    if workspace.root().join(".git").exists() {
        let list = shell::read(Command::new("git").current_dir(workspace.root()).args(["ls-files", "-z"]));
        if let Ok(list) = list {
            return Ok(list.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect());
        }
    }
    let mut files = Vec::new();
    below(workspace.root(), Path::new(""), &mut files)?;
    Ok(files)
}

fn below(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if !entry.file_type()?.is_dir() {
            files.push(path);
        } else if !["target", ".git"].iter().any(|name| path == Path::new(name)) {
            below(root, &path, files)?;
        }
    }
    Ok(())
}

/// Where in a text a key begins: of ours, of a provider's, or a private key in PEM.
fn key_in(text: &str) -> Option<usize> {
    let tokens = ["tg-", "sk-", "ghp_", "AKIA"].into_iter().map(|prefix| (prefix, 20));
    tokens.chain([("PRIVATE KEY-----", 40)]).find_map(|(prefix, least)| {
        text.match_indices(prefix).map(|(at, _)| at).find(|at| {
            let tail = text.get(at + prefix.len()..).unwrap_or_default();
            is_random(tail.trim_start_matches(['\\', 'n', '\n', ' ', '"']), least)
        })
    })
}

/// Whether the text begins with at least this many letters and digits, some of each.
fn is_random(text: &str, least: usize) -> bool {
    let length = text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte));
    let digits = text.bytes().take(least).filter(u8::is_ascii_digit).count();
    length.count() >= least && digits >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_words() {
        // The key is put together here, so that this file itself holds none.
        let random = "a8Zq0LmP3vXr7TnYb2Kc".repeat(3);
        assert!(key_in(&format!("key: tg-{random}")).is_some());
        assert!(key_in(&format!("-----BEGIN PRIVATE KEY-----\\n{random}")).is_some());
        assert!(key_in("-----BEGIN PRIVATE KEY-----\\nPLANTED").is_none());
        assert!(key_in("the task-oriented-words-that-are-none").is_none());
    }

    #[test]
    fn a_build_script_that_asks_cargo_is_found() {
        assert!(starts_programs("use std::process::Command;"));
        assert!(starts_programs("use std::{env, fs, process};"));
        assert!(!starts_programs("use std::{env, fs, io};"));
    }

    /// Each package takes the workspace's lints, which forbid unsafe code. The two that speak an ABI do not, and their own ask
    /// for a reason at each block.
    #[test]
    fn unsafe_code_is_in_two_packages_and_each_block_says_why() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let read = |package: &str| std::fs::read_to_string(root.join(package).join("Cargo.toml")).unwrap();
        let packages = ["filter", "proto", "tests", "xds-server", "xds-server/core", "xtask"];
        let members = read("").lines().find(|line| line.starts_with("members")).unwrap().matches('"').count() / 2;
        let with_unsafe = ["native", "filter/abi"];
        assert_eq!(members, packages.len() + with_unsafe.len(), "a package is missing here");
        for package in packages {
            assert!(read(package).contains("[lints]\nworkspace = true"), "{package}");
        }
        assert!(read("").contains("unsafe_code = \"forbid\""));
        for package in with_unsafe {
            assert!(read(package).contains("undocumented_unsafe_blocks = \"deny\""), "{package}");
        }
    }

    #[test]
    fn sources_without_history_are_looked_through_as_well() {
        let mut files = Vec::new();
        below(Path::new(env!("CARGO_MANIFEST_DIR")), Path::new(""), &mut files).unwrap();
        assert!(files.contains(&PathBuf::from("src/repository.rs")), "{files:?}");
    }
}
