//! Token budgets: which bucket a request draws from, and its reservation there. All workers share one record for each
//! bucket in shared data, a [`Lease`]. Of busy ones each worker keeps a part to itself ([`crate::slices`]).

mod holder;
mod lease;

use std::rc::Rc;

use tollgate_proto::v1 as wire;

pub use self::{
    holder::Holder,
    lease::{Lease, Rate, Release, Reservation, Reserve, Settled},
};
use crate::{
    config::{Limit, Mode, ScopePart, WithoutLedger},
    host::Shared,
};

/// The values that scopes are made of.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub consumer: &'a str,
    pub model: &'a str,
    pub route: &'a str,
    pub labels: &'a tollgate_proto::Map,
    /// Of the JWT that Envoy has verified.
    pub claims: &'a tollgate_proto::Map,
}

/// Who takes tokens, and when.
#[derive(Clone, Copy)]
pub struct Counter<'a> {
    pub shared: &'a dyn Shared,
    /// The worker's number. The lease notes under it what the worker has taken.
    pub worker: u64,
    pub holder: Holder,
    /// Unix milliseconds, by this host's clock.
    pub now: u64,
}

/// What tokens are counted in: a limit and the values of its scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// The name of its record in shared data.
    pub key: Rc<str>,
    pub limit: Rc<str>,
    pub values: Rc<[String]>,
}

/// A limit for one request, with its bucket.
#[derive(Debug, Clone)]
pub struct Budget {
    pub limit: Rc<Limit>,
    pub bucket: Bucket,
}

// === impl Bucket ===

impl Bucket {
    pub fn new(limit: Rc<str>, values: Vec<String>) -> Self {
        // Each value has its length in front, because clients name models and could write any separator.
        let mut key = String::with_capacity(64);
        key.push_str("b/");
        key.push_str(&limit);
        for value in &values {
            key.push('/');
            key.push_str(&value.len().to_string());
            key.push(':');
            key.push_str(value);
        }
        Self { key: key.into(), limit, values: values.into() }
    }

    pub fn wire(&self) -> wire::Bucket {
        wire::Bucket { limit: self.limit.to_string(), scope: self.values.to_vec() }
    }
}

// === impl Budget ===

impl Budget {
    pub fn new(limit: &Rc<Limit>, scope: &Scope<'_>) -> Self {
        let values = limit.scope.iter().map(|part| match part {
            ScopePart::Consumer => scope.consumer.to_owned(),
            ScopePart::Model => scope.model.to_owned(),
            ScopePart::Route => scope.route.to_owned(),
            ScopePart::Label(key) => scope.labels.get(key).cloned().unwrap_or_default(),
            ScopePart::Claim(name) => scope.claims.get(name).cloned().unwrap_or_default(),
        });
        Self { limit: limit.clone(), bucket: Bucket::new(limit.id.clone(), values.collect()) }
    }

    pub fn without_ledger(&self) -> WithoutLedger {
        match self.limit.mode {
            Mode::Shadow => WithoutLedger::Allow,
            Mode::Enforce(without) => without,
        }
    }
}
