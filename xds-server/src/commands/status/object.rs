//! An object as `GET /api/status` answers it. What a newer control plane says besides is let pass.

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub conditions: Vec<Condition>,
    pub listeners: Vec<Listener>,
    pub parents: Vec<Parent>,
    pub ancestors: Vec<Ancestor>,
    pub addresses: Vec<Address>,
    pub controller: String,
    pub class: String,
    pub gateway: String,
    pub picker: String,
    pub endpoint: String,
    pub hostnames: Vec<String>,
    pub models: Vec<String>,
    pub targets: Vec<String>,
    pub keys: Option<u64>,
    #[serde(rename = "lastUsed")]
    pub last_used: String,
    #[serde(rename = "spentToday")]
    pub spent_today: Option<Spent>,
    pub backends: Option<Backends>,
    #[serde(rename = "usedBy")]
    pub used_by: Option<UsedBy>,
}

#[derive(Debug, Deserialize)]
pub struct Spent {
    pub tokens: u64,
}

/// Of a ModelPool.
#[derive(Debug, Deserialize)]
pub struct Backends {
    pub total: u64,
    pub ready: u64,
}

#[derive(Debug, Deserialize)]
pub struct UsedBy {
    pub total: u64,
}

#[derive(Debug, Deserialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub about: String,
    pub status: String,
    pub reason: String,
    #[serde(default)]
    pub message: String,
}

#[derive(Debug, Deserialize)]
pub struct Listener {
    pub name: String,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    pub parent_ref: Reference,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ancestor {
    pub ancestor_ref: Reference,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    pub kind: Option<String>,
    pub namespace: Option<String>,
    pub name: String,
    pub section_name: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Address {
    pub value: String,
}

/// A condition that is not well, and the part of the object that it is about.
pub struct NotWell<'a> {
    pub part: String,
    pub condition: &'a Condition,
}

/// The errors that are about no object, for example that a file cannot be read.
pub fn errors_of_files(answer: &Value) -> Vec<String> {
    let text =
        |finding: &Value, path: &str| finding.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let findings = answer.get("findings").and_then(Value::as_array).into_iter().flatten();
    let errors = findings.filter(|finding| text(finding, "/severity") == "error" && finding.get("origin").is_none());
    let line = |finding: &Value| {
        let line = finding.pointer("/spot/line").and_then(Value::as_u64).unwrap_or_default();
        format!("{}:{line}: {}: {}", text(finding, "/spot/file"), text(finding, "/reason"), text(finding, "/message"))
    };
    errors.map(line).collect()
}

// === impl Object ===

impl Object {
    pub fn not_well(&self) -> impl Iterator<Item = NotWell<'_>> {
        self.parts().flat_map(|(part, conditions)| {
            let bad = conditions.iter().filter(|condition| !condition.is_good());
            bad.map(move |condition| NotWell { part: part.clone(), condition })
        })
    }

    /// True if it is so of every part, Unknown or False if it is not so of one, empty if nothing is said of it.
    pub fn verdict(&self, about: &str) -> &str {
        let of_parents = self.parents.iter().map(|parent| &parent.conditions);
        let of_ancestors = self.ancestors.iter().map(|ancestor| &ancestor.conditions);
        let all = [&self.conditions].into_iter().chain(of_parents).chain(of_ancestors).flatten();
        let verdicts = all.filter(|condition| condition.about == about).map(|condition| condition.status.as_str());
        // "False" < "True" < "Unknown"
        verdicts.min().unwrap_or_default()
    }

    fn parts(&self) -> impl Iterator<Item = (String, &[Condition])> {
        let own = (String::new(), self.conditions.as_slice());
        let listeners = self.listeners.iter();
        let listeners = listeners.map(|listener| (format!("listener {}", listener.name), &listener.conditions[..]));
        let parents = self.parents.iter();
        let parents = parents.map(|parent| (format!("parent {}", parent.parent_ref.text()), &parent.conditions[..]));
        let ancestors = self.ancestors.iter();
        let ancestors = ancestors.map(|ancestor| (ancestor.ancestor_ref.text(), &ancestor.conditions[..]));
        [own].into_iter().chain(listeners).chain(parents).chain(ancestors)
    }
}

// === impl Condition ===

impl Condition {
    fn is_good(&self) -> bool {
        match self.about.as_str() {
            "Conflicted" | "PartiallyInvalid" => self.status == "False",
            // All of it works. What ends soon is told apart.
            "KeysExpiring" => true,
            _ => self.status == "True",
        }
    }
}

// === impl Reference ===

impl Reference {
    /// `edge/llm (https)`
    pub fn text(&self) -> String {
        let kind = self.kind.as_ref().filter(|kind| *kind != "Gateway").map(|kind| format!("{kind} "));
        let namespace = self.namespace.as_ref().map(|namespace| format!("{namespace}/"));
        let section = self.section_name.as_ref().map(|section| format!(" ({section})"));
        [kind, namespace, Some(self.name.clone()), section].into_iter().flatten().collect()
    }
}
