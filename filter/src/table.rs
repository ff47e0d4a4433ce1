//! The table of keys, kept by a client of delta xDS. One worker of the process is the leader: it holds the stream and
//! writes what comes into shared data, where every worker looks keys up.
//!
//! A leader that has just taken over does not know what the table has. So it subscribes afresh and writes under the
//! next generation. Once its first response is written, older records no longer count.

use tollgate_proto::{
    Map,
    delta::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status},
    v1::API_KEY_TYPE,
};

use crate::{
    host::{Shared, read_u64, update},
    key::{Table, record, record_name, tombstone},
};

/// A leader that has given no sign for this time is replaced. It gives one at each tick, which may be a second apart.
const LEADER_STALE_MS: u64 = 3000;
const RETRY_MS: (u64, u64) = (100, 5000);
const INVALID_ARGUMENT: i32 = 3;

/// One VM's part in keeping the table.
#[derive(Debug, Default)]
pub enum Keeper {
    /// Another VM leads.
    #[default]
    Follower,
    Leader(Leader),
}

#[derive(Debug)]
pub struct Leader {
    /// The version of each key that the table has, by name. A reconnect sends them.
    versions: Map,
    generation: Generation,
    stream: Stream,
    failures: u32,
}

/// The generation that this leader writes its records under.
#[derive(Debug, Clone, Copy)]
enum Generation {
    /// The first response has not come, so older records still count.
    Next(u32),
    Current(u32),
}

#[derive(Debug)]
enum Stream {
    Closed { reopen_at: u64 },
    Open(u32),
}

/// What the host is to do.
#[derive(Debug, PartialEq)]
pub enum Step {
    Nothing,
    /// Open a stream, then call `opened`.
    Open,
    /// Close the stream with this token, because another worker leads now.
    Close(u32),
}

/// The record of who leads and when it last said so. Worker 0: nobody leads.
const LEADER: &str = "leader";

/// The records that must be there before workers start.
pub const RECORDS: [&str; 2] = [LEADER, Table::RECORD];

// === impl Keeper ===

impl Keeper {
    /// Takes or keeps the leadership, and says what is to be done. Every tick calls it.
    pub fn tick(&mut self, shared: &dyn Shared, me: u64, now: u64) -> Step {
        let leads = update(shared, LEADER, now, |record| {
            let holder = read_u64(record);
            let seen = record.get(8..).map_or(0, read_u64);
            let mine = holder == me || holder == 0 || now >= seen.saturating_add(LEADER_STALE_MS);
            (mine.then(|| [me.to_le_bytes(), now.to_le_bytes()].concat()), mine)
        });
        match (self, leads.unwrap_or(false)) {
            (Self::Leader(leader), true) => match leader.stream {
                Stream::Closed { reopen_at } if now >= reopen_at => Step::Open,
                Stream::Closed { .. } | Stream::Open(_) => Step::Nothing,
            },
            (keeper @ Self::Follower, true) => {
                let next = Table::read(shared).generation().saturating_add(1);
                *keeper = Self::Leader(Leader {
                    versions: Map::default(),
                    generation: Generation::Next(next),
                    stream: Stream::Closed { reopen_at: now },
                    failures: 0,
                });
                Step::Open
            }
            (keeper @ Self::Leader(_), false) => match std::mem::take(keeper) {
                Self::Leader(Leader { stream: Stream::Open(token), .. }) => Step::Close(token),
                _ => Step::Nothing,
            },
            (Self::Follower, false) => Step::Nothing,
        }
    }

    /// Whether nothing is to be done before something comes on the stream.
    pub fn is_at_rest(&self) -> bool {
        !matches!(self, Self::Leader(Leader { stream: Stream::Closed { .. }, .. }))
    }

    /// A stream was opened. Returns the first request on it.
    pub fn opened(&mut self, token: u32, node: &str) -> Option<DeltaDiscoveryRequest> {
        let Self::Leader(leader) = self else {
            return None;
        };
        leader.stream = Stream::Open(token);
        Some(DeltaDiscoveryRequest {
            node: Some(Node { id: node.to_owned(), cluster: String::new() }),
            type_url: API_KEY_TYPE.to_owned(),
            initial_resource_versions: leader.versions.clone(),
            ..DeltaDiscoveryRequest::default()
        })
    }

    /// A stream has ended, or could not be opened (`token`: None). `random` keeps proxies from coming back together.
    pub fn closed(&mut self, token: Option<u32>, now: u64, random: u64) {
        let Self::Leader(leader) = self else { return };
        if matches!((token, &leader.stream), (Some(token), Stream::Open(current)) if token != *current) {
            return;
        }
        let pause = RETRY_MS.0.saturating_mul(1 << leader.failures.min(6)).min(RETRY_MS.1);
        leader.failures = leader.failures.saturating_add(1);
        leader.stream = Stream::Closed { reopen_at: now.saturating_add(pause / 2).saturating_add(random % pause) };
    }

    /// The context that held the stream is gone, and the stream with it.
    pub fn orphaned(&mut self, now: u64) -> Option<u32> {
        let Self::Leader(leader) = self else {
            return None;
        };
        match std::mem::replace(&mut leader.stream, Stream::Closed { reopen_at: now }) {
            Stream::Open(token) => Some(token),
            Stream::Closed { .. } => None,
        }
    }

    pub fn is_current(&self, token: u32) -> bool {
        matches!(self, Self::Leader(Leader { stream: Stream::Open(current), .. }) if *current == token)
    }

    /// Writes a response into the table. Returns the ACK or NACK.
    pub fn received(&mut self, shared: &dyn Shared, response: DeltaDiscoveryResponse) -> Option<DeltaDiscoveryRequest> {
        let Self::Leader(leader) = self else {
            return None;
        };
        leader.failures = 0;
        let mut reply = DeltaDiscoveryRequest {
            type_url: API_KEY_TYPE.to_owned(),
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        if response.type_url != API_KEY_TYPE {
            let message = format!("the filter asked for {API_KEY_TYPE}");
            reply.error_detail = Some(Status { code: INVALID_ARGUMENT, message });
            return Some(reply);
        }
        let generation = leader.generation.number();
        for resource in response.resources {
            let key = resource.resource.map(|any| any.value).unwrap_or_default();
            let _ = shared.set(&record_name(&resource.name), &record(generation, &key), None);
            leader.versions.insert(resource.name, resource.version);
        }
        for name in response.removed_resources {
            let _ = shared.set(&record_name(&name), &tombstone(), None);
            leader.versions.remove(&name);
        }
        if let Generation::Next(generation) = leader.generation {
            leader.generation = Generation::Current(generation);
            Table::Ready(generation).write(shared);
        }
        Some(reply)
    }
}

impl Generation {
    fn number(self) -> u32 {
        match self {
            Self::Next(generation) | Self::Current(generation) => generation,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tollgate_proto::{
        delta::{Any, Resource},
        v1::ApiKey,
    };

    use super::*;
    use crate::{
        host::{FakeShared, prepare},
        key::{InvalidKey, Proof, look_up},
    };

    fn hash(key: &str) -> Proof {
        Proof::of_key(key.as_bytes())
    }

    fn name(key: &str) -> String {
        hash(key).record().split_off(2)
    }

    fn response(nonce: &str, keys: &[&str], removed: &[&str]) -> DeltaDiscoveryResponse {
        let resource = |key: &&str| Resource {
            version: "1".into(),
            name: name(key),
            resource: Some(Any {
                type_url: API_KEY_TYPE.into(),
                value: ApiKey { consumer: (*key).to_owned(), all_models: true, ..Default::default() }.encode_to_vec(),
            }),
        };
        DeltaDiscoveryResponse {
            type_url: API_KEY_TYPE.into(),
            nonce: nonce.into(),
            resources: keys.iter().map(resource).collect(),
            removed_resources: removed.iter().map(|key| name(key)).collect(),
            ..Default::default()
        }
    }

    fn knows(shared: &FakeShared, key: &str) -> bool {
        match look_up(shared, &hash(key), Table::read(shared).generation(), 0) {
            Ok(caller) => &*caller.consumer == key,
            Err(InvalidKey::Unknown | InvalidKey::Expired) => false,
        }
    }

    fn shared() -> FakeShared {
        let shared = FakeShared::default();
        prepare(&shared, &RECORDS.map(|name| (name, [0; 16].as_slice())));
        shared
    }

    #[test]
    fn one_leads_and_another_takes_over() {
        let shared = shared();
        let (mut a, mut b) = (Keeper::default(), Keeper::default());
        assert_eq!(a.tick(&shared, 1, 1000), Step::Open);
        assert_eq!(b.tick(&shared, 2, 1000), Step::Nothing);
        let first = a.opened(7, "node").unwrap();
        assert!(first.resource_names_subscribe.is_empty() && first.initial_resource_versions.is_empty());
        assert_eq!(Table::read(&shared), Table::Empty);
        let ack = a.received(&shared, response("n1", &["x", "y"], &[])).unwrap();
        assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("n1", None));
        assert_eq!(ack.type_url, API_KEY_TYPE);
        assert!(knows(&shared, "x") && knows(&shared, "y") && !knows(&shared, "z"));

        assert_eq!(b.tick(&shared, 2, 3999), Step::Nothing);
        assert_eq!(b.tick(&shared, 2, 4000), Step::Open);
        b.opened(9, "node").unwrap();
        assert!(knows(&shared, "x"), "the old table counts until the new one is there");
        b.received(&shared, response("n1", &["y"], &[])).unwrap();
        assert!(!knows(&shared, "x") && knows(&shared, "y"));
        assert_eq!(a.tick(&shared, 1, 4001), Step::Close(7));
    }

    #[test]
    fn a_reconnect_resends_only_what_differs() {
        let shared = shared();
        let mut keeper = Keeper::default();
        keeper.tick(&shared, 1, 1000);
        keeper.opened(7, "node");
        keeper.received(&shared, response("n1", &["x", "y"], &[]));
        keeper.closed(Some(7), 1000, 0);
        assert_eq!(keeper.tick(&shared, 1, 1010), Step::Nothing);
        assert_eq!(keeper.tick(&shared, 1, 1400), Step::Open);
        let again = keeper.opened(8, "node").unwrap();
        assert_eq!(again.initial_resource_versions.len(), 2);
        assert!(knows(&shared, "x"), "keys stay while the control plane is away");
        keeper.received(&shared, response("n1", &["z"], &["x"]));
        assert!(!knows(&shared, "x") && knows(&shared, "y") && knows(&shared, "z"));
    }

    #[test]
    fn a_foreign_type_is_refused() {
        let shared = shared();
        let mut keeper = Keeper::default();
        keeper.tick(&shared, 1, 1000);
        keeper.opened(7, "node");
        let nack =
            keeper.received(&shared, DeltaDiscoveryResponse { type_url: "other".into(), ..response("n", &[], &[]) });
        assert!(nack.unwrap().error_detail.is_some());
        assert_eq!(Table::read(&shared), Table::Empty);
        assert!(!keeper.is_current(6) && keeper.is_current(7));
        assert_eq!(keeper.orphaned(0), Some(7));
    }

    #[test]
    fn a_leader_is_replaced_when_it_is_silent() {
        let shared = shared();
        let (mut a, mut b) = (Keeper::default(), Keeper::default());
        a.tick(&shared, 1, 1000);
        a.opened(7, "node");
        assert_eq!(a.tick(&shared, 1, 1400), Step::Nothing);
        assert_eq!(b.tick(&shared, 2, 1400 + LEADER_STALE_MS - 1), Step::Nothing);
        assert_eq!(b.tick(&shared, 2, 1400 + LEADER_STALE_MS), Step::Open);
        assert_eq!(a.tick(&shared, 1, 1401 + LEADER_STALE_MS), Step::Close(7));
        assert_eq!(a.tick(&shared, 1, 1402 + LEADER_STALE_MS), Step::Nothing);
    }

    #[test]
    fn a_follower_has_no_stream() {
        let mut keeper = Keeper::default();
        assert_eq!(keeper.opened(7, "node"), None);
        assert_eq!(keeper.received(&shared(), response("n", &["x"], &[])), None);
        assert_eq!((keeper.orphaned(0), keeper.is_current(7)), (None, false));
    }

    #[test]
    fn the_pause_before_a_stream_grows_to_a_bound_and_is_spread_out() {
        let shared = shared();
        let mut keeper = Keeper::default();
        keeper.tick(&shared, 1, 0);
        let mut now = 0;
        for (pause, random) in
            [(100, 0), (200, 199), (400, 0), (800, 799), (1600, 0), (3200, 3199), (5000, 0), (5000, 4999)]
        {
            keeper.opened(7, "node");
            keeper.closed(Some(6), now, 0);
            assert_eq!(keeper.tick(&shared, 1, now + 60_000), Step::Nothing, "another stream has ended");
            keeper.closed(Some(7), now, random + pause);
            // Half the pause, and up to a whole one by chance.
            let reopens = now + pause / 2 + random;
            assert_eq!(keeper.tick(&shared, 1, reopens - 1), Step::Nothing, "{pause} {random}");
            assert_eq!(keeper.tick(&shared, 1, reopens), Step::Open, "{pause} {random}");
            now += 60_000;
        }
        keeper.opened(8, "node");
        keeper.received(&shared, response("n", &[], &[]));
        keeper.closed(Some(8), now, 0);
        assert_eq!(keeper.tick(&shared, 1, now + 50), Step::Open, "an answer ends the row of failures");
    }
}
