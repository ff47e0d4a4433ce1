//! Policies in a text that is not YAML. They close what they name, or what they may name.

use serde_json::Value;

use super::document;
use crate::objects::is_dns_label;
use crate::objects::refused_policy::{self, Names, RefusedPolicy, Suspect, meta};

/// Finds the policies in the text of a file that is not YAML as a whole. Its documents are read one by one. One that
/// cannot be read is searched for the word `TokenPolicy`.
pub fn in_broken_text(file: &str, text: &str) -> Vec<RefusedPolicy> {
    let mut found = Vec::new();
    for (line, part) in parts(text) {
        match document::parse(part) {
            Ok(documents) => found.extend(documents.into_iter().filter_map(|document| {
                let start = line + document.lines.of("") - 1;
                let Value::Object(body) = document.value else { return None };
                let mut meta = meta(file, start);
                meta.origin = refused_policy::origin(&body);
                Some(Suspect::of(&body)?.refused(meta))
            })),
            Err(_) => found.extend(in_broken_part(file, line, part)),
        }
    }
    found
}

/// Between the lines `---`, with the number of the first line.
fn parts(text: &str) -> Vec<(u64, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut at, mut line) = (0, 1, 0, 1);
    for whole in text.split_inclusive('\n') {
        if whole.starts_with("---") {
            parts.push((start_line, text.get(start..at).unwrap_or_default()));
            (start, start_line) = (at, line);
        }
        at += whole.len();
        line += 1;
    }
    parts.push((start_line, text.get(start..).unwrap_or_default()));
    parts
}

fn in_broken_part(file: &str, line: u64, part: &str) -> Option<RefusedPolicy> {
    let code: Vec<&str> = part.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    if !code.iter().any(|line| line.to_ascii_lowercase().contains("tokenpolicy")) {
        return None;
    }
    let mut meta = meta(file, line);
    let mut namespaces: Vec<&str> = code.iter().flat_map(|line| line.split("namespace:").skip(1)).map(word).collect();
    namespaces.dedup();
    let names = match namespaces.as_slice() {
        [one] if is_dns_label(one) => {
            meta.origin.namespace = (*one).into();
            Names::AllOfItsNamespace
        }
        // Without one that can be read it may be anywhere: it might stand where the mistake is.
        _ => Names::Everything,
    };
    Some(RefusedPolicy { meta, names })
}

fn word(text: &str) -> &str {
    text.split([',', '}', '#']).next().unwrap_or_default().trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{PolicyTarget, TargetKind};

    #[test]
    fn broken_files_are_looked_through() {
        let good = "kind: TokenPolicy\nmetadata: {name: a, namespace: x}\nspec:\n  targetRefs: [{kind: HTTPRoute, name: chat}]\n";
        let found = |text: &str| -> Vec<(String, Names, u64)> {
            let policies = in_broken_text("f", text);
            let line = |policy: &RefusedPolicy| policy.meta.file().unwrap().lines.of("");
            policies.iter().map(|policy| (policy.label(), policy.names.clone(), line(policy))).collect()
        };
        let chat = Names::Targets(vec![PolicyTarget { kind: TargetKind::HttpRoute, name: "chat".to_owned() }]);
        assert_eq!(found(&format!("kind: [\n---\n{good}---\n}}")), [("x/a".to_owned(), chat, 3)]);
        assert_eq!(found("kind: Consumer\nspec: {\n---\n# a TokenPolicy would stand here\n}\n"), []);
        let all = ("team/(unnamed)".to_owned(), Names::AllOfItsNamespace, 1);
        assert_eq!(found("kind: TokenPolicy\nmetadata: {namespace: \"team\", name: b}\nspec: {\n"), [all]);
        for nowhere in [
            "kind: TokenPolicy\nspec: {\n",
            "kind: TokenPolicy\nmetadata: {namespace: a, name: [}\nspec: {namespace: b\n",
            "kind: \"TokenPolicy\nmetadata: {namespace: A B}\n",
        ] {
            assert_eq!(found(nowhere), [("default/(unnamed)".to_owned(), Names::Everything, 1)], "{nowhere}");
        }
    }
}
