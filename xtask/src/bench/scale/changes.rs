//! One change after the other: how long it takes until traffic shows it, and what it costs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::client::{Answer, Probe};
use super::gateway::{Gateway, PACE};
use super::rest::Rest;
use crate::bench::stats::Samples;

/// A change that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(120);

/// A file's new text, and what a request is answered before and after.
pub struct Change {
    pub file: PathBuf,
    pub text: String,
    pub before: Answer,
    pub after: Probe,
}

/// What changes of one kind cost, one sample each.
#[derive(Default)]
pub struct Measured {
    /// Milliseconds from the rename until traffic shows it.
    pub time: Samples,
    /// Milliseconds of CPU time of the control plane, until it rests again.
    pub server: Samples,
    /// The same of Envoy.
    pub envoy: Samples,
    /// Bytes from the control plane to Envoy.
    pub bytes: Samples,
    /// Answers that are neither the old nor the new one.
    pub wrong: usize,
}

// === impl Change ===

impl Change {
    /// Replaces the file as editors do. Returns the moment when it is replaced.
    fn write(&self) -> anyhow::Result<Instant> {
        let name = self.file.file_name().and_then(|name| name.to_str()).context("the file has no name")?;
        let beside = self.file.with_file_name(format!(".{name}.new"));
        std::fs::write(&beside, &self.text)?;
        let now = Instant::now();
        std::fs::rename(beside, &self.file)?;
        Ok(now)
    }
}

// === impl Measured ===

impl Measured {
    /// Makes a change and measures it.
    pub fn add(&mut self, gateway: &mut Gateway, rest: &Rest, change: &Change) -> anyhow::Result<()> {
        let received = gateway.received()?;
        let window = gateway.window()?;
        let renamed = change.write()?;
        let mut questions = 0;
        loop {
            let answer = gateway.client.ask(&change.after.request);
            questions += 1;
            if answer == change.after.answer {
                break;
            }
            if answer != change.before {
                self.wrong += 1;
                eprintln!("    wrong: {answer:?} between {:?} and {:?}", change.before, change.after.answer);
            }
            anyhow::ensure!(renamed.elapsed() < PATIENCE, "no traffic shows it after {} s", PATIENCE.as_secs());
            std::thread::sleep(PACE);
        }
        self.time.push(renamed.elapsed().as_secs_f64() * 1e3);
        gateway.come_to_rest()?;
        let [server, envoy] = rest.without(gateway.used_since(&window)?, questions);
        self.server.push(server);
        self.envoy.push(envoy);
        self.bytes.push(gateway.received()?.saturating_sub(received) as f64);
        Ok(())
    }
}
