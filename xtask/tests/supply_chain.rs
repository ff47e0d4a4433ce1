//! What the repository takes from others: each thing is named by what cannot change, and Dependabot looks at all of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test: what is wrong ends it")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::Value;

type Place = (String, String);

/// Which ecosystem of Dependabot's a file belongs to, and the folder that it is to be looked for in.
fn place(path: &Path, text: impl Fn() -> io::Result<String>) -> Option<Place> {
    let name = path.file_name()?.to_str()?;
    let folder = path.parent()?.to_str()?;
    let ecosystem = match name {
        "Cargo.lock" => "cargo",
        "go.mod" => "gomod",
        "package.json" => "npm",
        "pyproject.toml" => "pip",
        _ if folder == ".github/workflows" => return Some(("github-actions".to_owned(), "/".to_owned())),
        _ if name.ends_with("Dockerfile") => "docker",
        _ if name.ends_with(".txt") && text().is_ok_and(|text| text.contains("==")) => "pip",
        _ => return None,
    };
    Some((ecosystem.to_owned(), format!("/{folder}")))
}

/// All files below the folder but what is built or fetched.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let kept =
        entries.filter(|entry| ![".git", "target", "node_modules"].iter().any(|name| entry.file_name() == *name));
    kept.flat_map(|entry| if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect()
}

fn named(configuration: &str) -> BTreeSet<Place> {
    let configuration: Value = serde_saphyr::from_str(configuration).unwrap();
    let updates = configuration["updates"].as_array().unwrap();
    let places = updates.iter().flat_map(|update| {
        let ecosystem = update["package-ecosystem"].as_str().unwrap();
        let several = update["directories"].as_array().into_iter().flatten();
        let folders = several.chain(update.get("directory"));
        folders.map(|folder| (ecosystem.to_owned(), folder.as_str().unwrap().to_owned())).collect::<Vec<_>>()
    });
    places.collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn workflows() -> Vec<(PathBuf, String)> {
    let paths = files(&root().join(".github/workflows")).into_iter();
    paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// Whether these are the hexadecimal digits of a hash.
fn is_hash(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[test]
fn every_action_is_a_commit_with_its_version_beside_it() {
    let mut actions = 0;
    for (path, text) in workflows() {
        for line in text.lines() {
            let Some((_, action)) = line.split_once("uses: ").filter(|(_, action)| !action.starts_with("./")) else {
                continue;
            };
            actions += 1;
            let (name, version) = action.split_once(" # v").unwrap_or((action, ""));
            let commit = name.split_once('@').map_or("", |(_, commit)| commit);
            assert!(is_hash(commit, 40) && !version.is_empty(), "{}: {action}", path.display());
        }
    }
    assert!(actions > 10, "the workflows are elsewhere");
}

#[test]
fn a_workflow_has_no_rights_and_each_job_says_its_own() {
    for (path, text) in workflows() {
        let workflow: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(workflow["permissions"], serde_json::json!({}), "{}", path.display());
        for (name, job) in workflow["jobs"].as_object().unwrap() {
            assert!(job["permissions"].is_object(), "{}: {name} does not say which rights it has", path.display());
        }
    }
}

/// What is published was built by a job that could publish nothing.
#[test]
fn what_builds_a_release_may_not_publish_it() {
    let release = fs::read_to_string(root().join(".github/workflows/release.yml")).unwrap();
    let release: Value = serde_saphyr::from_str(&release).unwrap();
    let mut builders = 0;
    for (name, job) in release["jobs"].as_object().unwrap() {
        let steps = job["steps"].as_array().cloned().unwrap_or_default();
        let runs = |text: &str| steps.iter().any(|step| step["run"].as_str().is_some_and(|run| run.contains(text)));
        if runs("cargo ") {
            builders += 1;
            assert_eq!(job["permissions"], serde_json::json!({"contents": "read"}), "{name}");
        }
    }
    assert_eq!(builders, 1);
}

/// What a job waits for, the jobs that those wait for included.
fn waits_for(jobs: &serde_json::Map<String, Value>, name: &str) -> BTreeSet<String> {
    let needs = &jobs[name]["needs"];
    let direct = needs.as_array().cloned().unwrap_or_else(|| needs.as_str().map(Value::from).into_iter().collect());
    let direct = direct.iter().map(|need| need.as_str().unwrap().to_owned());
    direct.flat_map(|need| waits_for(jobs, &need).into_iter().chain([need]).collect::<Vec<_>>()).collect()
}

/// Where a step stands that says this in what it uses or runs. It is not skipped, and the job ends where it fails.
fn only_step(job: &Value, text: &str) -> usize {
    let is_it =
        |step: &Value| ["uses", "run"].iter().any(|key| step[*key].as_str().is_some_and(|said| said.contains(text)));
    let steps = job["steps"].as_array().unwrap();
    let found: Vec<usize> = (0..steps.len()).filter(|at| is_it(&steps[*at])).collect();
    assert_eq!(found.len(), 1, "{text}");
    let step = &steps[found[0]];
    assert!(step.get("if").is_none() && step.get("continue-on-error").is_none(), "{text}: {step}");
    found[0]
}

#[test]
fn what_is_released_is_scanned_signed_and_named_by_its_digest() {
    let release = fs::read_to_string(root().join(".github/workflows/release.yml")).unwrap();
    let release: Value = serde_saphyr::from_str(&release).unwrap();
    let jobs = release["jobs"].as_object().unwrap();
    for (name, job) in jobs {
        assert!(job.get("if").is_none() && job.get("continue-on-error").is_none(), "{name} may go on after a failure");
    }

    // An image is pushed without a tag, and gets one when all else of it is done.
    let images = &jobs["images"];
    let steps = images["steps"].as_array().unwrap();
    let order = ["docker/build-push-action@", "aquasecurity/trivy-action@", "cosign sign", "imagetools create --tag"];
    let order = order.map(|text| only_step(images, text));
    assert!(order.is_sorted(), "{order:?}");
    let [push, scan, sign, tag] = order.map(|at| &steps[at]);
    assert!(push["with"].get("tags").is_none());
    assert!(push["with"]["outputs"].as_str().unwrap().contains("push-by-digest=true"));
    let digest = "${{ steps.push.outputs.digest }}";
    assert!(scan["with"]["image-ref"].as_str().unwrap().ends_with(&format!("@{digest}")));
    assert_eq!((&scan["with"]["exit-code"], &scan["with"]["severity"]), (&"1".into(), &"HIGH,CRITICAL".into()));
    for step in [sign, tag] {
        assert!(step["env"]["DIGEST"] == digest && step["run"].as_str().unwrap().contains("@$DIGEST"), "{step}");
    }

    // The chart names both by their digests before it is packed, and is signed by its own.
    let chart = &jobs["chart"];
    let order = [".image.digest =", "helm push", "cosign sign"].map(|text| only_step(chart, text));
    assert!(order.is_sorted(), "{order:?}");
    let named = chart["steps"][order[0]]["run"].as_str().unwrap();
    let of_images =
        images["strategy"]["matrix"]["image"].as_array().unwrap().iter().map(|image| image.as_str().unwrap());
    for image in of_images {
        assert!(named.contains(&format!("{image}=$(cat digests/{image})")), "the chart does not name {image}");
    }
    assert!(named.contains(".proxies.image.digest = strenv(proxy)"));

    // What is not tested is not published, and no chart names an image that is not there.
    let needs =
        |name: &str, before: &str| assert!(waits_for(jobs, name).contains(before), "{name} begins without {before}");
    for (name, before) in [("images", "test"), ("images", "build"), ("provenance", "test"), ("chart", "images")] {
        needs(name, before);
    }
    // PyPI takes nothing back.
    let others: BTreeSet<String> = jobs.keys().filter(|name| *name != "pypi").cloned().collect();
    assert_eq!(waits_for(jobs, "pypi"), others);

    // How people are told to get it.
    let page = fs::read_to_string(root().join("docs/releasing.md")).unwrap();
    assert!(page.contains("the chart, which names these images by digest"));
}

/// Where a person may learn that a vulnerability is to be told in private, and nowhere that it is to be an issue.
#[test]
fn a_vulnerability_is_reported_privately() {
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let policy = read(&root().join("SECURITY.md"));
    let policy = policy.split("## Reporting").nth(1).unwrap().split("\n## ").next().unwrap();
    for said in ["privately", "private\nsecurity advisories", "Do not open a public issue"] {
        assert!(policy.contains(said), "SECURITY.md does not say: {said}");
    }
    // The only way to an issue is by a form, and beside the forms is the way to the private report.
    let forms = root().join(".github/ISSUE_TEMPLATE");
    let chooser: Value = serde_saphyr::from_str(&read(&forms.join("config.yml"))).unwrap();
    assert_eq!(chooser["blank_issues_enabled"], false);
    let links = chooser["contact_links"].as_array().unwrap();
    let link = links.iter().find(|link| link["name"].as_str().unwrap().contains("vulnerability")).unwrap();
    assert!(link["url"].as_str().unwrap().ends_with("/privately-reporting-a-security-vulnerability"), "{link}");
    assert!(link["about"].as_str().unwrap().contains("privately"), "{link}");

    let mut leading = BTreeSet::new();
    for path in files(root()) {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let is_form = name.starts_with(".github/") && !name.starts_with(".github/workflows/");
        let is_page = name.ends_with(".md") && !name.ends_with("CHANGELOG.md");
        if !(is_form || is_page) || name == "SECURITY.md" || name.ends_with("ISSUE_TEMPLATE/config.yml") {
            continue;
        }
        // Sentences and cells of tables, wherever the lines end.
        let text = read(&path).split_whitespace().collect::<Vec<_>>().join(" ");
        for sentence in text
            .split(". ")
            .flat_map(|part| part.split(" | "))
            .filter(|sentence| sentence.to_lowercase().contains("vulnerabilit"))
        {
            let of_issues = ["issue", "bug report"].iter().any(|word| sentence.to_lowercase().contains(word));
            assert!(!of_issues || sentence.contains("never in an issue"), "{name}: {sentence}");
            if sentence.contains("SECURITY.md") {
                leading.insert(name.clone());
            }
        }
    }
    assert!(leading.contains("CONTRIBUTING.md"), "{leading:?}");
}

#[test]
fn every_base_image_is_a_digest() {
    let dockerfiles: Vec<PathBuf> =
        files(root()).into_iter().filter(|path| path.to_str().unwrap().ends_with("Dockerfile")).collect();
    assert!(!dockerfiles.is_empty());
    for path in dockerfiles {
        let text = fs::read_to_string(&path).unwrap();
        for base in text.lines().filter_map(|line| line.strip_prefix("FROM ")) {
            let digest = base.split_once('@').map_or("", |(_, digest)| digest);
            // An argument without a default has to be given, or nothing is built.
            let given = digest.strip_prefix("${").and_then(|name| name.strip_suffix('}'));
            let is_given = given.is_some_and(|name| text.lines().any(|line| line == format!("ARG {name}")));
            let is_digest = digest.strip_prefix("sha256:").is_some_and(|hash| is_hash(hash, 64));
            assert!(is_digest || is_given, "{}: {base}", path.display());
            assert!(text.contains("\nUSER 65532:65532\n"), "{} runs as root", path.display());
        }
    }
}

#[test]
fn dependabot_looks_at_every_ecosystem_that_there_is() {
    let root = root();
    let there: BTreeSet<Place> = files(root)
        .iter()
        .filter_map(|path| place(path.strip_prefix(root).unwrap(), || fs::read_to_string(path)))
        .collect();
    let ecosystems: BTreeSet<&str> = there.iter().map(|(ecosystem, _)| ecosystem.as_str()).collect();
    assert_eq!(Vec::from_iter(ecosystems), ["cargo", "docker", "github-actions", "gomod", "npm", "pip"]);
    let named = named(&fs::read_to_string(root.join(".github/dependabot.yml")).unwrap());
    let missing: Vec<_> = there.difference(&named).collect();
    assert!(missing.is_empty(), "Dependabot does not look at {missing:?}");
    let gone: Vec<_> = named.difference(&there).collect();
    assert!(gone.is_empty(), "Dependabot looks for {gone:?}, where there is nothing");
}

#[test]
fn each_kind_of_file_has_its_ecosystem() {
    let of = |path: &str| place(Path::new(path), || Ok("a==1".to_owned()));
    let is = |ecosystem: &str, folder: &str| Some((ecosystem.to_owned(), folder.to_owned()));
    assert_eq!(of("Cargo.lock"), is("cargo", "/"));
    assert_eq!(of("a/b/go.mod"), is("gomod", "/a/b"));
    assert_eq!(of("images/new.Dockerfile"), is("docker", "/images"));
    assert_eq!(of("a/requirements.txt"), is("pip", "/a"));
    assert_eq!(of(".github/workflows/new.yml"), is("github-actions", "/"));
    assert_eq!(of("a/README.md"), None);
    assert_eq!(place(Path::new("words.txt"), || Ok("no versions".to_owned())), None);
}
