//! Token budgets: which bucket a request draws from, and its reservation there. The record of a bucket is a
//! [`Lease`], kept in shared data by all workers.

mod lease;

use std::rc::Rc;

use tollgate_proto::v1 as wire;

pub use self::lease::{Holder, Lease, Release, Reservation, Reserve, Settled};
use crate::{
    config::{Limit, Mode, ScopePart, WithoutLedger},
    host::{Contended, Shared, update},
};

/// The values that scopes are made of.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub consumer: &'a str,
    pub model: &'a str,
    pub route: &'a str,
    pub labels: &'a std::collections::BTreeMap<String, String>,
}

/// A limit for one request, with the name of its bucket's record.
#[derive(Debug, Clone)]
pub struct Budget {
    pub limit: Rc<Limit>,
    pub key: Rc<str>,
    pub values: Rc<[String]>,
}

// === impl Budget ===

impl Budget {
    pub fn new(limit: &Rc<Limit>, scope: &Scope<'_>) -> Self {
        let values: Rc<[String]> = limit
            .scope
            .iter()
            .map(|part| match part {
                ScopePart::Consumer => scope.consumer.to_owned(),
                ScopePart::Model => scope.model.to_owned(),
                ScopePart::Route => scope.route.to_owned(),
                ScopePart::Label(key) => scope.labels.get(key).cloned().unwrap_or_default(),
            })
            .collect();
        // Lengths keep apart what a separator could not: models are named by clients.
        let mut key = String::with_capacity(64);
        key.push_str("b/");
        key.push_str(&limit.id);
        for value in values.iter() {
            key.push('/');
            key.push_str(&value.len().to_string());
            key.push(':');
            key.push_str(value);
        }
        Self { limit: limit.clone(), key: key.into(), values }
    }

    pub fn bucket(&self) -> wire::Bucket {
        wire::Bucket { limit: self.limit.id.to_string(), scope: self.values.to_vec() }
    }

    pub fn without_ledger(&self) -> WithoutLedger {
        match self.limit.mode {
            Mode::Shadow => WithoutLedger::Allow,
            Mode::Enforce(without) => without,
        }
    }

    /// Reserves from the shared lease.
    pub fn reserve(
        &self,
        shared: &dyn Shared,
        holder: Holder,
        amount: u64,
        now: u64,
    ) -> Result<(Reserve, Lease, Option<Release>), Contended> {
        update(shared, &self.key, now, |record| {
            let before = Lease::decode(record);
            let (lease, reserve, release) = before.reserve(amount, now, holder);
            ((lease != before).then(|| lease.encode()), (reserve, lease, release))
        })
    }

    /// Gives a reservation back untouched.
    pub fn give_back(&self, shared: &dyn Shared, holder: Holder, reservation: &Reservation, now: u64) -> Settled {
        self.settle(shared, holder, reservation, 0, now)
    }

    /// Replaces a reservation by the truth.
    pub fn settle(
        &self,
        shared: &dyn Shared,
        holder: Holder,
        reservation: &Reservation,
        truth: u64,
        now: u64,
    ) -> Settled {
        let settled = update(shared, &self.key, now, |record| {
            let (lease, settled) = Lease::decode(record).settle(reservation, truth, now, holder);
            (Some(lease.encode()), settled)
        });
        settled.unwrap_or(Settled { from_lease: reservation.amount, release: None })
    }
}
