//! One configuration of the filter in Envoy: its counters, and the calls that it makes by itself.

use crate::{
    abi::{Bytes, Envoys, Header, SUCCESS, callbacks},
    host::{OfConfig, Scheduler},
};

/// Envoy's configuration object. It is used on the main thread, and while Envoy has not destroyed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Config(Envoys);

/// A call that has begun, by Envoy's number. Each configuration has its own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Started(pub u64);

// SAFETY: it is a name. What uses it is called on the main thread, as `new` is promised.
unsafe impl Send for Config {}

// === impl Config ===

impl Config {
    /// # Safety
    /// `config` is Envoy's configuration of an HTTP filter. The value is used on the main thread, and no longer than
    /// until the hook returns in which Envoy says that it destroys the configuration.
    pub unsafe fn new(config: Envoys) -> Self {
        Self(config)
    }

    pub fn scheduler(self) -> Scheduler<OfConfig> {
        // SAFETY: the configuration lives, as `new` was promised, and the scheduler is new.
        unsafe { Scheduler::new(callbacks::config_scheduler(self.0)) }
    }

    /// Only while the configuration is made.
    pub fn define_counter(self, name: &str) -> Option<usize> {
        let mut id = 0;
        let name = Bytes::of(name.as_bytes());
        // SAFETY: the configuration lives, as `new` was promised, and there are no labels.
        let said = unsafe { callbacks::define_counter(self.0, name, std::ptr::null_mut(), 0, &raw mut id) };
        (said == SUCCESS).then_some(id)
    }

    pub fn add(self, counter: usize, count: u64) {
        // SAFETY: the configuration lives, as `new` was promised, and there are no labels.
        unsafe { callbacks::increment_counter(self.0, counter, std::ptr::null_mut(), 0, count) };
    }

    /// Begins a call. None: there is no way to that cluster now.
    pub fn start(
        self,
        cluster: &str,
        headers: &[(&str, &[u8])],
        body: &[u8],
        end: bool,
        timeout_ms: u64,
    ) -> Option<Started> {
        let mut list: Vec<Header> = headers.iter().map(|(name, value)| Header::of(name, value)).collect();
        let (cluster, mut id) = (Bytes::of(cluster.as_bytes()), 0);
        let (first, count) = (list.as_mut_ptr(), list.len());
        // SAFETY: the configuration lives, as `new` was promised, and all that is pointed to is ours.
        let said = unsafe {
            callbacks::start_call(self.0, &raw mut id, cluster, first, count, Bytes::of(body), end, timeout_ms)
        };
        (said == SUCCESS).then_some(Started(id))
    }

    pub fn send(self, Started(call): Started, bytes: &[u8]) {
        // SAFETY: the configuration lives, as `new` was promised; a call that is over is not found.
        unsafe { callbacks::send_on_call(self.0, call, Bytes::of(bytes), false) };
    }

    /// Ends a call. What comes of it from then on is for nobody.
    pub fn reset(self, Started(call): Started) {
        // SAFETY: the configuration lives, as `new` was promised; a call that is over is not found.
        unsafe { callbacks::reset_call(self.0, call) }
    }
}
