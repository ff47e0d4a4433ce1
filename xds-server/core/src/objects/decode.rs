//! JSON values to typed ones: strictly for files, where there is no API server that would tell of a field that nobody
//! knows, and leniently for clusters, whose API server may know more than we do.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::reader;
use super::redact::{self, Shown};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Everything that the type does not know is an error.
    Strict,
    /// A field that the type does not know is ignored. A value that an enum does not know is noted.
    Lenient,
}

/// How serde begins to say that a field is missing.
const MISSING: &str = "missing field `";
/// More names than these are no hint.
const MANY: usize = 12;

/// A typed value, and what was not known on the way to it.
#[derive(Debug)]
pub struct Decoded<T> {
    pub value: T,
    /// Values that enums do not know. In their places stand others, so the part around each must be refused.
    pub unknown: Vec<Misfit>,
}

/// What does not fit the type, for the finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    pub field: String,
    pub message: String,
    pub hint: String,
}

/// The value as a `T`.
///
/// # Errors
/// Everything that does not fit: all unknown fields, and the first value that cannot be read.
pub fn decode<T: DeserializeOwned>(value: Value, strictness: Strictness) -> Result<Decoded<T>, Vec<Misfit>> {
    let (result, notes) = reader::read(value, strictness);
    let mut misfits = notes.unknown_fields;
    match result {
        Ok(value) if misfits.is_empty() => Ok(Decoded { value, unknown: notes.unknown_values }),
        Ok(_) => Err(misfits),
        Err(error) => {
            let sentence = error.to_string();
            // What is missing may be there under a name that is not known.
            if misfits.is_empty() || !sentence.starts_with(MISSING) {
                misfits.push(misfit(notes.failed_at.unwrap_or_default(), &sentence));
            }
            Err(misfits)
        }
    }
}

pub(super) fn unknown_field(field: String, name: &str, known: &[&str]) -> Misfit {
    let hint = match closest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.len() <= MANY => format!("known fields: {}", known.join(", ")),
        None => "not a field of this kind and version".to_owned(),
    };
    Misfit { field, message: format!("unknown field {}", Shown(name)), hint }
}

pub(super) fn unknown_value(field: String, value: &str, known: &[&str]) -> Misfit {
    let hint = format!("one of {}", known.join(", "));
    Misfit { field, message: format!("{} is not a known value", Shown(value)), hint }
}

/// serde's sentence as message and hint. What it quotes is the user's text, so the quotes are taken out first.
fn misfit(path: String, sentence: &str) -> Misfit {
    if let Some(rest) = sentence.strip_prefix("unknown variant `")
        && let Some((name, names)) = named(rest)
    {
        return unknown_value(path, name, &names);
    }
    let sentence = without_value(sentence);
    let (message, hint) = match sentence.rsplit_once(", expected ") {
        Some((message, expected)) => (message.to_owned(), format!("expected {expected}")),
        None => (sentence, String::new()),
    };
    Misfit { field: path, message, hint }
}

/// The name that is not known, and the names that are. The latter are ours and have no backticks, so the first one's
/// end is found from behind, whatever it is made of.
fn named(rest: &str) -> Option<(&str, Vec<&str>)> {
    let (name, expected) = rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, there are "))?;
    Some((name, quoted(expected).collect()))
}

/// `invalid type: string "...", expected i64` without the string; `missing field` and the like stay as they are.
fn without_value(sentence: &str) -> String {
    let kinds = ["string", "character", "integer", "floating point", "boolean", "byte array"];
    let invalid = ["invalid type: ", "invalid value: "].iter().find(|start| sentence.starts_with(**start));
    let Some(invalid) = invalid else {
        return if sentence.starts_with(MISSING) || sentence.starts_with("invalid length") {
            sentence.to_owned()
        } else {
            redact::foreign(sentence)
        };
    };
    let rest = sentence.strip_prefix(invalid).unwrap_or_default();
    let expected =
        rest.rsplit_once(", expected ").map_or(String::new(), |(_, expected)| format!(", expected {expected}"));
    match kinds.iter().find(|kind| rest.starts_with(**kind)) {
        Some(kind) => format!("{invalid}{kind}{expected}"),
        None => redact::scrub(sentence),
    }
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The known name that a typing mistake may have meant.
pub fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, near) = known.iter().map(|candidate| (edits(name, candidate), *candidate)).min()?;
    (distance <= 1 + name.len() / 4).then_some(near)
}

/// Levenshtein distance without regard to case.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.to_lowercase().chars().enumerate() {
        let mut next = vec![i + 1];
        for (pair, to) in row.windows(2).zip(&b) {
            let [diagonal, above] = pair else { continue };
            let left = next.last().copied().unwrap_or_default();
            next.push((diagonal + usize::from(from != *to)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only what serde says about it matters")]
    struct Own {
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    #[allow(dead_code, reason = "only what serde says about it matters")]
    struct Item {
        backend_ref: Option<String>,
        weight: Option<i64>,
        mode: Option<Mode>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
    enum Mode {
        Enforce,
        Shadow,
    }

    fn first(value: Value) -> (String, String, String) {
        let misfit = decode::<Own>(value, Strictness::Strict).unwrap_err().remove(0);
        (misfit.field, misfit.message, misfit.hint)
    }

    #[test]
    fn misfits_name_field_and_remedy() {
        let expect = |value, field: &str, message: &str, hint: &str| {
            assert_eq!(first(value), (field.to_owned(), message.to_owned(), hint.to_owned()));
        };
        expect(
            json!({"items": [{"wieght": 1}]}),
            "items[0].wieght",
            "unknown field `wieght`",
            "did you mean `weight`?",
        );
        expect(
            json!({"items": [{}, {"zzz": 1}]}),
            "items[1].zzz",
            "unknown field `zzz`",
            "known fields: backendRef, weight, mode",
        );
        expect(
            json!({"items": [{"mode": "enforce"}]}),
            "items[0].mode",
            "`enforce` is not a known value",
            "one of Enforce, Shadow",
        );
        expect(json!({"items": [{"weight": "1"}]}), "items[0].weight", "invalid type: string", "expected i64");
        expect(json!({}), "", "missing field `items`", "");
    }

    #[test]
    fn unknown_fields_of_lenient_types() {
        use gateway_api::apis::standard::httproutes::HttpRouteSpec;
        let misfits = decode::<HttpRouteSpec>(json!({"hostname": "a", "rules": [{"retry": {}}]}), Strictness::Strict)
            .unwrap_err();
        let fields: Vec<_> = misfits.iter().map(|misfit| misfit.field.as_str()).collect();
        assert_eq!(fields, ["hostname", "rules[0].retry"]);
    }

    #[test]
    fn all_unknown_fields_are_told_at_once_and_what_they_leave_missing_is_not() {
        let fields = |value| -> Vec<String> {
            let misfits = decode::<Own>(value, Strictness::Strict).unwrap_err();
            misfits.into_iter().map(|misfit| misfit.field).collect()
        };
        assert_eq!(fields(json!({"item": []})), ["item"]);
        assert_eq!(
            fields(json!({"a": 1, "items": [{"b": 2}, {"weight": "1", "c": 3}]})),
            ["a", "items[0].b", "items[1].weight"]
        );
    }

    #[test]
    fn leniently_what_is_not_known_is_left_out_or_noted() {
        let value = json!({
            "items": [{"more": {"a": 1}, "weight": 1}, {"mode": "Other"}, {"mode": "Shadow", "weight": null}],
            "more": [],
        });
        let decoded = decode::<Own>(value, Strictness::Lenient).unwrap();
        let items: Vec<_> = decoded.value.items.iter().map(|item| (item.weight, item.mode)).collect();
        assert_eq!(items, [(Some(1), None), (None, Some(Mode::Enforce)), (None, Some(Mode::Shadow))]);
        let noted: Vec<_> =
            decoded.unknown.iter().map(|misfit| (misfit.field.as_str(), misfit.hint.as_str())).collect();
        assert_eq!(noted, [("items[1].mode", "one of Enforce, Shadow")]);
    }

    #[test]
    fn what_has_another_type_is_an_error_with_its_field() {
        for strictness in [Strictness::Strict, Strictness::Lenient] {
            let field = |value| decode::<Own>(value, strictness).unwrap_err().remove(0).field;
            assert_eq!(field(json!({"items": [{}, {"weight": "1"}]})), "items[1].weight");
            assert_eq!(field(json!({"items": [{"mode": 1}]})), "items[0].mode");
            assert_eq!(field(json!({"items": {}})), "items");
            assert_eq!(field(json!([])), "");
        }
    }
}
