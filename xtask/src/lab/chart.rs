//! The chart, rendered with the values of tests/chart: which objects come out and with which fields, what is refused and how,
//! that each Pod gives up what it does not need, that no image has a tag that moves, and what Trivy says of it.
//!
//! A file there begins with what it expects: `# refused: SENTENCE`, if it is refused; and, where the schema says that and the
//! templates say more, `# by the templates: SENTENCE`. Otherwise the objects stand in the file of the
//! same name that ends with `.objects`. `cargo xtask gen` writes those anew. A file that ends with `.fields` says what fields
//! must be (`fields.rs`), and nobody writes that but people.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use super::{fields, pods};
use crate::shell;
use crate::trivy::{self, Look};
use crate::workspace::Workspace;

const FOLDER: &str = "tests/chart";
const CHART: &str = "manifests/chart";
const REFUSED: &str = "# refused: ";
const BY_TEMPLATES: &str = "# by the templates: ";

/// The rows of the checklist that fields of the chart show, and nothing else does.
const ROWS: [&str; 10] = ["A1", "A2", "A6", "A8", "A9", "A10", "A11", "A17", "A19", "B40"];

/// What a file of values is to lead to.
struct Case {
    values: PathBuf,
    refused: Option<String>,
    /// How it is refused where nobody asks the schema.
    by_templates: Option<String>,
}

/// Writes anew which objects there are.
pub fn write(workspace: &Workspace) -> anyhow::Result<()> {
    for case in cases(workspace)?.into_iter().filter(|case| case.refused.is_none()) {
        std::fs::write(case.objects(), listed(&render(workspace, &case.values, &[])?))?;
    }
    Ok(())
}

pub fn check(workspace: &Workspace) -> anyhow::Result<()> {
    println!("==> the chart, with each file of {FOLDER}");
    let mut lint = helm(workspace);
    shell::read(lint.args(["lint", "--strict"]).arg(workspace.root().join(CHART)))?;
    let (mut rendered, mut refused) = (0, 0);
    let mut rows = BTreeSet::new();
    for case in cases(workspace)? {
        let name = case.values.display();
        match (render(workspace, &case.values, &[]), &case.refused) {
            (Ok(_), Some(sentence)) => anyhow::bail!("{name} is taken, and not refused with: {sentence}"),
            (Err(error), Some(sentence)) => {
                anyhow::ensure!(
                    format!("{error:#}").contains(sentence),
                    "{name} is refused with another sentence: {error:#}"
                );
                if let Some(sentence) = &case.by_templates {
                    let found = render(workspace, &case.values, &["--skip-schema-validation"]);
                    let said = found.map_or_else(|error| format!("{error:#}"), |_| "nothing".to_owned());
                    anyhow::ensure!(said.contains(sentence), "the templates refuse {name} with: {said}");
                }
                refused += 1;
            }
            (found, None) => {
                let text = found.with_context(|| format!("{name}"))?;
                let wanted = std::fs::read_to_string(case.objects()).unwrap_or_default();
                anyhow::ensure!(
                    listed(&text) == wanted,
                    "{name} makes other objects; `cargo xtask gen` writes them anew"
                );
                images_are_pinned(&text).with_context(|| format!("{name}"))?;
                let objects = fields::objects(&text).with_context(|| format!("{name}"))?;
                pods_give_up_what_they_do_not_need(&objects).with_context(|| format!("{name}"))?;
                if let Some(wanted) = case.fields()? {
                    let file = format!("{}, with {name}", case.values.with_extension("fields").display());
                    rows.extend(fields::rows(&wanted).map(str::to_owned));
                    fields::read(&wanted).and_then(|wanted| fields::check(&objects, &wanted)).with_context(|| file)?;
                }
                rendered += 1;
            }
        }
    }
    anyhow::ensure!(rendered > 3 && refused > 3, "{rendered} cases are rendered, {refused} refused");
    let missing: Vec<&str> = ROWS.into_iter().filter(|row| !rows.contains(*row)).collect();
    anyhow::ensure!(missing.is_empty(), "no file of fields is about the rows {missing:?}");
    println!("    ok: {rendered} rendered, {refused} refused");
    Ok(())
}

/// What Trivy finds in everything that is rendered. It must find what is planted, or it finds nothing.
pub fn scan(workspace: &Workspace, program: &Path) -> anyhow::Result<()> {
    println!("==> Trivy on the chart");
    let folder = workspace.logs().join("trivy");
    let _absent = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("planted"))?;
    for case in cases(workspace)?.into_iter().filter(|case| case.refused.is_none()) {
        let name = case.values.file_name().context("a name")?;
        std::fs::create_dir_all(folder.join("chart"))?;
        std::fs::write(folder.join("chart").join(name), render(workspace, &case.values, &[])?)?;
    }
    std::fs::write(folder.join("planted/bad.yaml"), trivy::PLANTED)?;
    let look = Look::at_chart();
    let planted = look.findings(workspace, program, &folder.join("planted"))?;
    anyhow::ensure!(
        planted.iter().any(|found| found.contains(trivy::PLANTED_ID)),
        "the planted Pod is not found: {planted:?}"
    );
    let found = look.findings(workspace, program, &folder.join("chart"))?;
    anyhow::ensure!(found.is_empty(), "{}", found.into_iter().collect::<Vec<_>>().join("\n"));
    println!("    ok: nothing of HIGH or CRITICAL but what {} accepts", trivy::IGNORED);
    Ok(())
}

fn cases(workspace: &Workspace) -> anyhow::Result<Vec<Case>> {
    let mut files = Vec::new();
    for folder in ["rendered", "refused"] {
        for entry in std::fs::read_dir(workspace.root().join(FOLDER).join(folder))? {
            files.push(entry?.path());
        }
    }
    files.retain(|file| file.extension().is_some_and(|ending| ending == "yaml"));
    files.sort();
    files.into_iter().map(Case::read).collect()
}

fn render(workspace: &Workspace, values: &Path, more: &[&str]) -> anyhow::Result<String> {
    let mut command = helm(workspace);
    command.args([
        "template",
        "tollgate",
        "--namespace",
        "tollgate-system",
        "--kube-version",
        super::manifest::KUBERNETES,
    ]);
    command.args(["--set", "crds.install=false", "--values"]).arg(values).args(more);
    shell::read(command.arg(workspace.root().join(CHART)))
}

fn helm(workspace: &Workspace) -> Command {
    Command::new(workspace.lab().join("helm"))
}

/// Kind, namespace and name of each object, in order.
fn listed(rendered: &str) -> String {
    let documents = rendered.split("\n---\n").map(|document| document.strip_prefix("---\n").unwrap_or(document));
    let mut lines: Vec<String> = documents
        .filter_map(|document| {
            let kind = top(document, "kind: ")?;
            let metadata = document.split("\nmetadata:").nth(1).unwrap_or_default();
            let field = |name: &str| {
                let begin = format!("  {name}: ");
                let mut inside = metadata.lines().skip(1).take_while(|line| line.starts_with(' '));
                inside.find_map(|line| line.strip_prefix(&begin)).unwrap_or_default()
            };
            Some(format!("{kind} {}/{}\n", field("namespace"), field("name")))
        })
        .collect();
    lines.sort();
    lines.concat()
}

fn top<'a>(document: &'a str, begin: &str) -> Option<&'a str> {
    document.lines().find_map(|line| line.strip_prefix(begin))
}

/// By a version or a digest.
fn images_are_pinned(rendered: &str) -> anyhow::Result<()> {
    let named = rendered.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("image: "));
    let arguments = rendered.lines().filter_map(|line| line.trim().strip_prefix("- --proxy-image="));
    let images: Vec<&str> = named.chain(arguments).map(|image| image.trim_matches('"')).collect();
    anyhow::ensure!(!images.is_empty(), "there is no image");
    for image in images {
        let is_pinned = image.contains("@sha256:")
            || image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest" && !tag.contains('/') && !tag.is_empty());
        anyhow::ensure!(is_pinned, "the image {image} has a tag that moves");
    }
    Ok(())
}

fn pods_give_up_what_they_do_not_need(objects: &[Value]) -> anyhow::Result<()> {
    let with_pods: Vec<&Value> = objects.iter().filter(|object| pods::has_pods(object)).collect();
    anyhow::ensure!(!with_pods.is_empty(), "there is no Pod");
    for object in with_pods {
        let wrong = pods::wrong(object);
        anyhow::ensure!(wrong.is_empty(), "{}: {}", fields::title(object), wrong.join("; "));
    }
    Ok(())
}

// === impl Case ===

impl Case {
    fn read(values: PathBuf) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(&values)?;
        let refused = text.lines().find_map(|line| line.strip_prefix(REFUSED)).map(str::to_owned);
        let is_of_refused = values.components().any(|part| part.as_os_str() == "refused");
        anyhow::ensure!(
            refused.is_some() == is_of_refused,
            "{} does not begin with `{REFUSED}`, or is in the wrong folder",
            values.display()
        );
        let by_templates = text.lines().find_map(|line| line.strip_prefix(BY_TEMPLATES)).map(str::to_owned);
        Ok(Self { values, refused, by_templates })
    }

    /// None: nothing is asked of them but to be there.
    fn fields(&self) -> anyhow::Result<Option<String>> {
        let file = self.values.with_extension("fields");
        if file.exists() { Ok(Some(std::fs::read_to_string(file)?)) } else { Ok(None) }
    }

    fn objects(&self) -> PathBuf {
        self.values.with_extension("objects")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_move_are_found() {
        for bad in ["image: a/b", "image: a/b:latest", "- image: host:5000/a", "- --proxy-image=a:latest"] {
            assert!(images_are_pinned(bad).is_err(), "{bad}");
        }
        for good in ["image: a/b:0.1.0", "- --proxy-image=a@sha256:00", "- image: \"host:5000/a:1\""] {
            assert!(images_are_pinned(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn objects_are_listed_with_their_namespaces() {
        let rendered = "---\nkind: B\nmetadata:\n  name: b\n  namespace: n\nspec:\n  name: no\n---\nkind: A\nmetadata:\n  name: a\n";
        assert_eq!(listed(rendered), "A /a\nB n/b\n");
    }
}
