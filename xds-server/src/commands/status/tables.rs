//! The tables that people read: one for each kind, with the columns that its CRD has.

use tollgate_core::status::StatusKind;

use super::object::{NotWell, Object};
use crate::commands::terminal::{self, Side, inert};

/// Up to this many entries of a list stand in a cell.
const MAX_LISTED: usize = 3;
/// Namespace, name and five columns.
const CELLS: usize = 7;

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kinds {
    One,
    /// Then the names are told apart as kubectl does it: `gateway/llm`
    Several,
}

/// Whose objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    /// Then there is no column for it.
    One,
    All,
}

pub fn tables(objects: &[Object], namespaces: Namespaces) -> String {
    let of_kind = |kind: StatusKind| -> (StatusKind, Vec<&Object>) {
        (kind, objects.iter().filter(|object| object.kind == kind.name()).collect())
    };
    let by_kind: Vec<_> = StatusKind::ALL.into_iter().map(of_kind).filter(|(_, own)| !own.is_empty()).collect();
    let kinds = if by_kind.len() > 1 { Kinds::Several } else { Kinds::One };
    let tables: Vec<String> = by_kind.iter().map(|(kind, own)| table(*kind, own, kinds, namespaces)).collect();
    if tables.is_empty() { "no objects\n".to_owned() } else { tables.join("\n") }
}

/// What is not well, each with its reason and message.
pub fn not_well(objects: &[Object], of_files: &[String]) -> String {
    let mut text = String::new();
    for object in objects {
        let namespace = if object.namespace.is_empty() { String::new() } else { format!("{}/", object.namespace) };
        for NotWell { part, condition } in object.not_well() {
            let part = if part.is_empty() { part } else { format!(", {part}") };
            let what = format!("{} {namespace}{}{part}", object.kind, object.name);
            text.push_str(&inert(&format!("{what}: {}={} {}", condition.about, condition.status, condition.reason)));
            text.push('\n');
            if !condition.message.is_empty() {
                text.push_str(&format!("    {}\n", inert(&condition.message)));
            }
        }
    }
    of_files.iter().for_each(|line| text.push_str(&(inert(line) + "\n")));
    if text.is_empty() { text } else { format!("\nNot well:\n{text}") }
}

/// The keys that end soon or have ended. That is well, and somebody has to do something about it.
pub fn keys(objects: &[Object]) -> String {
    let expiring = |object: &Object| {
        let condition = object.conditions.iter().find(|condition| condition.about == "KeysExpiring")?;
        Some(inert(&format!("Consumer {}/{}: {}", object.namespace, object.name, condition.message)))
    };
    let lines: String = objects.iter().filter_map(expiring).map(|line| line + "\n").collect();
    if lines.is_empty() { lines } else { format!("\nKeys that end (tollgate key rotate makes new ones):\n{lines}") }
}

fn table(kind: StatusKind, objects: &[&Object], kinds: Kinds, namespaces: Namespaces) -> String {
    let has_namespace = namespaces == Namespaces::All && kind != StatusKind::GatewayClass;
    let place = |namespace: &str, name: &str, cells: Vec<String>| {
        let place = if has_namespace { vec![inert(namespace), inert(name)] } else { vec![inert(name)] };
        let mut line = place.into_iter().chain(cells.iter().map(|cell| inert(cell)));
        // A kind has no more columns than this.
        std::array::from_fn::<String, CELLS, _>(|_| line.next().unwrap_or_default())
    };
    let mut lines = vec![place("NAMESPACE", "NAME", head(kind).iter().map(|&name| name.to_owned()).collect())];
    lines.extend(objects.iter().map(|object| {
        let name = match kinds {
            Kinds::One => object.name.clone(),
            Kinds::Several => format!("{}/{}", kind.name().to_lowercase(), object.name),
        };
        place(&object.namespace, &name, cells(kind, object))
    }));
    terminal::table(&lines, [Side::Left; CELLS])
}

/// The columns after the name.
fn head(kind: StatusKind) -> &'static [&'static str] {
    match kind {
        StatusKind::GatewayClass => &["CONTROLLER", "ACCEPTED"],
        StatusKind::Gateway => &["CLASS", "ADDRESS", "PROGRAMMED"],
        StatusKind::ListenerSet => &["GATEWAY", "PROGRAMMED"],
        StatusKind::HttpRoute | StatusKind::GrpcRoute | StatusKind::TlsRoute => {
            &["HOSTNAMES", "PARENTS", "ACCEPTED", "RESOLVED"]
        }
        StatusKind::ModelPool => &["MODELS", "READY", "USED BY", "ACCEPTED", "RESOLVED"],
        StatusKind::ModelBackend => &["ENDPOINT", "USED BY", "ACCEPTED", "RESOLVED"],
        StatusKind::BackendTlsPolicy => &["TARGETS", "ACCEPTED", "RESOLVED"],
        StatusKind::InferencePool => &["PICKER", "GATEWAYS", "ACCEPTED", "RESOLVED"],
        StatusKind::Consumer => &["KEYS", "LAST USED", "SPENT TODAY", "ACCEPTED", "RESOLVED"],
        StatusKind::TokenPolicy => &["TARGETS", "ACCEPTED"],
    }
}

fn cells(kind: StatusKind, object: &Object) -> Vec<String> {
    let accepted = || object.verdict("Accepted").to_owned();
    let resolved = || object.verdict("ResolvedRefs").to_owned();
    let used_by = || object.used_by.as_ref().map_or_else(String::new, |used_by| used_by.total.to_string());
    match kind {
        StatusKind::GatewayClass => vec![object.controller.clone(), accepted()],
        StatusKind::Gateway => {
            let addresses = list(object.addresses.iter().map(|address| address.value.clone()));
            vec![object.class.clone(), addresses, object.verdict("Programmed").to_owned()]
        }
        StatusKind::ListenerSet => vec![object.gateway.clone(), object.verdict("Programmed").to_owned()],
        StatusKind::HttpRoute | StatusKind::GrpcRoute | StatusKind::TlsRoute => {
            let parents = list(object.parents.iter().map(|parent| parent.parent_ref.text()));
            vec![list(object.hostnames.iter().cloned()), parents, accepted(), resolved()]
        }
        StatusKind::ModelPool => {
            let ready = object.backends.as_ref().map(|backends| format!("{}/{}", backends.ready, backends.total));
            let models = list(object.models.iter().cloned());
            vec![models, ready.unwrap_or_default(), used_by(), accepted(), resolved()]
        }
        StatusKind::ModelBackend => vec![object.endpoint.clone(), used_by(), accepted(), resolved()],
        StatusKind::Consumer => {
            let keys = object.keys.map_or_else(String::new, |keys| keys.to_string());
            let spent = object.spent_today.as_ref().map_or_else(String::new, |spent| spent.tokens.to_string());
            vec![keys, object.last_used.clone(), spent, accepted(), resolved()]
        }
        StatusKind::BackendTlsPolicy => vec![list(object.targets.iter().cloned()), accepted(), resolved()],
        StatusKind::InferencePool => {
            let gateways = list(object.parents.iter().map(|parent| parent.parent_ref.text()));
            vec![object.picker.clone(), gateways, accepted(), resolved()]
        }
        StatusKind::TokenPolicy => vec![list(object.targets.iter().cloned()), accepted()],
    }
}

fn list(entries: impl Iterator<Item = String>) -> String {
    let entries: Vec<String> = entries.collect();
    let listed = entries.iter().take(MAX_LISTED).cloned().collect::<Vec<_>>().join(",");
    let more = entries.len().saturating_sub(MAX_LISTED);
    if more > 0 { format!("{listed} +{more}") } else { listed }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objects() -> Vec<Object> {
        let condition = |about: &str, status: &str, reason: &str, message: &str| json!({"type": about, "status": status, "reason": reason, "message": message});
        let accepted = || condition("Accepted", "True", "Accepted", "");
        let values = json!([
            {
                "kind": "Gateway", "namespace": "edge", "name": "llm", "class": "tollgate",
                "addresses": [{"type": "IPAddress", "value": "127.0.0.1"}],
                "conditions": [accepted(), condition("Programmed", "True", "Programmed", "")],
                "listeners": [{"name": "http", "conditions": [condition("Conflicted", "False", "NoConflicts", "")]}],
            },
            {
                "kind": "HTTPRoute", "namespace": "app", "name": "chat", "hostnames": ["a.org", "b.org", "c.org", "d.org"],
                "parents": [
                    {"parentRef": {"namespace": "edge", "name": "llm"}, "conditions": [accepted()]},
                    {
                        "parentRef": {"name": "other"},
                        "conditions": [condition("Accepted", "False", "NoMatchingParent", "there is none\u{1b}[2J")],
                    },
                ],
            },
        ]);
        serde_json::from_value(values).unwrap()
    }

    #[test]
    fn a_table_for_each_kind() {
        let expected = "\
NAMESPACE  NAME         CLASS     ADDRESS    PROGRAMMED
edge       gateway/llm  tollgate  127.0.0.1  True

NAMESPACE  NAME            HOSTNAMES             PARENTS         ACCEPTED  RESOLVED
app        httproute/chat  a.org,b.org,c.org +1  edge/llm,other  False
";
        assert_eq!(tables(&objects(), Namespaces::All), expected);
        let one = "NAME  CLASS     ADDRESS    PROGRAMMED\nllm   tollgate  127.0.0.1  True\n";
        assert_eq!(tables(objects().get(..1).unwrap(), Namespaces::One), one);
        assert_eq!(tables(&[], Namespaces::All), "no objects\n");
    }

    #[test]
    fn a_key_that_ends_is_told_of_and_nothing_is_wrong() {
        let expiring = json!({"type": "KeysExpiring", "status": "True", "reason": "KeyEnds", "message": "a ends"});
        let values = json!([{
            "kind": "Consumer", "namespace": "app", "name": "web", "keys": 2, "lastUsed": "2026-12-01T00:10:00Z",
            "spentToday": {"date": "2026-12-01", "tokens": 70},
            "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}, expiring],
        }]);
        let objects: Vec<Object> = serde_json::from_value(values).unwrap();
        let expected = "\
NAME  KEYS  LAST USED             SPENT TODAY  ACCEPTED  RESOLVED
web   2     2026-12-01T00:10:00Z  70           True
";
        assert_eq!(tables(&objects, Namespaces::One), expected);
        assert_eq!(not_well(&objects, &[]), "");
        assert_eq!(keys(&objects), "\nKeys that end (tollgate key rotate makes new ones):\nConsumer app/web: a ends\n");
    }

    #[test]
    fn a_pool_says_how_many_of_its_backends_are_ready_and_who_uses_it() {
        let values = json!([{
            "kind": "ModelPool", "namespace": "app", "name": "chat", "models": ["smol"],
            "backends": {"total": 3, "ready": 2}, "usedBy": {"total": 17, "objects": []},
        }, {"kind": "ModelPool", "namespace": "app", "name": "refused"}]);
        let objects: Vec<Object> = serde_json::from_value(values).unwrap();
        let expected = "\
NAME     MODELS  READY  USED BY  ACCEPTED  RESOLVED
chat     smol    2/3    17
refused
";
        assert_eq!(tables(&objects, Namespaces::One), expected);
    }

    #[test]
    fn what_is_not_well_is_told_and_does_nothing_to_a_terminal() {
        let expected = "
Not well:
HTTPRoute app/chat, parent other: Accepted=False NoMatchingParent
    there is none\\u{1b}[2J
a.yaml:1: SyntaxError: no
";
        assert_eq!(not_well(&objects(), &["a.yaml:1: SyntaxError: no".to_owned()]), expected);
        assert_eq!(not_well(objects().get(..1).unwrap(), &[]), "");
    }
}
