//! The root context of one configuration: reads it, keeps the conversations with the control plane going,
//! and lets held requests go on. The newest root of a VM acts; older ones only see their streams end.

use std::{rc::Rc, time::Duration};

use prost::Message as _;
use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext, RootContext},
    types::{BufferType, ContextType},
};
use tollgate_proto::{delta::DeltaDiscoveryResponse, v1 as wire};

use super::{
    Vm,
    hostcall::{self, EnvoyShared},
    http::{Http, Waiter},
    upstream::Upstream,
    with_vm,
};
use crate::{
    config::{self, Config, RequestStage, Stage},
    counters,
    exchange::Event,
    table::Step,
    worker::{self, Taken},
};

pub struct Root {
    id: u32,
    config: Option<Rc<Config>>,
    /// The queue that a worker's streams ring to be heard at once.
    bell: Option<u32>,
    call: Option<u32>,
    stream: Option<u32>,
    /// Envoy waits for the last report of a root that is going, until then.
    going_until: Option<u64>,
}

const TICK: Duration = Duration::from_millis(100);
const CALL_TIMEOUT: Duration = Duration::from_millis(1000);
/// How long a root that is going may take for its last report.
const GOING_MS: u64 = 2000;
const LEDGER: (&str, &str) = ("tollgate.v1.Ledger", "Sync");
const KEYS: (&str, &str) = ("envoy.service.discovery.v3.AggregatedDiscoveryService", "DeltaAggregatedResources");

thread_local! {
    static BELL: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

/// Wakes the root of this worker: its callback for queues comes in the next turn of the event loop.
/// A stream cannot call the ledger itself, as the answer would end with it.
pub fn ring() {
    if let Some(bell) = BELL.get() {
        hostcall::ignore(hostcalls::enqueue_shared_queue(bell, Some(b"!")));
    }
}

// === impl Root ===

impl Root {
    pub fn new(id: u32) -> Self {
        Self { id, config: None, bell: None, call: None, stream: None, going_until: None }
    }

    fn request_stage(&self) -> Option<&RequestStage> {
        match &self.config.as_ref()?.stage {
            Stage::Request(stage) => Some(stage),
            Stage::Attempt(_) => None,
        }
    }

    /// Whether this root acts for its VM. One that finds none acting takes over.
    fn acts(&mut self) -> bool {
        match with_vm(|vm| vm.owner) {
            Some(Some(owner)) => owner == self.id,
            Some(None) => {
                self.take_over();
                true
            }
            None => false,
        }
    }

    /// Takes over from the root before: what it had open is opened or sent again.
    fn take_over(&mut self) {
        let now = hostcall::now_ms();
        with_vm(|vm| {
            vm.owner = Some(self.id);
            vm.worker.reporter.orphaned(now);
            vm.worker.keeper.orphaned(now);
        });
    }

    /// Sends what is due to the ledger.
    fn report(&mut self) {
        let Some(cluster) = self.request_stage().map(|stage| stage.control_cluster.clone()) else {
            return;
        };
        let now = hostcall::now_ms();
        let node = || hostcall::text_property(&["xds", "node", "id"]).unwrap_or_default();
        let request = with_vm(|vm| {
            let identity = vm.worker.identity(&EnvoyShared, node, now)?;
            vm.worker.next_call(&identity, now)
        });
        let Some(request) = request.flatten() else {
            return;
        };
        let sent = hostcalls::dispatch_grpc_call(
            &cluster,
            LEDGER.0,
            LEDGER.1,
            Vec::new(),
            Some(&request.encode_to_vec()),
            CALL_TIMEOUT,
        );
        self.call = sent.ok();
        if self.call.is_none() {
            with_vm(|vm| vm.worker.reporter.failed(now));
        }
    }

    /// Opens and closes the stream of keys as its keeper says.
    fn keep_keys(&mut self) {
        let Some(cluster) = self.request_stage().map(|stage| stage.control_cluster.clone()) else {
            return;
        };
        let now = hostcall::now_ms();
        let node = hostcall::text_property(&["xds", "node", "id"]).unwrap_or_default();
        let step = with_vm(|vm| {
            let identity = vm.worker.identity(&EnvoyShared, || node.clone(), now)?;
            Some(vm.worker.keeper.tick(&EnvoyShared, identity.worker, now))
        });
        match step.flatten() {
            Some(Step::Open) => match hostcalls::open_grpc_stream(&cluster, KEYS.0, KEYS.1, Vec::new()) {
                Ok(token) => {
                    self.stream = Some(token);
                    let first = with_vm(|vm| vm.worker.keeper.opened(token, &node)).flatten();
                    if let Some(first) = first {
                        let sent = hostcalls::send_grpc_stream_message(token, Some(&first.encode_to_vec()), false);
                        hostcall::ignore(sent);
                    }
                }
                Err(_) => {
                    with_vm(|vm| vm.worker.keys_closed(None, now));
                }
            },
            Some(Step::Close(token)) => self.close_stream(token),
            Some(Step::Nothing) | None => {}
        }
    }

    fn close_stream(&mut self, token: u32) {
        if self.stream == Some(token) {
            self.stream = None;
            hostcall::ignore(hostcalls::cancel_grpc_stream(token));
        }
    }

    /// Another root acts: nothing is kept open.
    fn step_back(&mut self) {
        if let Some(token) = self.stream {
            self.close_stream(token);
        }
    }

    fn wake_waiters(&self, event: impl Fn() -> Event<'static>) {
        let waiters = with_vm(|vm| std::mem::take(&mut vm.waiters)).unwrap_or_default();
        if waiters.is_empty() {
            return;
        }
        let still: Vec<Waiter> = waiters.into_iter().filter(|waiter| waiter.go_on(event())).collect();
        hostcall::ignore(hostcalls::set_effective_context(self.id));
        with_vm(|vm| vm.waiters.extend(still));
    }

    /// The call ended, one way or another; a root that is going has nothing else to wait for.
    fn call_ended(&mut self) {
        if self.going_until.is_some() && !self.has_last_words() {
            self.gone();
        } else {
            self.report();
        }
    }

    fn has_last_words(&self) -> bool {
        with_vm(|vm| !vm.worker.reporter.is_done()).unwrap_or(false)
    }

    fn gone(&mut self) {
        if self.going_until.take().is_some() {
            with_vm(|vm| {
                if vm.owner == Some(self.id) {
                    vm.owner = None;
                }
            });
            hostcall::ignore(hostcalls::done());
        }
    }
}

impl Context for Root {
    fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
        if self.call != Some(token) {
            return;
        }
        self.call = None;
        let now = hostcall::now_ms();
        let response = (status == 0)
            .then(|| hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, size).ok().flatten())
            .map(Option::unwrap_or_default)
            .and_then(|bytes| wire::SyncResponse::decode(bytes.as_slice()).ok());
        let granted = with_vm(|vm| match response {
            Some(response) => vm.worker.ledger_answered(&EnvoyShared, response, now),
            None => {
                if vm.worker.ledger_failed(status, now) == Taken::Never {
                    hostcall::warn("tollgate: the ledger refused a report for good; it is dropped");
                }
                false
            }
        });
        if granted == Some(true) {
            self.wake_waiters(|| Event::LedgerAnswered);
        }
        self.call_ended();
    }

    fn on_grpc_stream_message(&mut self, token: u32, size: usize) {
        if self.stream != Some(token) {
            return;
        }
        let bytes = hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, size).ok().flatten().unwrap_or_default();
        let reply = match DeltaDiscoveryResponse::decode(bytes.as_slice()) {
            Ok(response) => with_vm(|vm| {
                let current = vm.worker.keeper.is_current(token);
                let reply = current.then(|| vm.worker.keeper.received(&EnvoyShared, response)).flatten();
                vm.worker.refresh(&EnvoyShared);
                reply
            })
            .flatten(),
            Err(_) => {
                hostcall::warn("tollgate: the control plane's answer about keys could not be read");
                None
            }
        };
        if let Some(reply) = reply {
            hostcall::ignore(hostcalls::send_grpc_stream_message(token, Some(&reply.encode_to_vec()), false));
        }
    }

    fn on_grpc_stream_close(&mut self, token: u32, _: u32) {
        if self.stream == Some(token) {
            self.stream = None;
            let now = hostcall::now_ms();
            with_vm(|vm| vm.worker.keys_closed(Some(token), now));
        }
    }

    fn on_done(&mut self) -> bool {
        self.step_back();
        if self.request_stage().is_none() || !self.acts() {
            return true;
        }
        self.report();
        if !self.has_last_words() {
            with_vm(|vm| vm.owner = None);
            return true;
        }
        self.going_until = Some(hostcall::now_ms().saturating_add(GOING_MS));
        false
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
        let acts = matches!(config.stage, Stage::Request(_));
        self.config = Some(config);
        if acts {
            worker::prepare_records(&EnvoyShared, hostcall::now_ns());
            with_vm(Vm::define_metrics);
            self.take_over();
            hostcall::ignore(hostcalls::set_tick_period(TICK));
        }
        true
    }

    fn on_tick(&mut self) {
        let now = hostcall::now_ms();
        if self.going_until.is_some_and(|until| now >= until) {
            self.gone();
            return;
        }
        if !self.acts() {
            self.step_back();
            return;
        }
        if self.bell.is_none() {
            let node = hostcall::text_property(&["xds", "node", "id"]).unwrap_or_default();
            let worker = with_vm(|vm| vm.worker.identity(&EnvoyShared, || node, now)).flatten();
            let name = worker.map(|identity| format!("tollgate/{}", identity.worker));
            self.bell = name.and_then(|name| hostcalls::register_shared_queue(&name).ok());
            BELL.set(self.bell);
        }
        with_vm(|vm| {
            vm.worker.refresh(&EnvoyShared);
            vm.worker.sweep(&EnvoyShared, now);
            vm.export_metrics();
        });
        self.keep_keys();
        self.wake_waiters(|| Event::Tick);
        self.report();
    }

    fn on_queue_ready(&mut self, queue: u32) {
        while let Ok(Some(_)) = hostcalls::dequeue_shared_queue(queue) {}
        self.report();
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        let config = self.config.clone()?;
        match config.stage {
            Stage::Request(_) => Some(Box::new(Http::new(id, config))),
            Stage::Attempt(_) => Some(Box::new(Upstream::new(config))),
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
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
