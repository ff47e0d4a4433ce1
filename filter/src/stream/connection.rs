//! A client's connection. It is counted, or refused.

use std::rc::Rc;

use super::{Callback, Property, StreamHost};
use crate::{
    config::{Config, Stage},
    exchange::Goes,
    sources::Source,
    worker::Worker,
};

/// One connection of a client, and its source while it is counted.
#[derive(Debug)]
pub struct Connection {
    config: Rc<Config>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Counted(Source),
    Refused,
    Closed,
}

/// The host is to close the connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Close;

// === impl Connection ===

impl Connection {
    pub fn new(config: Rc<Config>) -> Self {
        Self { config, state: State::New }
    }

    /// Whether Envoy goes on with the connection. It is held until it is counted.
    pub fn goes(&self) -> Goes {
        match self.state {
            State::Counted(_) | State::Closed => Goes::On,
            State::New | State::Refused => Goes::Nowhere,
        }
    }

    /// Takes a callback.
    pub fn on(&mut self, callback: Callback, host: &dyn StreamHost, worker: &mut Worker) -> Option<Close> {
        match (self.state, callback) {
            (State::New, Callback::Connected) => return self.connected(host, worker),
            (State::Counted(source), Callback::Done) => {
                worker.sources.left(source);
                self.state = State::Closed;
            }
            _ => {}
        }
        None
    }

    fn connected(&mut self, host: &dyn StreamHost, worker: &mut Worker) -> Option<Close> {
        let source = Source::of(&host.property(Property::Source).unwrap_or_default());
        let admitted = match &self.config.stage {
            Stage::Connection(stage) => worker.sources.admit(source, stage.max_per_source),
            Stage::Request(_) | Stage::Attempt(_) => false,
        };
        if admitted {
            self.state = State::Counted(source);
            return None;
        }
        self.state = State::Refused;
        worker.counters.connections_refused += 1;
        Some(Close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::ConnectionStage, fixture, stream::fake::FakeStream};

    const ONE: &str = "192.0.2.1:1000";
    const OTHER: &str = "192.0.2.2:1000";

    /// A connection under a limit of one.
    fn connection() -> Connection {
        let stage = Stage::Connection(ConnectionStage { max_per_source: 1 });
        Connection::new(Rc::new(Config { stage }))
    }

    fn connected(address: &str, worker: &mut Worker) -> (Connection, Option<Close>) {
        let mut connection = connection();
        assert_eq!(connection.goes(), Goes::Nowhere, "it is not counted yet");
        let host = FakeStream::default().with(Property::Source, address);
        let order = connection.on(Callback::Connected, &host, worker);
        (connection, order)
    }

    #[test]
    fn one_too_many_is_closed_and_its_end_frees_no_place() {
        let mut worker = Worker::default();
        let host = FakeStream::default();
        let (mut first, order) = connected(ONE, &mut worker);
        assert_eq!((first.goes(), order), (Goes::On, None));
        let (mut second, order) = connected(ONE, &mut worker);
        assert_eq!((second.goes(), order), (Goes::Nowhere, Some(Close)));
        assert_eq!(connected(OTHER, &mut worker).1, None);
        assert_eq!(worker.counters.connections_refused, 1);

        assert_eq!(second.on(Callback::Done, &host, &mut worker), None);
        assert_eq!(connected(ONE, &mut worker).1, Some(Close));
        // A connection that is told twice of its end counts once.
        assert_eq!(first.on(Callback::Done, &host, &mut worker), None);
        assert_eq!((first.goes(), first.on(Callback::Done, &host, &mut worker)), (Goes::On, None));
        assert_eq!(connected(ONE, &mut worker).1, None);
        assert_eq!(connected(ONE, &mut worker).1, Some(Close));
    }

    #[test]
    fn a_connection_is_counted_once_and_by_nothing_but_its_beginning() {
        let mut worker = Worker::default();
        let host = FakeStream::default().with(Property::Source, ONE);
        let (mut first, _) = connected(ONE, &mut worker);
        for callback in [Callback::Connected, Callback::Log, Callback::RequestHeaders { end: true }] {
            assert_eq!((first.on(callback, &host, &mut worker), first.goes()), (None, Goes::On));
        }
        first.on(Callback::Done, &host, &mut worker);
        assert_eq!(connected(ONE, &mut worker).1, None);
    }

    #[test]
    fn those_without_an_address_are_one_source() {
        let mut worker = Worker::default();
        let host = FakeStream::default();
        assert_eq!(connection().on(Callback::Connected, &host, &mut worker), None);
        assert_eq!(connection().on(Callback::Connected, &host, &mut worker), Some(Close));
    }

    #[test]
    fn a_configuration_of_another_stage_admits_nobody() {
        let mut connection = Connection::new(Rc::new(fixture::config(fixture::stage())));
        let host = FakeStream::default().with(Property::Source, ONE);
        assert_eq!(connection.on(Callback::Connected, &host, &mut Worker::default()), Some(Close));
        assert_eq!(connection.goes(), Goes::Nowhere);
    }
}
