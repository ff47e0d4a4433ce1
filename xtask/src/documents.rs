//! Checks of what the documents say of the repository: the paths that they name exist, and so do the tests that
//! they give as proof.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::repository;
use crate::workspace::Workspace;

/// Checks that the paths exist that the documents name in backticks or as links.
pub fn paths_exist(workspace: &Workspace) -> anyhow::Result<()> {
    println!("==> paths named in the documents");
    let mut missing = Vec::new();
    for page in pages(workspace)? {
        let text = std::fs::read_to_string(workspace.root().join(&page))?;
        let folder = page.parent().unwrap_or(Path::new(""));
        let named = backticks(&text).map(PathBuf::from);
        let linked = links(&text).map(|path| folder.join(path));
        missing.extend(
            named
                .chain(linked)
                .filter(|path| !workspace.root().join(path).exists())
                .map(|path| format!("{} names {}", page.display(), path.display())),
        );
    }
    anyhow::ensure!(missing.is_empty(), "{}", missing.join(", "));
    println!("    ok");
    Ok(())
}

/// Checks tables whose last column is `test` or `tests`: each row must name tests, and these must exist.
pub fn tests_exist(workspace: &Workspace) -> anyhow::Result<()> {
    println!("==> tests named in the documents");
    let known = declared(workspace, |_| true)?;
    let mut wrong = Vec::new();
    for (at, tests) in named_tests(workspace)? {
        if tests.is_empty() {
            wrong.push(format!("{at} names no test"));
        }
        let unknown = tests.iter().filter(|name| !is_path(name) && !known.contains(*name));
        wrong.extend(unknown.map(|name| format!("{at} names the test {name}, which is not there")));
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join(", "));
    println!("    ok");
    Ok(())
}

/// The rows of the security and operations checklist: of a gateway before model runners (A), and of a controller that
/// configures a proxy (B).
const ROWS: [(char, RangeInclusive<u32>); 2] = [('A', 1..=20), ('B', 21..=63)];

/// Checks that the checklist in docs/security.md has each row once.
pub fn checklist_is_whole(workspace: &Workspace) -> anyhow::Result<()> {
    println!("==> rows of the checklist");
    let text = std::fs::read_to_string(workspace.root().join("docs/security.md"))?;
    let found = checklist(&text)?;
    let wanted: Vec<_> = ROWS.into_iter().flat_map(|(part, rows)| rows.map(move |row| (part, row))).collect();
    anyhow::ensure!(found == wanted, "docs/security.md has the rows {found:?}");
    println!("    ok: {}", found.len());
    Ok(())
}

/// The rows that the first cells name, such as `A4, A5` or `B23-B38`, in their order.
fn checklist(text: &str) -> anyhow::Result<Vec<(char, u32)>> {
    let mut rows = Vec::new();
    for line in text.lines().skip_while(|line| !line.starts_with("| row |")).skip(2) {
        let Some(cell) = line.strip_prefix("| ").and_then(|rest| rest.split(" |").next()) else { break };
        for part in cell.split(", ") {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (row(first)?, row(last)?);
            anyhow::ensure!(first.0 == last.0, "{part} is no range");
            rows.extend((first.1..=last.1).map(|number| (first.0, number)));
        }
    }
    Ok(rows)
}

fn row(text: &str) -> anyhow::Result<(char, u32)> {
    let mut letters = text.chars();
    let part = letters.next().context("an empty row")?;
    Ok((part, letters.as_str().parse().with_context(|| format!("{text} is no row"))?))
}

/// Checks that the tests that these tables name have passed. Those in a real Istio run by another command.
pub fn tests_ran(workspace: &Workspace, ran: &BTreeSet<String>) -> anyhow::Result<()> {
    println!("==> tests named in the documents have run");
    let elsewhere = declared(workspace, |file| file.starts_with("tests/tests/istio"))?;
    let named = named_tests(workspace)?.into_iter().flat_map(|(_, tests)| tests);
    let is_missing = |name: &String| !is_path(name) && !ran.contains(name) && !elsewhere.contains(name);
    let missing: BTreeSet<String> = named.filter(is_missing).collect();
    anyhow::ensure!(missing.is_empty(), "these have not passed: {}", Vec::from_iter(missing).join(", "));
    println!("    ok");
    Ok(())
}

/// The tests that each row of these tables names, with its place.
fn named_tests(workspace: &Workspace) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let mut named = Vec::new();
    for page in pages(workspace)? {
        let text = std::fs::read_to_string(workspace.root().join(&page))?;
        let row = |(line, cell): (usize, &str)| {
            (format!("{}:{line}", page.display()), in_backticks(cell).map(str::to_owned).collect())
        };
        named.extend(proofs(&text).into_iter().map(row));
    }
    Ok(named)
}

/// A path, such as a golden case's, is looked for with the other paths.
fn is_path(name: &str) -> bool {
    name.contains('/')
}

/// The names of all tests in the files that count.
fn declared(workspace: &Workspace, counts: impl Fn(&Path) -> bool) -> anyhow::Result<BTreeSet<String>> {
    let mut known = BTreeSet::new();
    for file in repository::files(workspace)? {
        if counts(&file)
            && file.extension().is_some_and(|extension| extension == "rs")
            && let Ok(text) = std::fs::read_to_string(workspace.root().join(file))
        {
            known.extend(declared_tests(&text));
        }
    }
    Ok(known)
}

fn pages(workspace: &Workspace) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = repository::files(workspace)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    // Without the files that are deleted and not committed yet.
    files.retain(|file| workspace.root().join(file).exists());
    Ok(files)
}

/// Functions that carry `#[test]` or its like, the names in `e2e!` lists, and those of checks (`tally.one("NAME", ...`).
fn declared_tests(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut marked = false;
    let mut listed = false;
    for line in code.lines().map(str::trim) {
        names.extend(line.split_once("tally.one(\"").and_then(|(_, rest)| rest.split('"').next()).map(str::to_owned));
        let function = line.split_once("fn ").and_then(|(_, rest)| rest.split(['(', '<']).next());
        if listed {
            names.extend(line.split(',').map(|name| name.trim_matches([' ', '}'])).map(str::to_owned));
            listed = !line.contains('}');
        } else if line.starts_with("e2e! {") {
            listed = true;
        } else if line == "#[test]" || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some(name) = function.filter(|_| !line.starts_with("//") && !line.starts_with("#[")) {
            if marked {
                names.push(name.to_owned());
            }
            marked = false;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Line and last cell of each row of the tables whose last column is `test` or `tests`.
fn proofs(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let Some(cell) = last_cell(line) else {
            inside = false;
            continue;
        };
        if ["test", "tests"].contains(&cell.to_lowercase().as_str()) {
            inside = true;
        } else if inside && !is_rule(cell) {
            found.push((index + 1, cell));
        }
    }
    found
}

/// Whether this cell belongs to the line below a table's header.
fn is_rule(cell: &str) -> bool {
    cell.contains('-') && cell.trim_matches([':', '-']).is_empty()
}

fn last_cell(line: &str) -> Option<&str> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    row.rsplit('|').next().map(str::trim)
}

fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What stands in backticks and looks like a path of this repository.
fn backticks(text: &str) -> impl Iterator<Item = &str> {
    const ROOT: [&str; 9] =
        ["docs/", "examples/", "filter/", "proto/", "tests/", "xds-server/", "xtask/", ".ci/", ".github/"];
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|word| ROOT.iter().any(|folder| word.starts_with(folder)))
        .filter(|word| !word.contains([' ', '<', '{', '*']))
        .map(|word| word.trim_end_matches('/'))
}

/// The targets of links that stay in the repository. There is no link within backticks.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').step_by(2))
        .flat_map(|part| part.split("](").skip(1))
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|target| !target.is_empty() && !target.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_checklist_are_counted() {
        let table = "| row | asked for | test |\n|---|---|---|\n| A1 | a | `t` |\n| A2, A3 | b | `t` |\n\
                     | B7-B9, B11 | c | `t` |\n\n| B12 | of another table | `t` |\n";
        let rows = [('A', 1), ('A', 2), ('A', 3), ('B', 7), ('B', 8), ('B', 9), ('B', 11)];
        assert_eq!(checklist(table).unwrap(), rows);
        for wrong in ["x", "B9-A1", ""] {
            assert!(checklist(&format!("| row |\n|---|\n| {wrong} | a |\n")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn paths_are_told_from_other_words() {
        let text = "see `docs/a.md`, `cargo xtask`, `tests/` and [b](docs/b.md#c) [d](https://e)";
        assert_eq!(backticks(text).collect::<Vec<_>>(), ["docs/a.md", "tests"]);
        assert_eq!(links(text).collect::<Vec<_>>(), ["docs/b.md"]);
        assert_eq!(links("the pattern `[a-z]([-a-z]*)?` and [`b`](docs/b.md)").collect::<Vec<_>>(), ["docs/b.md"]);
    }

    #[test]
    fn tests_are_told_from_other_functions() {
        let code = "#[test]\nfn one() {}\nfn helper() {}\n#[tokio::test]\nasync fn two() {}\n\
                    e2e! {\n    three,\n    four,\n}\npub fn five() {}\n#[test]\n#[ignore]\nfn six() {}";
        assert_eq!(declared_tests(code), ["one", "two", "three", "four", "six"]);
    }

    #[test]
    fn each_row_of_a_table_with_tests_is_read() {
        let text = "| item | test |\n|---|---|\n| a | `one`, `two` |\n| b | |\n\n| x | y |\n|---|---|\n| c | `d` |";
        assert_eq!(proofs(text), [(3, "`one`, `two`"), (4, "")]);
        assert_eq!(in_backticks("`one`, `two`").collect::<Vec<_>>(), ["one", "two"]);
    }
}
