//! The time. A thread of ours sends each configuration that has roots a tick, ten times a second.

use std::{sync::Once, thread, time::Duration};

use crate::{host, plugin};

const TICK: Duration = Duration::from_millis(100);

static STARTED: Once = Once::new();

/// Starts it, if it does not run yet. It runs as long as the process.
pub fn start() {
    STARTED.call_once(|| {
        let run = || loop {
            thread::sleep(TICK);
            plugin::all().iter().for_each(|plugin| plugin.tick());
        };
        if thread::Builder::new().name("tollgate".to_owned()).spawn(run).is_err() {
            host::warn("tollgate: there is no thread for the time, so nothing is reported to the ledger");
        }
    });
}
