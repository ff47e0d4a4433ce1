//! What fields of the rendered chart must be, for the rows of the checklist (docs/security.md) that ask for more than an object
//! of some name. A file `tests/chart/rendered/NAME.fields` stands beside the values:
//!
//! ```text
//! # A1: callers speak the mesh's TLS and nothing else.
//! PeerAuthentication models/tollgate-strict
//!   /spec/mtls/mode is "STRICT"
//! ```
//! An object as its `.objects` file lists it, and below it lines of a JSON pointer, a word, and a value in JSON. The words are
//! `is`, `has` (the list has this element, or the text these letters), `lacks` (it does not, or is not there) and `absent`,
//! which has no value.

use anyhow::Context;
use serde_json::Value;

/// What an object must be like.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    object: String,
    line: usize,
    pointer: String,
    test: Test,
}

#[derive(Debug, PartialEq)]
enum Test {
    Is(Value),
    Has(Value),
    Lacks(Value),
    Absent,
}

/// The rows of the checklist that a file's comments name first, such as `A1` or `B40`.
pub fn rows(text: &str) -> impl Iterator<Item = &str> {
    let comments = text.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(':'));
    let names = comments.flat_map(|(names, _)| names.split(", "));
    names.filter(|name| name.starts_with(['A', 'B']) && name.get(1..).is_some_and(|rest| rest.parse::<u8>().is_ok()))
}

pub fn read(text: &str) -> anyhow::Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    let mut object = None;
    for (index, whole) in text.lines().enumerate() {
        let line = index + 1;
        let content = whole.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if !whole.starts_with(' ') {
            object = Some(content.to_owned());
            continue;
        }
        let object = object.clone().with_context(|| format!("line {line} stands below no object"))?;
        let (pointer, rest) =
            content.split_once(' ').with_context(|| format!("line {line} says nothing of a field"))?;
        anyhow::ensure!(pointer.starts_with('/'), "line {line}: {pointer} is no JSON pointer");
        let (word, value) = rest.split_once(' ').unwrap_or((rest, ""));
        let value = || serde_json::from_str(value).with_context(|| format!("line {line}: `{value}` is no JSON"));
        let test = match word {
            "is" => Test::Is(value()?),
            "has" => Test::Has(value()?),
            "lacks" => Test::Lacks(value()?),
            "absent" if rest == "absent" => Test::Absent,
            _ => anyhow::bail!("line {line}: `{word}` is none of is, has, lacks, absent"),
        };
        wanted.push(Wanted { object, line, pointer: pointer.to_owned(), test });
    }
    anyhow::ensure!(!wanted.is_empty(), "it asks for nothing");
    Ok(wanted)
}

/// Whether these objects are like that.
pub fn check(objects: &[Value], wanted: &[Wanted]) -> anyhow::Result<()> {
    for one in wanted {
        one.check(objects).with_context(|| format!("line {}", one.line))?;
    }
    Ok(())
}

/// The objects of a stream of YAML documents.
pub fn objects(rendered: &str) -> anyhow::Result<Vec<Value>> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(rendered)?;
    objects.retain(|object| !object.is_null());
    Ok(objects)
}

/// Kind, namespace and name.
pub fn title(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

// === impl Wanted ===

impl Wanted {
    fn check(&self, objects: &[Value]) -> anyhow::Result<()> {
        let Self { object: name, pointer, test, .. } = self;
        let object = objects.iter().find(|object| title(object) == *name);
        let object = object.with_context(|| format!("there is no {name}"))?;
        let found = object.pointer(pointer);
        let shown = found.map_or_else(|| "absent".to_owned(), Value::to_string);
        let at = format!("{pointer} of {name} is {shown}");
        match test {
            Test::Is(value) => anyhow::ensure!(found == Some(value), "{at}, and not {value}"),
            Test::Has(value) => {
                anyhow::ensure!(found.is_some_and(|found| has(found, value)), "{at}, and lacks {value}")
            }
            Test::Lacks(value) => {
                anyhow::ensure!(!found.is_some_and(|found| has(found, value)), "{at}, and has {value}")
            }
            Test::Absent => anyhow::ensure!(found.is_none(), "{at}, and not absent"),
        }
        Ok(())
    }
}

fn has(found: &Value, value: &Value) -> bool {
    match (found, value) {
        (Value::Array(elements), value) => elements.contains(value),
        (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTS: &str = "---\n# Source: a\nkind: A\nmetadata: {name: a, namespace: ns}\nspec: {list: [one, {two: 2}], text: abc}\n\
                           ---\n---\nkind: B\nmetadata: {name: b}\n";

    fn verdict(line: &str) -> Result<(), String> {
        let wanted = read(&format!("# A1, B40: why\nA ns/a\n  {line}\n")).map_err(|error| format!("{error:#}"))?;
        check(&objects(OBJECTS).unwrap(), &wanted).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn fields_are_held_against_what_is_wanted() {
        for good in [
            "/spec/text is \"abc\"",
            "/spec/list has \"one\"",
            "/spec/list has {\"two\": 2}",
            "/spec/text has \"b\"",
            "/spec/list lacks \"three\"",
            "/spec/none lacks \"three\"",
            "/spec/none absent",
        ] {
            assert_eq!(verdict(good), Ok(()), "{good}");
        }
        for (bad, said) in [
            ("/spec/text is \"ab\"", "line 3: /spec/text of A ns/a is \"abc\", and not \"ab\""),
            ("/spec/none is true", "line 3: /spec/none of A ns/a is absent, and not true"),
            ("/spec/list has \"two\"", "line 3: /spec/list of A ns/a is [\"one\",{\"two\":2}], and lacks \"two\""),
            ("/spec/list lacks \"one\"", "line 3: /spec/list of A ns/a is [\"one\",{\"two\":2}], and has \"one\""),
            (
                "/spec absent",
                "line 3: /spec of A ns/a is {\"list\":[\"one\",{\"two\":2}],\"text\":\"abc\"}, and not absent",
            ),
        ] {
            assert_eq!(verdict(bad), Err(said.to_owned()), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for bad in ["spec is 1", "/spec", "/spec are 1", "/spec is one", "/spec absent 1"] {
            assert!(read(&format!("A ns/a\n  {bad}\n")).is_err(), "{bad}");
        }
        assert!(read("  /spec is 1\n").is_err() && read("A ns/a\n").is_err());
        let of_nobody = read("C /c\n  /spec is 1\n").unwrap();
        assert_eq!(format!("{:#}", check(&[], &of_nobody).unwrap_err()), "line 2: there is no C /c");
    }

    #[test]
    fn comments_name_rows() {
        let text = "# A1, B40: why\n# Not a row: x\n# A: y\n# A2: z\nA ns/a\n";
        assert_eq!(rows(text).collect::<Vec<_>>(), ["A1", "B40", "A2"]);
    }
}
