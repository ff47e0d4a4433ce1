//! An export of LiteLLM's keys: what `GET /key/list?return_full_object=true` answers, or rows of `LiteLLM_VerificationToken`.
//! LiteLLM keeps the SHA-256 of a key as we do, so every key goes on to count, and nobody needs to know it.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::objects::Shown;
use crate::terms::names::is_label_value;

use super::access::Consumers;
use super::deployment::{Deployments, Pattern, groups};
use super::known;
use super::names::label;
use super::notes::Notes;
use super::section::{Section, numbered};
use super::written::{Consumer, KeyEntry, Limit};

/// A hundred thousand rows are a large company.
const MAX_ROWS: usize = 500_000;
/// The longest list of models of a Consumer.
const MAX_MODELS: usize = 128;

/// Adds the Consumers, and says which limit they have in common.
pub(super) fn consumers(
    value: Value,
    deployments: &Deployments,
    consumers: &mut Consumers,
    notes: &mut Notes,
) -> Vec<Limit> {
    let groups = groups(deployments);
    let mut seen = std::collections::BTreeSet::new();
    let mut limits = Vec::new();
    for (path, row) in rows(value, notes) {
        let row = Section::of(path.clone(), row, notes);
        let Some(Row { name, labels, sha256, not_after, models, tpm }) = self::row(row, &groups, notes) else {
            continue;
        };
        if !seen.insert(sha256.clone()) {
            notes.told(&path, "the key is in the export twice: the first one counts", "");
            continue;
        }
        let name = consumers.names.label(&name, "key");
        let mut consumer = Consumer::new(name, KeyEntry::sha256(sha256, not_after));
        consumer.labels = labels;
        consumer.models = models;
        consumers.list.push(consumer);
        limits.push((path, tpm));
    }
    limit(&limits, notes)
}

fn rows(value: Value, notes: &mut Notes) -> Vec<(String, Value)> {
    let mut rows = match value {
        Value::Array(rows) => numbered("", rows),
        Value::Object(mut page) => match page.remove("keys") {
            Some(Value::Array(rows)) => {
                let pages = page.get("total_pages").and_then(Value::as_u64).unwrap_or(1);
                if pages > 1 {
                    notes.lost(
                        "total_pages",
                        "one page of several: the keys of the others are not here",
                        "size=100&page=N",
                    );
                }
                numbered("keys", rows)
            }
            _ => {
                notes.invalid("", "no list of keys", "GET /key/list?return_full_object=true, or rows of the table");
                Vec::new()
            }
        },
        _ => {
            notes.invalid("", "no list of keys", "GET /key/list?return_full_object=true, or rows of the table");
            Vec::new()
        }
    };
    if rows.len() > MAX_ROWS {
        notes.lost("", format_args!("more than {MAX_ROWS} keys: the others are left out"), "");
        rows.truncate(MAX_ROWS);
    }
    rows
}

/// What of a row we have a place for.
struct Row {
    name: String,
    labels: Vec<(&'static str, String)>,
    sha256: String,
    not_after: Option<String>,
    models: Option<Vec<String>>,
    tpm: Option<u64>,
}

type Groups<'d> = std::collections::BTreeMap<&'d str, Vec<String>>;

/// None: the key is left out. A key of which we do not know what it may do is not let in.
fn row(mut row: Section, groups: &Groups<'_>, notes: &mut Notes) -> Option<Row> {
    let token_path = row.at("token");
    let sha256 = match row.text("token", notes) {
        Some(token) if token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            token.to_ascii_lowercase()
        }
        _ => {
            let hint = "the column token has it in hex; GET /key/list needs return_full_object=true";
            notes.invalid(&token_path, "no SHA-256 of a key: the key is left out", hint);
            return None;
        }
    };
    if row.flag("blocked") {
        notes.told(&row.at("blocked"), "the key is blocked, and left out", "");
        return None;
    }
    let not_after = match row.text("expires", notes) {
        None => None,
        Some(text) => match instant(&text) {
            Some(time) => Some(time.to_string()),
            None => {
                let message = format!("{} is not a time: the key is left out", Shown(&text));
                notes.invalid(&row.at("expires"), message, "RFC 3339, for example 2027-01-01T00:00:00Z");
                return None;
            }
        },
    };
    let alias = row.text("key_alias", notes);
    let user = row.text("user_id", notes);
    let team = row.text("team_id", notes);
    let (team_path, models_path) = (row.at("team_id"), row.at("models"));
    let names = row.texts("models", notes);
    let of_team = row.texts("team_models", notes);
    if team.is_some() {
        let message = "budgets, limits and models of its team are not in the row";
        notes.lost(&team_path, message, "the Consumer has a label team, for scopes of a TokenPolicy: Label/team");
    }
    let models = models(names, of_team, team.is_some(), groups, &models_path, notes)?;
    let name = [&alias, &user].into_iter().flatten().find(|text| !label(text).is_empty()).cloned();
    let name = name.unwrap_or_else(|| format!("key-{}", sha256.get(..8).unwrap_or_default()));
    let mut labels = Vec::new();
    for (key, value) in [("team", team), ("user", user)] {
        match value {
            Some(value) if is_label_value(&value) => labels.push((key, value)),
            Some(_) => notes.told(&row.at(&format!("{key}_id")), "no value that a label can have: left out", ""),
            None => {}
        }
    }
    let tpm = row.whole("tpm_limit", notes);
    leave(row, notes);
    Some(Row { name, labels, sha256, not_after, models, tpm })
}

/// Which models the key may use. None: nobody knows here, so the key is left out.
#[allow(clippy::option_option, reason = "the inner one is what a Consumer has: absent means all")]
fn models(
    names: Vec<(String, String)>,
    of_team: Vec<(String, String)>,
    has_team: bool,
    groups: &Groups<'_>,
    path: &str,
    notes: &mut Notes,
) -> Option<Option<Vec<String>>> {
    let is_teams = names.iter().any(|(_, name)| name == "all-team-models") || names.is_empty() && has_team;
    let names = if is_teams && !of_team.is_empty() { of_team } else { names };
    if is_teams && names.iter().all(|(_, name)| name == "all-team-models") {
        let hint = "write the names into its models: `all-proxy-models` for all";
        notes.lost(path, "the models are those of its team, which is not in the row: the key is left out", hint);
        return None;
    }
    if names.is_empty() || names.iter().any(|(_, name)| name == "all-proxy-models") {
        return Some(None);
    }
    let mut models: Vec<String> = Vec::new();
    for (path, name) in names {
        if name == "no-default-models" {
            continue;
        }
        let of_group = groups.get(name.as_str()).cloned();
        for model in of_group.unwrap_or_else(|| vec![name]) {
            match Pattern::parse(&model) {
                Some(_) if models.contains(&model) => {}
                Some(_) if models.len() < MAX_MODELS => models.push(model),
                Some(_) => {
                    notes.lost(&path, format_args!("a Consumer has at most {MAX_MODELS} models"), "use wildcards")
                }
                None => notes.lost(&path, "a name of a model may have one `*`, at its end: left out", ""),
            }
        }
    }
    Some(Some(models))
}

/// LiteLLM's times may have no zone, and mean UTC then.
fn instant(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let time: DateTime = text.parse().ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}

/// Lists what is left in a row. Most of it is LiteLLM's bookkeeping.
fn leave(row: Section, notes: &mut Notes) {
    let mut section = row;
    for field in known::KEY_BOOKS.split_ascii_whitespace() {
        section.take(field);
    }
    let empty: Vec<String> = section.nothing();
    for field in empty {
        section.take(&field);
    }
    section.leave(known::KEY, notes);
}

/// A TokenPolicy has one limit for all Consumers of a pool, so it can be written only if the keys agree.
fn limit(limits: &[(String, Option<u64>)], notes: &mut Notes) -> Vec<Limit> {
    let Some((_, first)) = limits.first() else { return Vec::new() };
    if let Some(tokens) = first
        && limits.iter().all(|(_, tpm)| tpm == first)
        && i64::try_from(*tokens).is_ok()
    {
        let message = "the limit of all keys; a TokenPolicy holds the Consumer litellm-master to it too";
        notes.told("", message, "");
        return vec![Limit::per_minute(*tokens)];
    }
    for (path, _) in limits.iter().filter(|(_, tpm)| tpm.is_some()) {
        let message = "the keys have different limits, and a TokenPolicy has one for all Consumers of a pool";
        notes.lost(&format!("{path}.tpm_limit"), message, "a ModelPool, HTTPRoute and TokenPolicy for each limit");
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_and_without_a_zone() {
        for text in [
            "2027-01-01T00:00:00Z",
            "2027-01-01T00:00:00",
            "2027-01-01 01:00:00+01:00",
            "2027-01-01T00:00:00.000+00:00",
        ] {
            assert_eq!(instant(text).unwrap().to_string(), "2027-01-01T00:00:00Z", "{text}");
        }
        for text in ["", "soon", "2027-13-01T00:00:00"] {
            assert!(instant(text).is_none(), "{text}");
        }
    }
}
