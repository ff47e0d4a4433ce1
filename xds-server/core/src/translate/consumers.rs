//! Consumers to keys.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::ir::{AllowedModels, Key};
use crate::objects::{Consumer, ConsumerKey, KeySource, Object, Objects};
use crate::status::{Finding, Severity};

use super::refs;

pub fn keys(objects: &Objects, findings: &mut Vec<Finding>) -> Vec<Key> {
    let mut keys: BTreeMap<String, Key> = BTreeMap::new();
    for consumer in objects.consumers.iter() {
        for (index, given) in consumer.spec.keys.iter().enumerate() {
            let field = format!("spec.keys[{index}]");
            match key(objects, consumer, given, &field) {
                Ok(key) => match keys.get(&key.sha256) {
                    // A key that could be two consumers is charged to the one that had it first by name.
                    Some(first) => {
                        let message = format!("the key is already one of {}", first.origin);
                        findings.push(consumer.meta.finding(
                            Severity::Error,
                            "DuplicateKey",
                            field,
                            message,
                            "it stays with that consumer; make a new one with tollgate key new",
                        ));
                    }
                    None => {
                        keys.insert(key.sha256.clone(), key);
                    }
                },
                Err(finding) => findings.push(finding),
            }
        }
    }
    keys.into_values().collect()
}

fn key(objects: &Objects, consumer: &Object<Consumer>, key: &ConsumerKey, field: &str) -> Result<Key, Finding> {
    let sha256 = match &key.source {
        KeySource::Sha256(hash) => hash.clone(),
        KeySource::Secret(secret) => {
            let field = format!("{field}.secretRef");
            let (_, value) = refs::secret_value(objects, &consumer.meta, refs::CONSUMER, secret, &field)?;
            refs::header_value(&value)
                .map_err(|error| consumer.meta.finding(Severity::Error, "InvalidSecret", &field, error, ""))?;
            hex::encode(Sha256::digest(value.expose()))
        }
    };
    Ok(Key {
        origin: consumer.meta.origin.clone(),
        sha256,
        consumer: consumer.meta.origin.display_name(),
        labels: consumer.meta.labels.clone(),
        not_after: key.not_after,
        models: match &consumer.spec.models {
            Some(models) => AllowedModels::Only(models.clone()),
            None => AllowedModels::All,
        },
    })
}
