//! One stream of an island: a request, an attempt or a connection. Effects are carried out as in the other edge
//! (`filter/src/envoy/`). Those during which other hooks of the stream may run are left for the time after the island's
//! lock: nothing else is ordered after them.

use std::sync::Arc;

use tollgate_filter::{
    config::Stage,
    exchange::{Effect, Goes, Wants},
    host::read_u64,
    stream::{Callback, Close, Connection, Downstream, Order, Upstream},
};

use crate::{
    abi::Headers,
    host::{Http, OfStream, Peer, Scheduler, Unsent, now_ms},
    island::{Inner, Woken},
    shared::RECORDS,
};

pub struct Stream {
    kind: Kind,
    /// A request has one from when it is held for the first time.
    scheduler: Option<Arc<Scheduler<OfStream>>>,
}

enum Kind {
    /// A request, and Envoy's filter of it.
    Downstream(Downstream, Http<'static>),
    /// An attempt, and its request.
    Upstream(Upstream, Option<u64>),
    Connection(Connection),
}

/// Filter state: the number of the request, for its attempts.
const REQUEST: &str = "tollgate_request";

/// What a callback came to.
#[derive(Debug)]
pub struct Turn {
    pub goes: Goes,
    pub then: Then,
    /// The root of this configuration is to call the ledger.
    pub rang: Option<u32>,
    pub woken: Option<Woken>,
}

/// What is left of a stream that is over.
#[derive(Debug)]
pub struct Closed {
    pub woken: Vec<Woken>,
    /// It ends when the island is free again.
    _scheduler: Option<Arc<Scheduler<OfStream>>>,
}

/// What is to be done when the island is free again.
#[derive(Debug, PartialEq, Eq)]
pub enum Then {
    Nothing,
    Resume,
    Reply(Reply),
    Close,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u32,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// The number of the event by which a stream learns that its island began anew.
const ENDED: u64 = 0;

// === impl Stream ===

impl Stream {
    fn new(kind: Kind) -> Self {
        Self { kind, scheduler: None }
    }

    pub fn is_held(&self) -> bool {
        matches!(&self.kind, Kind::Downstream(downstream, _) if downstream.wants() == Wants::Ledger)
    }

    /// From any thread.
    pub fn wake(&self, wake: u64) -> Option<Unsent<OfStream>> {
        self.scheduler.clone().map(|to| Unsent { to, event: wake })
    }

    pub fn wake_for_its_end(&self) -> Option<Unsent<OfStream>> {
        self.wake(ENDED)
    }
}

// === impl Inner ===

impl Inner {
    /// A request or an attempt under this configuration, if that is here.
    ///
    /// # Safety
    /// `http` lives until the stream is closed here.
    pub unsafe fn open_http(&mut self, plugin: u32, stream: u64, http: Http<'_>) {
        let Some(config) = self.config(plugin) else { return };
        let kind = match config.stage {
            Stage::Attempt(_) => Kind::Upstream(Upstream::new(config), None),
            Stage::Request(_) | Stage::Connection(_) => {
                // SAFETY: the caller's promise is passed on.
                Kind::Downstream(Downstream::new(config), unsafe { http.kept() })
            }
        };
        self.streams.insert(stream, Stream::new(kind));
    }

    /// A connection under this configuration, if that is here.
    pub fn open_connection(&mut self, plugin: u32, stream: u64) {
        let connection = self.config(plugin).map(|config| Stream::new(Kind::Connection(Connection::new(config))));
        self.streams.extend(connection.map(|connection| (stream, connection)));
    }

    /// A callback for an HTTP stream. None: it is not here.
    pub fn on_http(&mut self, id: u64, callback: Callback, http: Http<'_>) -> Option<Turn> {
        let stream = self.streams.get_mut(&id)?;
        let mut turn = Turn { goes: Goes::Nowhere, then: Then::Nothing, rang: None, woken: None };
        match &mut stream.kind {
            Kind::Downstream(downstream, _) => {
                for effect in downstream.on(callback, &http, *RECORDS, &mut self.worker, &now_ms) {
                    match apply(effect, id, http) {
                        Applied::Done => {}
                        Applied::Rang => turn.rang = self.bell,
                        Applied::Left(then) => turn.then = then,
                    }
                }
                turn.goes = downstream.request_goes();
                if downstream.wants() == Wants::Ledger && stream.scheduler.is_none() {
                    stream.scheduler = Some(Arc::new(http.scheduler()));
                }
            }
            Kind::Upstream(upstream, request) => {
                if let Callback::RequestHeaders { .. } = callback {
                    *request = http.state(REQUEST).map(|number| read_u64(&number));
                }
                for order in upstream.on(callback, &http) {
                    if let Applied::Left(then) = obey(order, http) {
                        turn.then = then;
                    }
                }
                turn.goes = upstream.request_goes();
            }
            Kind::Connection(_) => {}
        }
        Some(turn)
    }

    /// The stream was woken.
    pub fn on_wake(&mut self, id: u64, wake: u64, http: Http<'_>) -> Option<Turn> {
        let callback = self.wakes.callback(wake);
        // A request that was woken twice and is held no more gets a tick, which it ignores.
        let turn = self.on_http(id, callback.unwrap_or(Callback::Tick), http);
        let woken = self.wakes.tried(wake, id);
        turn.map(|turn| Turn { woken, ..turn })
    }

    pub fn on_connection(&mut self, id: u64, callback: Callback, peer: Peer<'_>) -> Option<Turn> {
        let Kind::Connection(connection) = &mut self.streams.get_mut(&id)?.kind else {
            return None;
        };
        let order = connection.on(callback, &peer, &mut self.worker);
        let then = order.map_or(Then::Nothing, |Close| Then::Close);
        Some(Turn { goes: connection.goes(), then, rang: None, woken: None })
    }

    /// The stream is over and gone.
    pub fn close(&mut self, id: u64) -> Closed {
        let stream = self.streams.remove(&id);
        let scheduler = stream.as_ref().and_then(|stream| stream.scheduler.clone());
        if let Some(Stream { kind: Kind::Upstream(upstream, request), .. }) = stream {
            self.left(upstream, request);
        }
        Closed { woken: self.wakes.gone(id), _scheduler: scheduler }
    }

    /// The core notes how an attempt ended. Envoy has taken it off the request already, so it is told by the request's
    /// own filter. What that says of the last attempt is about this one: Envoy begins no other before this is told.
    fn left(&mut self, mut upstream: Upstream, request: Option<u64>) {
        let request = request.and_then(|request| self.streams.get(&request));
        if let Some(Stream { kind: Kind::Downstream(_, http), .. }) = request {
            for order in upstream.on(Callback::Done, http) {
                obey(order, *http);
            }
        }
    }
}

enum Applied {
    Done,
    Rang,
    Left(Then),
}

fn apply(effect: Effect, id: u64, http: Http<'_>) -> Applied {
    match effect {
        Effect::RemoveRequestHeader(name) => http.set_header(Headers::Request, &name, None),
        Effect::SetRequestHeader(name, value) => http.set_header(Headers::Request, name, Some(&value)),
        Effect::Target(cluster) => {
            http.set_state("target", cluster.as_bytes());
            http.choose_cluster_again();
        }
        Effect::Plan(plan) => {
            http.set_state("tollgate_plan", &plan);
            http.set_state(REQUEST, &id.to_le_bytes());
        }
        Effect::Rewrite { path, authority } => {
            for (name, value) in [("path", path), ("authority", authority)] {
                if let Some(value) = value {
                    http.set_state(name, value.as_bytes());
                }
            }
        }
        Effect::RequestBody(body) => http.set_request_body(&body),
        Effect::Ring => return Applied::Rang,
        Effect::Resume => return Applied::Left(Then::Resume),
        Effect::Reply { status, headers, body } => return Applied::Left(Then::Reply(Reply { status, headers, body })),
        Effect::RemoveResponseHeader(name) => http.set_header(Headers::Answer, &name, None),
        Effect::SetResponseHeader(name, value) => http.set_header(Headers::Answer, name, Some(&value)),
        Effect::ResponseBody(body) => http.set_chunk(&body),
        Effect::Field(name, value) => http.set_state(name, value.as_bytes()),
    }
    Applied::Done
}

fn obey(order: Order, http: Http<'_>) -> Applied {
    match order {
        Order::RemoveHeader(name) => http.set_header(Headers::Request, name, None),
        Order::SetHeader(name, value) => http.set_header(Headers::Request, name, Some(&value)),
        // Envoy looks for it by itself before the next attempt.
        Order::Target(cluster) => http.set_state("target", cluster.as_bytes()),
        Order::Body(body) => http.set_request_body(&body),
        Order::Failures(failures) => http.set_state("tollgate_failures", &failures),
        Order::End { status } => {
            return Applied::Left(Then::Reply(Reply { status, headers: Vec::new(), body: Vec::new() }));
        }
    }
    Applied::Done
}
