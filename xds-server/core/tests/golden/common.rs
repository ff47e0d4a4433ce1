//! What most resources have in common stands once, in `tests/cases/common.yaml`. In a case a resource shows the name of
//! an entry in place of the entry's fields, and beside it what is its own.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

pub struct Common {
    /// The largest first.
    entries: Vec<(String, Map<String, Value>)>,
    used: RefCell<BTreeSet<String>>,
}

/// As YAML's own merge key.
const MERGE: &str = "<<";

impl Common {
    pub fn read(file: &Path) -> Self {
        let all: Map<String, Value> = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let entry = |(name, fields): (String, Value)| (name, fields.as_object().unwrap().clone());
        let mut entries: Vec<_> = all.into_iter().map(entry).collect();
        entries.sort_by_key(|(_, fields)| std::cmp::Reverse(size(&Value::Object(fields.clone()))));
        Self { entries, used: RefCell::default() }
    }

    /// The value with names in place of what is in common.
    pub fn fold(&self, value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let (mut rest, mut names) = (map.clone(), Vec::new());
                for (name, fields) in &self.entries {
                    if fields.iter().all(|(field, common)| rest.get(field) == Some(common)) {
                        fields.keys().for_each(|field| drop(rest.shift_remove(field)));
                        names.push(Value::from(name.as_str()));
                        self.used.borrow_mut().insert(name.clone());
                    }
                }
                let merge = match names.as_slice() {
                    [] => None,
                    [name] => Some(name.clone()),
                    _ => Some(Value::Array(names)),
                };
                let own = rest.iter().map(|(field, value)| (field.clone(), self.fold(value)));
                merge.map(|names| (MERGE.to_owned(), names)).into_iter().chain(own).collect()
            }
            Value::Array(items) => items.iter().map(|item| self.fold(item)).collect(),
            other => other.clone(),
        }
    }

    /// Entries that no case has used.
    pub fn unused(&self) -> Vec<&str> {
        let used = self.used.borrow();
        self.entries.iter().map(|(name, _)| name.as_str()).filter(|name| !used.contains(*name)).collect()
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        _ => 1,
    }
}
