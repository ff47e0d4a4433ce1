//! The root context of one configuration. Callbacks become events of [`crate::root`], and its orders become host calls.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext, RootContext, StreamContext},
    types::{BufferType, ContextType},
};

use super::{
    Vm,
    connection::Peer,
    context::AnyStream,
    hostcall::{self, EnvoyShared, EnvoyStream},
    http::{Http, Waiter},
    upstream::Attempt,
    with_vm,
};
use crate::{
    config::{self, Config, RequestStage, Stage},
    counters,
    root::{self, RootEvent, RootOrder, Surroundings},
    stream::{self, Callback, Property},
    worker,
};

pub struct Root {
    id: u32,
    config: Option<Rc<Config>>,
    /// Only a request stage that calls the control plane has one.
    root: Option<root::Root>,
}

const CALL_TIMEOUT: Duration = Duration::from_millis(1000);
const LEDGER: (&str, &str) = ("tollgate.v1.Ledger", "Sync");
const KEYS: (&str, &str) = ("envoy.service.discovery.v3.AggregatedDiscoveryService", "DeltaAggregatedResources");

// === impl Root ===

impl Root {
    pub fn new(id: u32) -> Self {
        Self { id, config: None, root: None }
    }

    fn control_cluster(&self) -> &str {
        self.request_stage().map_or("", |stage| &stage.control_cluster)
    }

    fn metadata(&self) -> Vec<(&str, &[u8])> {
        self.request_stage().map(RequestStage::metadata).unwrap_or_default()
    }

    fn request_stage(&self) -> Option<&RequestStage> {
        match self.config.as_ref().map(|config| &config.stage) {
            Some(Stage::Request(stage)) => Some(stage),
            Some(Stage::Attempt(_) | Stage::Connection(_)) | None => None,
        }
    }

    fn step(&mut self, event: RootEvent<'_>) {
        let mut orders = self.orders(event);
        while let Some(order) = orders.pop_front() {
            let result = self.carry_out(order);
            orders.extend(result.map(|event| self.orders(event)).unwrap_or_default());
        }
    }

    fn orders(&mut self, event: RootEvent<'_>) -> VecDeque<RootOrder> {
        let Some(root) = &mut self.root else {
            return VecDeque::new();
        };
        let node = || stream::text(&EnvoyStream, Property::Node).unwrap_or_default();
        let orders = with_vm(|vm| {
            let worker = &mut vm.worker;
            let now = hostcall::now_ms();
            root.step(event, &mut Surroundings { worker, shared: &EnvoyShared, node: &node, now })
        });
        orders.unwrap_or_default().into()
    }

    /// Carries out an order. Returns its result, if it has one, as an event.
    fn carry_out(&self, order: RootOrder) -> Option<RootEvent<'static>> {
        match order {
            RootOrder::Call(message) => {
                let (service, method) = LEDGER;
                let message = Some(message.as_slice());
                let cluster = self.control_cluster();
                let sent =
                    hostcalls::dispatch_grpc_call(cluster, service, method, self.metadata(), message, CALL_TIMEOUT);
                Some(RootEvent::CallSent(sent.ok()))
            }
            RootOrder::OpenKeys => {
                let opened = hostcalls::open_grpc_stream(self.control_cluster(), KEYS.0, KEYS.1, self.metadata());
                Some(RootEvent::KeysOpened(opened.ok()))
            }
            RootOrder::SendKeys { token, message } => {
                hostcall::ignore(hostcalls::send_grpc_stream_message(token, Some(&message), false));
                None
            }
            RootOrder::CloseKeys { token } => {
                hostcall::ignore(hostcalls::cancel_grpc_stream(token));
                None
            }
            RootOrder::Wake(callback) => {
                self.wake(callback);
                Some(RootEvent::Woken(callback))
            }
            RootOrder::HangBell { name } => {
                let bell = hostcalls::register_shared_queue(&name).ok();
                with_vm(|vm| vm.bell = bell);
                None
            }
            RootOrder::TickEvery { millis } => {
                hostcall::ignore(hostcalls::set_tick_period(Duration::from_millis(millis)));
                None
            }
            RootOrder::ExportMetrics => {
                with_vm(Vm::export_metrics);
                None
            }
            RootOrder::Warn(message) => {
                hostcall::warn(message);
                None
            }
            RootOrder::Gone => {
                hostcall::ignore(hostcalls::done());
                None
            }
        }
    }

    fn wake(&self, callback: Callback) {
        let waiters = with_vm(|vm| std::mem::take(&mut vm.waiters)).unwrap_or_default();
        let still: Vec<Waiter> = waiters.into_iter().filter(|waiter| waiter.go_on(callback)).collect();
        hostcall::ignore(hostcalls::set_effective_context(self.id));
        with_vm(|vm| vm.waiters.extend(still));
    }
}

fn received(size: usize) -> Vec<u8> {
    hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, size).ok().flatten().unwrap_or_default()
}

impl Context for Root {
    fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
        let answer = (status == 0).then(|| received(size));
        self.step(RootEvent::CallEnded { token, status, answer: answer.as_deref() });
    }

    fn on_grpc_stream_message(&mut self, token: u32, size: usize) {
        let message = received(size);
        self.step(RootEvent::KeysMessage { token, message: &message });
    }

    fn on_grpc_stream_close(&mut self, token: u32, _: u32) {
        self.step(RootEvent::KeysClosed { token });
    }

    fn on_done(&mut self) -> bool {
        self.step(RootEvent::Done);
        self.root.as_ref().is_none_or(root::Root::is_gone)
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, 1 << 30).ok().flatten();
        let config = match config::parse(&bytes.unwrap_or_default()) {
            Ok(config) => Rc::new(config),
            Err(error) => {
                hostcall::warn(&format!("tollgate: the configuration is refused: {error}"));
                return false;
            }
        };
        self.config = Some(config.clone());
        if let Stage::Request(stage) = &config.stage {
            with_vm(|vm| vm.worker.known.add(&stage.classes));
            worker::prepare_records(&EnvoyShared, hostcall::now_ns());
            with_vm(Vm::define_metrics);
            let mut tick = root::RESTING_MS;
            if stage.needs_control_plane() {
                self.root = Some(root::Root::new(self.id));
                self.step(RootEvent::Configured);
                tick = root::LIVELY_MS;
            }
            hostcall::ignore(hostcalls::set_tick_period(Duration::from_millis(tick)));
        }
        true
    }

    fn on_tick(&mut self) {
        if self.root.is_none() {
            with_vm(Vm::export_metrics);
        }
        self.step(RootEvent::Tick);
    }

    fn on_queue_ready(&mut self, queue: u32) {
        while let Ok(Some(_)) = hostcalls::dequeue_shared_queue(queue) {}
        self.step(RootEvent::Rang);
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        let config = self.config.clone()?;
        let stream = match config.stage {
            Stage::Attempt(_) => AnyStream::Upstream(Attempt::new(config)),
            Stage::Request(_) | Stage::Connection(_) => AnyStream::Downstream(Http::new(id, config)),
        };
        Some(Box::new(stream))
    }

    fn create_stream_context(&self, _: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(AnyStream::Connection(Peer::new(self.config.clone()?))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(match self.config.as_ref()?.stage {
            Stage::Connection(_) => ContextType::StreamContext,
            Stage::Request(_) | Stage::Attempt(_) => ContextType::HttpContext,
        })
    }
}

// === impl Vm ===

impl Vm {
    fn define_metrics(&mut self) {
        if self.metrics.is_empty() {
            let define = |name: String| hostcalls::define_metric(proxy_wasm::types::MetricType::Counter, &name).ok();
            self.metrics = counters::metric_names().filter_map(define).collect();
        }
    }

    fn export_metrics(&mut self) {
        for (metric, count) in self.metrics.iter().zip(self.worker.counters.take()) {
            if count > 0 {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                hostcall::ignore(hostcalls::increment_metric(*metric, count));
            }
        }
    }
}
