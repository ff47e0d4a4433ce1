//! Consumers to keys, and to what stands for keys: identities where callers have certificates of a mesh, and claims where
//! JWTs are verified.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::ir::{AllowedModels, JwtProof, Key, Proof};
use crate::objects::{Consumer, ConsumerKey, JwtClaims, KeySource, Object};
use crate::placement::Feature;
use crate::status::{Finding, Origin, Reason, Severity};

use super::refs;
use super::view::View;

/// One key of one Consumer, before it is known whether others have it too.
#[derive(Debug, PartialEq)]
pub struct Claim {
    /// Its place among the keys, the identities or the claims of the Consumer.
    pub index: usize,
    pub key: Arc<Key>,
}

pub fn claims(view: View<'_>, consumer: &Object<Consumer>, findings: &mut Vec<Finding>) -> Vec<Claim> {
    findings.extend(consumer.refused.findings().cloned());
    let mut claims = Vec::new();
    if !consumer.spec.identities.is_empty() {
        match view.lack(Feature::Identities, &consumer.meta, "spec.identities") {
            Some(finding) => findings.push(finding),
            None => claims.extend(identities(view, consumer)),
        }
    }
    for (index, jwt) in consumer.spec.claims.iter().enumerate() {
        let lack = view.lack(Feature::JwtClaims, &consumer.meta, format_args!("spec.claims[{index}].issuer"));
        match lack.filter(|_| !view.are_verified(Some(&jwt.issuer))) {
            Some(finding) => findings.push(finding),
            None => claims.push(of_jwt(consumer, index, jwt)),
        }
    }
    for given in &consumer.spec.keys {
        match key(view, consumer, given, &key_field(given.index)) {
            Ok(key) => claims.push(Claim { index: given.index, key: Arc::new(key) }),
            Err(finding) => findings.push(finding),
        }
    }
    claims
}

fn key_field(index: usize) -> String {
    format!("spec.keys[{index}]")
}

/// Those of the Consumer under each name of the mesh's domain, each once.
fn identities(view: View<'_>, consumer: &Object<Consumer>) -> Vec<Claim> {
    let mut names = BTreeMap::new();
    for (index, identity) in consumer.spec.identities.iter().enumerate() {
        let all = view.mesh().map_or_else(|| vec![identity.clone()], |mesh| mesh.aliases_of(identity));
        for name in all {
            names.entry(name).or_insert(index);
        }
    }
    let claim = |(name, index)| Claim { index, key: Arc::new(of_consumer(consumer, Proof::Identity(name), None)) };
    names.into_iter().map(claim).collect()
}

fn of_jwt(consumer: &Object<Consumer>, index: usize, jwt: &JwtClaims) -> Claim {
    let proof = Proof::Jwt(JwtProof::new(jwt.issuer.clone(), jwt.claims.clone()));
    Claim { index, key: Arc::new(of_consumer(consumer, proof, None)) }
}

/// Says whose a key, an identity or a JWT is. One that two Consumers claim is nobody's. Otherwise whoever copied a key would use
/// the other's models and budgets, or have the other pay.
pub fn settle(claims: &[(&Object<Consumer>, &Claim)], findings: &mut Vec<Finding>) -> Option<Arc<Key>> {
    let owners: BTreeSet<&Origin> = claims.iter().map(|(consumer, _)| &consumer.meta.origin).collect();
    let mut duplicate = |(consumer, claim): &(&Object<Consumer>, &Claim), message: String, hint: &str| {
        let (reason, field) = match claim.key.proof {
            Proof::Sha256(_) => (Reason::DuplicateKey, key_field(claim.index)),
            Proof::Identity(_) => (Reason::DuplicateIdentity, format!("spec.identities[{}]", claim.index)),
            Proof::Jwt(_) => (Reason::DuplicateClaims, format!("spec.claims[{}]", claim.index)),
        };
        findings.push(consumer.meta.finding(Severity::Error, reason, field, message, hint));
    };
    if owners.len() > 1 {
        for claim in claims {
            let own = &claim.0.meta.origin;
            let others: Vec<String> = owners.iter().filter(|owner| **owner != own).map(ToString::to_string).collect();
            let others = others.join(", ");
            let (message, hint) = match claim.1.key.proof {
                Proof::Sha256(_) => (refused("the key is", &others), "make new ones with tollgate key new"),
                Proof::Identity(_) => (refused("the identity is", &others), "one Consumer for each service account"),
                Proof::Jwt(_) => (refused("the entry is", &others), "one Consumer for the same claims"),
            };
            duplicate(claim, message, hint);
        }
        return None;
    }
    for again in claims.iter().skip(1) {
        duplicate(again, "the Consumer has the key already".to_owned(), "the first entry is used");
    }
    claims.first().map(|(_, claim)| Arc::clone(&claim.key))
}

fn refused(what: &str, others: &str) -> String {
    format!("{what} also one of {others}: it is refused for each")
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
    Ok(of_consumer(consumer, Proof::Sha256(sha256), key.not_after))
}

fn of_consumer(consumer: &Object<Consumer>, proof: Proof, not_after: Option<i64>) -> Key {
    Key {
        origin: consumer.meta.origin.clone(),
        proof,
        consumer: consumer.meta.origin.display_name(),
        labels: consumer.meta.labels.clone(),
        not_after,
        models: match &consumer.spec.models {
            Some(models) => AllowedModels::Only(models.clone()),
            None => AllowedModels::All,
        },
    }
}
