//! The time. A thread of ours tells each configuration ten times a second that time has passed.

use std::{sync::Once, thread, time::Duration};

use tollgate_filter::root::LIVELY_MS;

use crate::{host, plugin};

static STARTED: Once = Once::new();

/// Starts it, if it does not run yet. It runs as long as the process.
pub fn start() {
    STARTED.call_once(|| {
        let run = || loop {
            thread::sleep(Duration::from_millis(LIVELY_MS));
            plugin::all().iter().for_each(|plugin| plugin.passed(LIVELY_MS));
        };
        if thread::Builder::new().name("tollgate".to_owned()).spawn(run).is_err() {
            host::warn("tollgate: there is no thread for the time, so nothing is reported to the ledger");
        }
    });
}
