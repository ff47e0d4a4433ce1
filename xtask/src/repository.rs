//! Checks of the repository's files themselves: documented paths exist, and no file holds a key.

use std::process::Command;

use anyhow::Context;

use crate::shell;
use crate::workspace::Workspace;

/// The paths that README and ARCHITECTURE name in backticks or as links are there.
pub fn documented_paths(workspace: &Workspace) -> anyhow::Result<()> {
    println!("==> paths named in README and ARCHITECTURE");
    let mut missing = Vec::new();
    for page in ["README.md", "docs/ARCHITECTURE.md"] {
        let text =
            std::fs::read_to_string(workspace.root().join(page)).with_context(|| format!("{page} is missing"))?;
        let folder = workspace.root().join(page);
        let folder = folder.parent().unwrap_or(workspace.root());
        missing.extend(
            backticks(&text)
                .filter(|path| !workspace.root().join(path).exists())
                .map(|path| format!("{page} names {path}")),
        );
        missing.extend(
            links(&text).filter(|path| !folder.join(path).exists()).map(|path| format!("{page} links to {path}")),
        );
    }
    anyhow::ensure!(missing.is_empty(), "{}", missing.join(", "));
    println!("    ok");
    Ok(())
}

/// What stands in backticks and looks like a path of this repository.
fn backticks(text: &str) -> impl Iterator<Item = &str> {
    let root = ["docs/", "examples/", "filter/", "proto/", "tests/", "xds-server/", "xtask/", ".ci/"];
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(move |word| root.iter().any(|folder| word.starts_with(folder)))
        .filter(|word| !word.contains([' ', '<', '{', '*']))
        .map(|word| word.trim_end_matches('/'))
}

/// The targets of links that stay in the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|target| !target.is_empty() && !target.contains(':'))
}

/// No committed file holds a key, only hashes and files to be made.
pub fn no_keys(workspace: &Workspace) -> anyhow::Result<()> {
    println!("==> no key in a committed file");
    let files = shell::read(Command::new("git").current_dir(workspace.root()).args(["ls-files", "-z"]))?;
    let mut found = Vec::new();
    for file in files.split('\0').filter(|name| !name.is_empty()) {
        // Not text, or deleted and not committed yet.
        let Ok(text) = std::fs::read_to_string(workspace.root().join(file)) else {
            continue;
        };
        if let Some(at) = key_in(&text) {
            let line = text.get(..at).unwrap_or_default().lines().count().max(1);
            found.push(format!("{file}:{line}"));
        }
    }
    anyhow::ensure!(found.is_empty(), "keys in {}", found.join(", "));
    println!("    ok");
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

/// It begins with at least so many letters and digits, some of each.
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
        // Put together, so that this file itself holds none.
        let random = "a8Zq0LmP3vXr7TnYb2Kc".repeat(3);
        assert!(key_in(&format!("key: tg-{random}")).is_some());
        assert!(key_in(&format!("-----BEGIN PRIVATE KEY-----\\n{random}")).is_some());
        assert!(key_in("-----BEGIN PRIVATE KEY-----\\nPLANTED").is_none());
        assert!(key_in("the task-oriented-words-that-are-none").is_none());
    }

    #[test]
    fn paths_are_told_from_other_words() {
        let text = "see `docs/a.md`, `cargo xtask`, `tests/` and [b](docs/b.md#c) [d](https://e)";
        assert_eq!(backticks(text).collect::<Vec<_>>(), ["docs/a.md", "tests"]);
        assert_eq!(links(text).collect::<Vec<_>>(), ["docs/b.md"]);
    }
}
