//! Steps of the roots, on the main thread. What a root orders is carried out as in the other edge
//! (`filter/src/envoy/root.rs`), with one difference: held requests are woken each on its own thread, and the root hears
//! of it when all have tried again.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU32, Ordering},
};

use tollgate_filter::{
    root::{LIVELY_MS, RootEvent, RootOrder},
    stream::Callback,
};

use crate::{
    grpc,
    host::{self, Config, Started, Unsent},
    island::{self, Island, Woken},
    plugin::{self, Call, News, Notice, Plugin, Sort},
};

const CALL_TIMEOUT_MS: u64 = 1000;
/// The stream of keys lasts as long as the connection.
const NO_TIMEOUT: u64 = 0;
const LEDGER: &str = "/tollgate.v1.Ledger/Sync";
const KEYS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

static TOKENS: AtomicU32 = AtomicU32::new(0);

/// A notice has come.
pub fn noticed(plugin: &Plugin, notice: Notice) {
    match notice {
        Notice::Tick => tick(plugin),
        Notice::Rang { island } => step(plugin, island, RootEvent::Rang),
        Notice::WokenByLedger { island } => step(plugin, island, RootEvent::Woken(Callback::LedgerAnswered)),
        Notice::WokenByTick { island } => step(plugin, island, RootEvent::Woken(Callback::Tick)),
    }
}

/// Has the root of the worker hear that its wake is over. From any thread.
pub fn tell_woken(island: usize, woken: Woken) {
    let notice = match woken.callback {
        Callback::LedgerAnswered => Notice::WokenByLedger { island },
        _ => Notice::WokenByTick { island },
    };
    if let Some(plugin) = plugin::of_number(woken.plugin) {
        plugin.tell(notice);
    }
}

fn tick(plugin: &Plugin) {
    plugin.ticked();
    let lost = plugin.calls().take_lost();
    lost.into_iter().for_each(|call| tell(plugin, call, News::Ended { status: grpc::UNAVAILABLE, answer: None }));
    for (number, island) in island::all() {
        if island.is_empty() {
            revive(number, island);
        }
        step(plugin, number, RootEvent::Tick);
    }
}

/// An empty island begins, with all configurations that there are.
pub fn revive(number: usize, island: &Island) {
    island.begin();
    for plugin in plugin::all() {
        // Those of a root that is no more.
        let orphans = plugin.calls().take(|_, call| call.island == number);
        orphans.into_iter().for_each(|(config, started, _)| config.reset(started));
        island.with(|inner| inner.load(&plugin));
        plugin.tick_every(number, LIVELY_MS);
        step(&plugin, number, RootEvent::Configured);
    }
}

/// All other configurations hear at once that this one acts now. What they have under way ends here, on the main
/// thread: Envoy may destroy them on any thread, and calls that are under way then would end there.
pub fn step_back_before(newest: &Plugin) {
    let others = plugin::all().into_iter().filter(|plugin| plugin.number != newest.number && plugin.control.is_some());
    for plugin in others {
        for (number, island) in island::all() {
            step(&plugin, number, RootEvent::Tick);
            let acts = island.with(|inner| inner.acting() == Some(plugin.number)).unwrap_or(false);
            if !acts {
                let left = plugin.calls().take(|_, call| call.island == number);
                left.into_iter().for_each(|(config, started, _)| config.reset(started));
            }
        }
    }
}

/// News of a call.
pub fn tell(plugin: &Plugin, call: Call, news: News) {
    let token = call.token;
    match (news, call.sort) {
        (News::Message(message), _) => step(plugin, call.island, RootEvent::KeysMessage { token, message: &message }),
        (News::Ended { status, answer }, Sort::Ledger) => {
            step(plugin, call.island, RootEvent::CallEnded { token, status, answer: answer.as_deref() });
        }
        (News::Ended { .. }, Sort::Keys) => step(plugin, call.island, RootEvent::KeysClosed { token }),
    }
}

pub fn step(plugin: &Plugin, island: usize, event: RootEvent<'_>) {
    let Some(place) = island::at(island) else { return };
    let orders = |event: RootEvent<'_>| place.with(|inner| inner.step(plugin.number, event)).unwrap_or_default();
    let mut left: VecDeque<RootOrder> = orders(event).into();
    while let Some(order) = left.pop_front() {
        let result = carry_out(plugin, island, place, order);
        left.extend(result.map(orders).unwrap_or_default());
    }
}

/// Carries out an order. Returns its result, if it has one already, as an event.
fn carry_out(plugin: &Plugin, island: usize, place: &Island, order: RootOrder) -> Option<RootEvent<'static>> {
    match order {
        RootOrder::Call(message) => {
            let call = call(plugin, island, Sort::Ledger, &grpc::framed(&message));
            return Some(RootEvent::CallSent(call));
        }
        RootOrder::OpenKeys => return Some(RootEvent::KeysOpened(call(plugin, island, Sort::Keys, &[]))),
        RootOrder::SendKeys { token, message } => {
            if let Some((config, started)) = of_token(plugin, token) {
                config.send(started, &grpc::framed(&message));
            }
        }
        RootOrder::CloseKeys { token } => {
            if let Some((config, started)) = of_token(plugin, token) {
                plugin.calls().take(|_, call| call.token == token);
                config.reset(started);
            }
        }
        RootOrder::Wake(callback) => match place.with(|inner| inner.wake(plugin.number, callback))? {
            Some(wakes) => wakes.into_iter().for_each(Unsent::send),
            None => return Some(RootEvent::Woken(callback)),
        },
        RootOrder::HangBell { .. } => {
            place.with(|inner| inner.bell = Some(plugin.number));
        }
        RootOrder::ExportMetrics => {
            let counts = place.with(|inner| inner.worker.counters.take().collect::<Vec<u64>>());
            plugin.count(&counts.unwrap_or_default());
        }
        RootOrder::TickEvery { millis } => plugin.tick_every(island, millis),
        RootOrder::Warn(message) => host::warn(message),
        // Envoy waits for nobody here.
        RootOrder::Gone => {}
    }
    None
}

fn of_token(plugin: &Plugin, token: u32) -> Option<(Config, Started)> {
    plugin.calls().of_token(token)
}

/// Begins a call. Returns the number by which the root knows it.
fn call(plugin: &Plugin, island: usize, sort: Sort, body: &[u8]) -> Option<u32> {
    let (config, control) = (plugin.config()?, plugin.control.as_ref()?);
    let (path, ends, timeout) = match sort {
        Sort::Ledger => (LEDGER, true, CALL_TIMEOUT_MS),
        Sort::Keys => (KEYS, false, NO_TIMEOUT),
    };
    let headers = grpc::headers(&control.cluster, path, &control.metadata);
    let started = config.start(&control.cluster, &headers, body, ends, timeout)?;
    let token = TOKENS.fetch_add(1, Ordering::Relaxed);
    plugin.calls().began(config, started, Call { island, token, sort });
    Some(token)
}
