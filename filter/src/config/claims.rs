//! Which claims of verified JWTs are looked at: to know a Consumer, and to know its budget.

use std::rc::Rc;

use tollgate_proto::{
    jwt::{MAX_CLAIMS, MAX_SETS},
    v1 as wire,
};

use super::{InvalidConfig, Limit, ScopePart};

#[derive(Debug, Default)]
pub struct Claims {
    /// Those with the most claims first.
    pub sets: Vec<ClaimSet>,
    are_in_scopes: bool,
}

/// What Consumers ask of the JWTs of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimSet {
    pub issuer: String,
    /// In order. None: any JWT of the issuer.
    pub claims: Vec<String>,
}

// === impl Claims ===

impl Claims {
    pub(super) fn new(sets: Vec<wire::ClaimSet>, limits: &[Rc<Limit>]) -> Result<Self, InvalidConfig> {
        if sets.len() > MAX_SETS {
            return Err(InvalidConfig::ClaimSets(sets.len()));
        }
        let sets = sets.into_iter().map(ClaimSet::try_from).collect::<Result<Vec<_>, _>>()?;
        // The first that fits is taken.
        if !sets.is_sorted_by(|one, next| one.claims.len() >= next.claims.len()) {
            return Err(InvalidConfig::Missing { what: "the order", place: "the claims".to_owned() });
        }
        let is_claim = |part: &ScopePart| matches!(part, ScopePart::Claim(_));
        let are_in_scopes = limits.iter().any(|limit| limit.scope.iter().any(is_claim));
        Ok(Self { sets, are_in_scopes })
    }

    /// Whether anything of a JWT is looked at. Asking Envoy for it costs microseconds.
    pub fn are_wanted(&self) -> bool {
        !self.sets.is_empty() || self.are_in_scopes
    }
}

impl TryFrom<wire::ClaimSet> for ClaimSet {
    type Error = InvalidConfig;

    fn try_from(set: wire::ClaimSet) -> Result<Self, InvalidConfig> {
        let wire::ClaimSet { issuer, claims } = set;
        let place = || format!("the claims of issuer {issuer:?}");
        if issuer.is_empty() {
            return Err(InvalidConfig::Missing { what: "issuer", place: place() });
        }
        // Otherwise the hash would be another one than the control plane's.
        if claims.len() > MAX_CLAIMS || !claims.is_sorted_by(|one, next| one < next) {
            return Err(InvalidConfig::Missing { what: "the order", place: place() });
        }
        Ok(Self { issuer, claims })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(claims: &[&str]) -> wire::ClaimSet {
        wire::ClaimSet { issuer: "i".into(), claims: claims.iter().map(|claim| (*claim).to_owned()).collect() }
    }

    #[test]
    fn the_most_claims_come_first() {
        let claims = Claims::new(vec![set(&["a", "b"]), set(&["c"]), set(&["d"]), set(&[])], &[]).unwrap();
        assert_eq!(claims.sets.len(), 4);
        assert!(claims.are_wanted() && !Claims::default().are_wanted());
        let unordered = InvalidConfig::Missing { what: "the order", place: "the claims".to_owned() };
        assert_eq!(Claims::new(vec![set(&[]), set(&["c"])], &[]).unwrap_err(), unordered);
    }

    #[test]
    fn what_was_made_otherwise_is_refused() {
        let refused = |sets: Vec<wire::ClaimSet>| Claims::new(sets, &[]).unwrap_err();
        let unordered = InvalidConfig::Missing { what: "the order", place: "the claims of issuer \"i\"".to_owned() };
        assert_eq!(refused(vec![set(&["b", "a"])]), unordered);
        assert_eq!(refused(vec![set(&["a", "a"])]), unordered);
        let names: Vec<String> = (0..MAX_CLAIMS + 2).map(|number| format!("c{number:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(refused(vec![set(&names)]), unordered, "two more than are looked at");
        assert!(Claims::new(vec![set(&names[..MAX_CLAIMS])], &[]).is_ok());
        let nobody = wire::ClaimSet::default();
        let missing = InvalidConfig::Missing { what: "issuer", place: "the claims of issuer \"\"".to_owned() };
        assert_eq!(refused(vec![nobody]), missing);
        assert_eq!(refused(vec![set(&[]); MAX_SETS + 1]), InvalidConfig::ClaimSets(MAX_SETS + 1));
    }
}
