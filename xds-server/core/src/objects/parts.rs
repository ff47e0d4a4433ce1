//! Parts of an object that are refused by themselves, so that a value of a newer version does not take down the rest.
//!
//! This is for objects of a cluster. An object of a file is taken or refused as a whole, because its author is there and
//! reads what is wrong. A mistake that is in none of these parts refuses the object as a whole; its last good version
//! then stays in force, or, without one, a TokenPolicy closes what it names.
//!
//! | kind | part | what is done in its place |
//! |---|---|---|
//! | Gateway | `spec.listeners[*]` | the listener is not opened |
//! | | `spec.allowedListeners` | it takes no ListenerSets |
//! | ListenerSet | `spec.listeners[*]` | the listener is not opened |
//! | HTTPRoute, GRPCRoute | `spec.rules[*].matches[*]` | the match is left out, and the rule with it if it was the last one |
//! | | `spec.rules[*].filters` | the rule answers 500 (GRPCRoute: 503): a filter is never skipped |
//! | | `spec.rules[*].sessionPersistence` | the same |
//! | | `spec.rules[*].backendRefs[*]` | its share of requests is answered in the same way |
//! | TLSRoute | `spec.rules[*].backendRefs[*]` | its share of connections is closed |
//! | ModelPool | `spec.models[*].affinity` | the model is answered with 503 |
//! | | `spec.models[*].targets[*]` | the target is left out |
//! | Consumer | `spec.keys[*]` | the key is nobody's |
//! | BackendTLSPolicy | `spec.validation`, `spec.options` | the ports that it is for are closed, in files as well |
//! | EndpointSlice | `endpoints[*]` | the endpoint gets no requests |
//! | others | none | |
//!
//! No part opens anything by being refused. So who may come in is in none of them, but in a listener: `access` and
//! `allowedConsumers` refuse their pool, and `tls`, `credential` and `schema` their backend.

use crate::status::Finding;

/// A part that is refused, with all that is in it.
#[derive(Debug, Clone, PartialEq)]
struct RefusedPart {
    /// For example `spec.rules[2].filters`.
    path: String,
    /// The first thing that is wrong in it.
    finding: Finding,
}

/// The refused parts of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RefusedParts(Vec<RefusedPart>);

/// The parts of a kind of object, as in the table.
pub fn of_kind(kind: &str) -> &'static [&'static str] {
    match kind {
        "Gateway" => &["spec.listeners[*]", "spec.allowedListeners"],
        "ListenerSet" => &["spec.listeners[*]"],
        "HTTPRoute" | "GRPCRoute" => &[
            "spec.rules[*].matches[*]",
            "spec.rules[*].filters",
            "spec.rules[*].backendRefs[*]",
            "spec.rules[*].sessionPersistence",
        ],
        "TLSRoute" => &["spec.rules[*].backendRefs[*]"],
        "ModelPool" => &["spec.models[*].affinity", "spec.models[*].targets[*]"],
        "Consumer" => &["spec.keys[*]"],
        "BackendTLSPolicy" => of_files(kind),
        "EndpointSlice" => &["endpoints[*]"],
        _ => &[],
    }
}

/// Those of them that are refused by themselves in files as well, because the rest says what is closed.
pub fn of_files(kind: &str) -> &'static [&'static str] {
    match kind {
        "BackendTLSPolicy" => &["spec.validation", "spec.options"],
        _ => &[],
    }
}

/// The part that a field is in, if it is in one of these.
pub fn around<'f>(parts: &[&str], field: &'f str) -> Option<&'f str> {
    parts.iter().find_map(|part| beginning(part, field))
}

/// The beginning of the field that the pattern describes.
fn beginning<'f>(pattern: &str, field: &'f str) -> Option<&'f str> {
    let mut rest = field;
    for (number, piece) in pattern.split("[*]").enumerate() {
        if number > 0 {
            let (index, behind) = rest.strip_prefix('[')?.split_once(']')?;
            index.parse::<usize>().ok()?;
            rest = behind;
        }
        rest = rest.strip_prefix(piece)?;
    }
    let is_whole = rest.is_empty() || rest.starts_with(['.', '[']);
    is_whole.then(|| field.strip_suffix(rest)).flatten()
}

// === impl RefusedParts ===

impl RefusedParts {
    /// What else is wrong in a part is not told: it may follow from the first.
    pub(super) fn add(&mut self, path: &str, finding: Finding) {
        if self.of(path).is_none() {
            self.0.push(RefusedPart { path: path.to_owned(), finding });
        }
    }

    /// Why a part is refused. None: it is not.
    pub fn of(&self, path: &str) -> Option<&Finding> {
        self.0.iter().find(|part| part.path == path).map(|part| &part.finding)
    }

    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter().map(|part| &part.finding)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_around_a_field() {
        let parts = of_kind("HTTPRoute");
        for (field, part) in [
            ("spec.rules[2].matches[10].path.type", Some("spec.rules[2].matches[10]")),
            ("spec.rules[2].matches[10]", Some("spec.rules[2].matches[10]")),
            ("spec.rules[0].filters[1].type", Some("spec.rules[0].filters")),
            ("spec.rules[0].filtersOf", None),
            ("spec.rules[0].timeouts.request", None),
            ("spec.rules[x].filters", None),
            ("spec.rules", None),
            ("", None),
        ] {
            assert_eq!(around(parts, field), part, "{field}");
        }
    }
}
