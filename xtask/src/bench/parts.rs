//! The lanes that leave parts of the chain out one by one, by sending requests to other routes of the same Envoy.

use std::time::Duration;

use crate::bench::config;
use crate::bench::lane::{Build, Lane, Way, Work};
use crate::bench::load::Entry;
use crate::bench::responder::Answer;
use crate::bench::sidecar::Filter;

pub const PATH: &str = "/v1/chat/completions";
/// Bytes of a prompt, and of what is around it, unless the work says otherwise.
pub const PROMPT: usize = 1_920;
pub const TEN_EVENTS: Answer = Answer::Events { count: 8, every: Duration::ZERO };

pub const PLAIN: &str = "plain Envoy";
pub const PLAIN_EVENTS: &str = "plain Envoy, events";
pub const NOOP: &str = "no-op wasm";
pub const BARE: &str = "no filter";
pub const PASSES_BY: &str = "filter passes by";
pub const ANONYMOUS: &str = "anonymous, no budget";
pub const KEY: &str = "key, no budget";
pub const BUDGET: &str = "key and budget";
pub const FAILOVER: &str = "the same with failover";
pub const BUDGET_EVENTS: &str = "key and budget, events";
pub const PLAIN_HOST: &str = "a host without pools";
pub const NATIVE_PASSES_BY: &str = "module passes by";
pub const NATIVE: &str = "module, key and budget";
pub const NATIVE_FAILOVER: &str = "module, with failover";
pub const NATIVE_EVENTS: &str = "module, events";

/// The way through the whole chain.
pub fn budget() -> Entry {
    Entry::with_key(format!("/budget{PATH}"), "smol", config::KEY)
}

pub fn unguarded() -> Entry {
    Entry::new(PATH, "smol", &[])
}

fn chats(name: &'static str, way: Way, entry: &Entry) -> Lane {
    Lane::new(name, Work::Chats, way, entry.request(PROMPT, Answer::Whole))
}

fn events(name: &'static str, way: Way, entry: &Entry) -> Lane {
    Lane::new(name, Work::Events, way, entry.request(PROMPT, TEN_EVENTS))
}

/// The parts of each build.
pub fn lanes(builds: &[Build]) -> Vec<Lane> {
    let open = |prefix: &str| Entry::new(format!("/{prefix}{PATH}"), "smol", &[]);
    let with_key = |prefix: &str, model| Entry::with_key(format!("/{prefix}{PATH}"), model, config::KEY);
    let of = |build: Build| {
        let (bare, chain) = (Way::Bare(build), Way::Chain(build));
        [
            chats(BARE, bare, &open("bare")).over(PLAIN, "listener and route as we make them"),
            chats(PASSES_BY, chain, &open("pass")).over(BARE, "+ entering wasm"),
            chats(ANONYMOUS, chain, &open("open")).over(PASSES_BY, "+ body, model, routing, usage"),
            chats(KEY, chain, &with_key("key", "smol")).over(ANONYMOUS, "+ key"),
            chats(BUDGET, chain, &budget()).over(KEY, "+ reservation, settlement"),
            chats(FAILOVER, chain, &with_key("budget", "pair")).over(BUDGET, "+ the filter of each attempt"),
            events(BUDGET_EVENTS, chain, &budget()).over(PLAIN_EVENTS, ""),
        ]
    };
    let mut lanes = vec![
        chats(PLAIN, Way::Plain, &unguarded()),
        events(PLAIN_EVENTS, Way::Plain, &unguarded()),
        chats(NOOP, Way::Noop, &unguarded()).over(PLAIN, ""),
    ];
    lanes.extend(builds.iter().copied().flat_map(of));
    lanes
}

/// What is measured besides of this build: where there is no filter, and where it is a dynamic module.
pub fn more() -> Vec<Lane> {
    let native = Way::Chain(Build::Native);
    let pass = Entry::new(format!("/pass{PATH}"), "smol", &[]);
    let failover = Entry::with_key(format!("/budget{PATH}"), "pair", config::KEY);
    vec![
        chats(PLAIN_HOST, Way::Chain(Build::This), &unguarded().at(config::PLAIN_HOST)).over(PLAIN, ""),
        chats(NATIVE_PASSES_BY, native, &pass).over(PLAIN, ""),
        chats(NATIVE, native, &budget()).over(PLAIN, ""),
        chats(NATIVE_FAILOVER, native, &failover).over(PLAIN, ""),
        events(NATIVE_EVENTS, native, &budget()).over(PLAIN_EVENTS, ""),
    ]
}

/// What `--sidecar` measures.
pub fn of_sidecars() -> Vec<Lane> {
    let by_key = Entry::with_key(PATH, "smol", config::KEY);
    let sidecar = |name, filter, entry: &Entry| chats(name, Way::Sidecar(filter), entry);
    vec![
        chats(PLAIN, Way::Plain, &unguarded()),
        chats(BUDGET, Way::Chain(Build::This), &budget()).over(PLAIN, ""),
        sidecar("plain sidecar", Filter::None, &unguarded()),
        sidecar("sidecar, key and budget", Filter::Key, &by_key).over("plain sidecar", ""),
        sidecar("the same by its identity", Filter::Identity, &unguarded()).over("plain sidecar", ""),
    ]
}
