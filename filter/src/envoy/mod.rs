//! Envoy's side, on wasm32 only. Callbacks go to the core, and the core's orders become host calls. Nothing is decided
//! here.
//!
//! All configurations of a VM share one `Worker`, in a thread-local. It is never borrowed while orders are carried out,
//! because an answer that the filter sends comes back as callbacks at once.
//!
//! `xtask/src/artifacts.rs` takes callbacks that do nothing here out of the module. One that is used from now on has to
//! come off that list.

mod connection;
mod context;
mod hostcall;
mod http;
mod root;
mod upstream;

use std::cell::{Cell, RefCell};

use proxy_wasm::types::LogLevel;

use crate::worker::Worker;

thread_local! {
    // It is made by the first callback and lives as long as its VM, so that there is no code that drops it.
    static VM: Cell<Option<&'static RefCell<Vm>>> = const { Cell::new(None) };
}

/// What this VM keeps.
#[derive(Default)]
struct Vm {
    worker: Worker,
    /// The queue that wakes the root of this worker in the next turn of the event loop.
    bell: Option<u32>,
    waiters: Vec<http::Waiter>,
    metrics: Vec<u32>,
}

fn vm() -> &'static RefCell<Vm> {
    VM.get().unwrap_or_else(|| {
        let made: &'static RefCell<Vm> = Box::leak(Box::default());
        VM.set(Some(made));
        made
    })
}

/// Runs with this VM's state. None: a caller further up is using it, which does not happen.
fn with_vm<T>(run: impl FnOnce(&mut Vm) -> T) -> Option<T> {
    vm().try_borrow_mut().ok().map(|mut vm| run(&mut vm))
}

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
