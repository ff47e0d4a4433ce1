//! A request that passes a Gateway and the sidecar of a runner is charged once. The Gateway's proxy says in a header whose
//! request it is and which limits it is charged to; the sidecar charges what is left of its own limits, in the same names.
//!
//! The header is believed of a peer alone that is a Gateway's proxy by its certificate. It is removed on arrival, whoever
//! sends it.

use std::rc::Rc;

use prost::Message as _;
use tollgate_proto::v1 as wire;

use crate::{
    config::{Class, Limit, Terms},
    key::{AllowedModels, Caller},
};

pub const HEADER: &str = "x-tollgate-handover";

/// What a Gateway has said, as far as it is of use to a sidecar.
#[derive(Debug)]
pub struct Handover {
    pub caller: Rc<Caller>,
    /// The model's name in the Gateway's pool.
    pub model: Rc<str>,
    /// Ids of the limits that the request is charged to.
    charged: Vec<String>,
}

/// A header that is longer says nothing. Envoy takes 60 KiB of headers.
const MAX_BYTES: usize = 16 << 10;

/// The header's value.
pub fn said(caller: &Caller, model: &str, limits: &[Rc<Limit>]) -> String {
    let handover = wire::Handover {
        consumer: caller.consumer.to_string(),
        labels: caller.labels.clone(),
        model: model.to_owned(),
        limits: limits.iter().map(|limit| limit.id.to_string()).collect(),
    };
    crate::key::hex(&handover.encode_to_vec())
}

// === impl Handover ===

impl Handover {
    /// None: it is not one. Then the request is one like all.
    pub fn read(value: &[u8]) -> Option<Self> {
        let bytes = bytes(value).filter(|_| value.len() <= MAX_BYTES)?;
        let read = wire::Handover::decode(bytes.as_slice()).ok()?;
        if read.consumer.is_empty() || read.model.is_empty() {
            return None;
        }
        // What it may use, the Gateway has decided.
        let caller = Caller {
            consumer: read.consumer.into(),
            namespace: Rc::from(""),
            labels: read.labels,
            models: AllowedModels::All,
            not_after: None,
        };
        Some(Self { caller: Rc::new(caller), model: read.model.into(), charged: read.limits })
    }

    /// The terms without the limits that the request is charged to already. None: nothing is left, and nothing is closed.
    pub fn rest(&self, class: &Class) -> Option<Class> {
        let Class::Open(terms) = class else { return Some(class.clone()) };
        let is_left = |limit: &&Rc<Limit>| !self.charged.iter().any(|charged| **charged == *limit.id);
        let limits: Vec<Rc<Limit>> = terms.limits.iter().filter(is_left).cloned().collect();
        (!limits.is_empty()).then(|| Class::Open(Rc::new(Terms { pool: terms.pool.clone(), limits })))
    }
}

/// Reads lowercase hex.
fn bytes(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(16 * digit(*high)? + digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_said_is_read_and_anything_else_does_no_harm(
            consumer in "[a-z/]{1,20}",
            label in "[a-z]{0,8}",
            model in "\\PC{1,20}",
            other in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let caller = Caller {
                consumer: consumer.as_str().into(),
                namespace: Rc::from("default"),
                labels: [("team".to_owned(), label.clone())].into(),
                models: AllowedModels::Only(Vec::new()),
                not_after: Some(1),
            };
            let said = said(&caller, &model, &[]);
            prop_assert!(said.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let read = Handover::read(said.as_bytes()).unwrap();
            prop_assert_eq!((&*read.caller.consumer, &*read.model), (consumer.as_str(), model.as_str()));
            prop_assert_eq!(read.caller.labels.get("team"), Some(&label));
            prop_assert_eq!(&read.caller.models, &AllowedModels::All, "the Gateway has decided about it");
            let _ = Handover::read(&other);
            let _ = Handover::read(crate::key::hex(&other).as_bytes());
        }
    }
}
