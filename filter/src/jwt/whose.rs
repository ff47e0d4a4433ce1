//! Whose a verified JWT is. A Consumer asks for an issuer and claims with values. The table of keys has such an entry by a
//! hash, so the filter is told which claims to look at ([`ClaimSet`]), and looks up what the payload has for them.
//!
//! Where several Consumers could be meant, the one that asks for the most claims is: `sub: alice` and `team: research`
//! before `team: research`. Two that ask for equally many are nobody.

use std::{borrow::Cow, rc::Rc};

use tollgate_proto::jwt::canonical;

use super::{Payload, Payloads};
use crate::{
    config::ClaimSet,
    key::{Caller, KeyHash, Proof},
};

/// A Consumer, and the payload that shows it.
#[derive(Debug)]
pub struct Whose<'p> {
    pub caller: Rc<Caller>,
    pub payload: &'p Payload<'p>,
}

/// Why nobody can say whose a JWT is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclear {
    /// Several Consumers ask for what it has.
    Several,
    /// Its lists have too many values.
    TooMuch,
}

/// The most look-ups for one request. A list in a JWT costs one for each of its values.
const MAX_LOOK_UPS: usize = 256;

/// `sets` come in order: those with the most claims first. None: it is nobody's.
pub fn whose<'p>(
    payloads: &'p Payloads<'p>,
    sets: &[ClaimSet],
    mut look_up: impl FnMut(Proof) -> Option<Rc<Caller>>,
) -> Result<Option<Whose<'p>>, Unclear> {
    let mut left = MAX_LOOK_UPS;
    let mut found: Option<(Whose<'p>, usize)> = None;
    for set in sets {
        if found.as_ref().is_some_and(|(_, claims)| *claims > set.claims.len()) {
            break;
        }
        for payload in payloads.0.iter().filter(|payload| *payload.issuer == *set.issuer) {
            for proof in proofs(set, payload) {
                left = left.checked_sub(1).ok_or(Unclear::TooMuch)?;
                let Some(caller) = look_up(proof) else { continue };
                match &found {
                    Some((other, _)) if other.caller.consumer != caller.consumer => return Err(Unclear::Several),
                    Some(_) => {}
                    None => found = Some((Whose { caller, payload }, set.claims.len())),
                }
            }
        }
    }
    Ok(found.map(|(whose, _)| whose))
}

/// What Consumers may have asked for that have this payload: one for each choice of a value of each claim.
fn proofs<'a>(set: &'a ClaimSet, payload: &'a Payload<'a>) -> impl Iterator<Item = Proof> + 'a {
    let values: Vec<Vec<Cow<'_, str>>> = set.claims.iter().map(|claim| payload.values(claim)).collect();
    let choices = values.iter().fold(1, |choices: usize, values| choices.saturating_mul(values.len()));
    (0..choices).map(move |choice| {
        let mut rest = choice;
        let claims = set.claims.iter().zip(&values).filter_map(|(name, values)| {
            let value = values.get(rest % values.len().max(1));
            rest /= values.len().max(1);
            Some((name.as_str(), &**value?))
        });
        Proof::Jwt(KeyHash::of(&canonical(&set.issuer, claims)))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::tests::metadata;
    use super::*;

    const IDP: &str = "https://idp.example";

    /// Consumers with what each asks for.
    struct Asked(Vec<(&'static str, &'static str, BTreeMap<String, String>)>);

    impl Asked {
        fn of(asked: &[(&'static str, &[(&str, &str)])]) -> Self {
            let texts = |claims: &[(&str, &str)]| -> BTreeMap<String, String> {
                claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
            };
            Self(asked.iter().map(|(consumer, claims)| (*consumer, IDP, texts(claims))).collect())
        }

        fn sets(&self) -> Vec<ClaimSet> {
            let sets = self.0.iter().map(|(_, issuer, claims)| ClaimSet {
                issuer: (*issuer).to_owned(),
                claims: claims.keys().cloned().collect(),
            });
            let mut sets: Vec<ClaimSet> = sets.collect();
            sets.sort_by_key(|set| (std::cmp::Reverse(set.claims.len()), set.claims.clone()));
            sets.dedup();
            sets
        }

        /// Whose this payload is, by the name of the Consumer.
        fn whose(&self, payload: &serde_json::Value) -> Result<Option<String>, Unclear> {
            let table: HashMap<Proof, Rc<Caller>> = self
                .0
                .iter()
                .map(|(consumer, issuer, claims)| {
                    let claims = claims.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                    let caller = Caller { consumer: (*consumer).into(), ..Caller::anonymous() };
                    (Proof::Jwt(KeyHash::of(&canonical(issuer, claims))), Rc::new(caller))
                })
                .collect();
            let metadata = metadata("envoy.filters.http.jwt_authn", &json!({"payload": payload}));
            let payloads = Payloads::read(&metadata).unwrap();
            let whose = whose(&payloads, &self.sets(), |proof| table.get(&proof).cloned())?;
            Ok(whose.map(|whose| whose.caller.consumer.to_string()))
        }
    }

    #[test]
    fn all_claims_and_the_issuer_must_be_there() {
        let asked = Asked::of(&[("both", &[("sub", "alice"), ("team", "research")])]);
        let whose = |payload| asked.whose(&payload).unwrap();
        assert_eq!(whose(json!({"iss": IDP, "sub": "alice", "team": "research", "x": 1})).as_deref(), Some("both"));
        assert_eq!(whose(json!({"iss": IDP, "sub": "alice"})), None);
        assert_eq!(whose(json!({"iss": IDP, "sub": "alice", "team": "sales"})), None);
        assert_eq!(whose(json!({"iss": IDP, "sub": "research", "team": "alice"})), None);
        assert_eq!(whose(json!({"iss": "https://evil.example", "sub": "alice", "team": "research"})), None);
        assert_eq!(whose(json!({"sub": "alice", "team": "research"})), None);
    }

    #[test]
    fn a_list_has_each_of_its_values() {
        let asked = Asked::of(&[("admins", &[("groups", "admin"), ("level", "3")])]);
        let whose = |payload| asked.whose(&payload).unwrap();
        assert_eq!(whose(json!({"iss": IDP, "groups": ["a", "admin"], "level": [1, 3]})).as_deref(), Some("admins"));
        assert_eq!(whose(json!({"iss": IDP, "groups": "admin", "level": 3})).as_deref(), Some("admins"));
        assert_eq!(whose(json!({"iss": IDP, "groups": ["a", "b"], "level": 3})), None);
        assert_eq!(whose(json!({"iss": IDP, "groups": [], "level": 3})), None);
        assert_eq!(whose(json!({"iss": IDP, "groups": ["a,admin"], "level": 3})), None);
    }

    #[test]
    fn the_most_claims_win_and_equally_many_are_nobody() {
        let asked = Asked::of(&[
            ("any", &[]),
            ("research", &[("team", "research")]),
            ("alice", &[("team", "research"), ("sub", "alice")]),
            ("bob", &[("sub", "bob")]),
            ("red", &[("groups", "red")]),
            ("blue", &[("groups", "blue")]),
        ]);
        let whose = |payload| asked.whose(&payload);
        assert_eq!(whose(json!({"iss": IDP, "team": "research", "sub": "alice"})), Ok(Some("alice".to_owned())));
        assert_eq!(whose(json!({"iss": IDP, "team": "research", "sub": "carol"})), Ok(Some("research".to_owned())));
        assert_eq!(whose(json!({"iss": IDP, "sub": "carol"})), Ok(Some("any".to_owned())));
        assert_eq!(whose(json!({"iss": IDP, "team": "research", "sub": "bob"})), Err(Unclear::Several));
        assert_eq!(whose(json!({"iss": IDP, "groups": ["red", "blue"]})), Err(Unclear::Several));
        assert_eq!(whose(json!({"iss": IDP, "groups": ["red", "green"]})), Ok(Some("red".to_owned())));
    }

    #[test]
    fn only_so_much_is_looked_up() {
        let asked = Asked::of(&[("one", &[("groups", "last"), ("roles", "last")])]);
        let list =
            |len: usize| (1..len).map(|number| number.to_string()).chain(["last".to_owned()]).collect::<Vec<_>>();
        let with = |len: usize| asked.whose(&json!({"iss": IDP, "groups": list(len), "roles": list(len)}));
        assert_eq!(with(16), Ok(Some("one".to_owned())));
        assert_eq!(with(17), Err(Unclear::TooMuch));
        assert_eq!(with(500), Err(Unclear::TooMuch));
    }

    #[test]
    fn a_client_cannot_show_claims_as_a_key() {
        let text = canonical(IDP, [("sub", "alice")].into_iter());
        assert_ne!(Proof::of_key(&text).record(), Proof::Jwt(KeyHash::of(&text)).record());
        assert!(Proof::Jwt(KeyHash::of(&text)).record().starts_with("k/jwt/"));
    }

    proptest! {
        /// The same as a search through all Consumers.
        #[test]
        fn look_ups_find_what_a_search_finds(
            asked in proptest::collection::vec((0usize..4, proptest::collection::btree_map("[ab]", "[xy]", 0..3)), 0..6),
            payload in proptest::collection::btree_map("[ab]", proptest::collection::vec("[xy]", 0..3), 0..3),
        ) {
            const NAMES: [&str; 4] = ["c0", "c1", "c2", "c3"];
            // What two Consumers ask for is in no table.
            let mut once: BTreeMap<_, usize> = BTreeMap::new();
            for (consumer, claims) in &asked {
                once.entry(claims.clone()).or_insert(*consumer);
            }
            let has = |(name, value): (&String, &String)| payload.get(name).is_some_and(|values| values.contains(value));
            let fit: Vec<_> = once.iter().filter(|(claims, _)| claims.iter().all(has)).collect();
            let most = fit.iter().map(|(claims, _)| claims.len()).max();
            let mut best: Vec<_> =
                fit.iter().filter(|(claims, _)| Some(claims.len()) == most).map(|(_, consumer)| **consumer).collect();
            best.sort_unstable();
            best.dedup();
            let expected = match best.as_slice() {
                [] => Ok(None),
                [consumer] => Ok(Some(NAMES[*consumer].to_owned())),
                _ => Err(Unclear::Several),
            };
            let asked = Asked(once.into_iter().map(|(claims, consumer)| (NAMES[consumer], IDP, claims)).collect());
            let mut payload = serde_json::to_value(&payload).unwrap();
            payload["iss"] = json!(IDP);
            prop_assert_eq!(asked.whose(&payload), expected);
        }
    }
}
