//! Consumers to keys.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use crate::ir::{AllowedModels, Key};
use crate::objects::{Consumer, ConsumerKey, KeySource, Object, Objects};
use crate::status::{Finding, Origin, Severity};

use super::refs;

/// One key of one Consumer, before it is known whether others have it too.
struct Claim<'a> {
    consumer: &'a Object<Consumer>,
    field: String,
    key: Key,
}

pub fn keys(objects: &Objects, findings: &mut Vec<Finding>) -> Vec<Key> {
    let mut claims: BTreeMap<String, Vec<Claim<'_>>> = BTreeMap::new();
    for consumer in objects.consumers.iter() {
        for (index, given) in consumer.spec.keys.iter().enumerate() {
            let field = format!("spec.keys[{index}]");
            match key(objects, consumer, given, &field) {
                Ok(key) => claims.entry(key.sha256.clone()).or_default().push(Claim { consumer, field, key }),
                Err(finding) => findings.push(finding),
            }
        }
    }
    claims.into_values().filter_map(|claims| settle(claims, findings)).collect()
}

/// Says whose a key is. A key that two Consumers claim is nobody's. Otherwise whoever copied it would use the other's
/// models and budgets, or have the other pay.
fn settle(claims: Vec<Claim<'_>>, findings: &mut Vec<Finding>) -> Option<Key> {
    let owners: BTreeSet<&Origin> = claims.iter().map(|claim| &claim.consumer.meta.origin).collect();
    let mut duplicate = |claim: &Claim<'_>, message: String, hint: &str| {
        let meta = &claim.consumer.meta;
        findings.push(meta.finding(Severity::Error, "DuplicateKey", &claim.field, message, hint));
    };
    if owners.len() > 1 {
        for claim in &claims {
            let own = &claim.consumer.meta.origin;
            let others: Vec<String> = owners.iter().filter(|owner| **owner != own).map(ToString::to_string).collect();
            let message = format!("the key is also one of {}: it is refused for each", others.join(", "));
            duplicate(claim, message, "make new ones with tollgate key new");
        }
        return None;
    }
    for again in claims.iter().skip(1) {
        duplicate(again, "the Consumer has the key already".to_owned(), "the first entry is used");
    }
    claims.into_iter().next().map(|claim| claim.key)
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
