//! Consumers to keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::ir::{AllowedModels, Key};
use crate::objects::{Consumer, ConsumerKey, KeySource, Object};
use crate::placement::Feature;
use crate::status::{Finding, Origin, Reason, Severity};

use super::refs;
use super::view::View;

/// One key of one Consumer, before it is known whether others have it too.
#[derive(Debug, PartialEq)]
pub struct Claim {
    /// Its place in the Consumer.
    pub index: usize,
    pub key: Arc<Key>,
}

pub fn claims(view: View<'_>, consumer: &Object<Consumer>, findings: &mut Vec<Finding>) -> Vec<Claim> {
    findings.extend(consumer.refused.findings().cloned());
    let mut claims = Vec::new();
    if !consumer.spec.identities.is_empty() {
        findings.extend(view.lack(Feature::Identities, &consumer.meta, "spec.identities"));
    }
    for given in &consumer.spec.keys {
        match key(view, consumer, given, &field(given.index)) {
            Ok(key) => claims.push(Claim { index: given.index, key: Arc::new(key) }),
            Err(finding) => findings.push(finding),
        }
    }
    claims
}

fn field(index: usize) -> String {
    format!("spec.keys[{index}]")
}

/// Says whose a key is. A key that two Consumers claim is nobody's. Otherwise whoever copied it would use the other's
/// models and budgets, or have the other pay.
pub fn settle(claims: &[(&Object<Consumer>, &Claim)], findings: &mut Vec<Finding>) -> Option<Arc<Key>> {
    let owners: BTreeSet<&Origin> = claims.iter().map(|(consumer, _)| &consumer.meta.origin).collect();
    let mut duplicate = |(consumer, claim): &(&Object<Consumer>, &Claim), message: String, hint: &str| {
        findings.push(consumer.meta.finding(Severity::Error, Reason::DuplicateKey, field(claim.index), message, hint));
    };
    if owners.len() > 1 {
        for claim in claims {
            let own = &claim.0.meta.origin;
            let others: Vec<String> = owners.iter().filter(|owner| **owner != own).map(ToString::to_string).collect();
            let message = format!("the key is also one of {}: it is refused for each", others.join(", "));
            duplicate(claim, message, "make new ones with tollgate key new");
        }
        return None;
    }
    for again in claims.iter().skip(1) {
        duplicate(again, "the Consumer has the key already".to_owned(), "the first entry is used");
    }
    claims.first().map(|(_, claim)| Arc::clone(&claim.key))
}

fn key(view: View<'_>, consumer: &Object<Consumer>, key: &ConsumerKey, field: &str) -> Result<Key, Finding> {
    let sha256 = match &key.source {
        KeySource::Sha256(hash) => hash.clone(),
        KeySource::Secret(secret) => {
            let field = format!("{field}.secretRef");
            let (_, value) = refs::secret_value(view, &consumer.meta, refs::CONSUMER, secret, &field)?;
            refs::header_value(&value)
                .map_err(|error| consumer.meta.finding(Severity::Error, Reason::InvalidSecret, &field, error, ""))?;
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
