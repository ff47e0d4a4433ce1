//! By a scheduler any thread sends an event to a stream or to a configuration. It comes as a hook on the thread of that.
//!
//! While an event is sent, and when a scheduler ends, Envoy may destroy whom it is for, which is a hook on this very
//! thread. So whoever sends takes a scheduler along and has none of our locks: the hook would wait for it for ever, and
//! Envoy's main thread for both.

use std::{marker::PhantomData, sync::Arc};

use crate::abi::{Envoys, callbacks};

/// Whom the events are for.
pub trait Whom {
    /// # Safety
    /// `scheduler` is one of this kind and was not deleted.
    unsafe fn commit(scheduler: Envoys, event: u64);
    /// # Safety
    /// `scheduler` is one of this kind and was not deleted.
    unsafe fn delete(scheduler: Envoys);
}

#[derive(Debug)]
pub enum OfStream {}

#[derive(Debug)]
pub enum OfConfig {}

/// Ours from its making to its end.
#[derive(Debug)]
pub struct Scheduler<W: Whom> {
    scheduler: Envoys,
    whom: PhantomData<W>,
}

/// An event that is to be sent, once no lock is held.
#[derive(Debug)]
#[must_use = "it is not sent yet"]
pub struct Unsent<W: Whom> {
    pub to: Arc<Scheduler<W>>,
    pub event: u64,
}

// SAFETY: Envoy's schedulers may be used and deleted on every thread (`abi.h`, "safe to call from any thread").
unsafe impl<W: Whom> Send for Scheduler<W> {}
// SAFETY: as above. To send an event changes nothing in a scheduler, so two threads may do so at a time.
unsafe impl<W: Whom> Sync for Scheduler<W> {}

// === impl Scheduler ===

impl<W: Whom> Scheduler<W> {
    /// # Safety
    /// `scheduler` is a new one of Envoy's of this kind. It now belongs to this value.
    pub unsafe fn new(scheduler: Envoys) -> Self {
        Self { scheduler, whom: PhantomData }
    }

    pub fn commit(&self, event: u64) {
        // SAFETY: it is deleted in `drop` alone.
        unsafe { W::commit(self.scheduler, event) }
    }
}

impl<W: Whom> Drop for Scheduler<W> {
    fn drop(&mut self) {
        // SAFETY: nothing uses it after this.
        unsafe { W::delete(self.scheduler) }
    }
}

// === impl Unsent ===

impl<W: Whom> Unsent<W> {
    pub fn send(self) {
        self.to.commit(self.event);
    }
}

// === impl Whom ===

impl Whom for OfStream {
    unsafe fn commit(scheduler: Envoys, event: u64) {
        // SAFETY: the caller's promise is passed on.
        unsafe { callbacks::schedule_stream(scheduler, event) }
    }

    unsafe fn delete(scheduler: Envoys) {
        // SAFETY: the caller's promise is passed on.
        unsafe { callbacks::delete_stream_scheduler(scheduler) }
    }
}

impl Whom for OfConfig {
    unsafe fn commit(scheduler: Envoys, event: u64) {
        // SAFETY: the caller's promise is passed on.
        unsafe { callbacks::schedule_config(scheduler, event) }
    }

    unsafe fn delete(scheduler: Envoys) {
        // SAFETY: the caller's promise is passed on.
        unsafe { callbacks::delete_config_scheduler(scheduler) }
    }
}
