//! Envoy's log. It is a file, because Envoy outlives us. It is read as it grows, and its lines are passed on.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncSeekExt as _, BufReader};
use tokio::time::sleep;

/// The pause after a line. It doubles as long as nothing comes.
const FIRST_PAUSE: Duration = Duration::from_millis(125);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Where to start reading.
#[derive(Debug, Clone, Copy)]
pub enum From {
    Start,
    /// What an Envoy wrote before it was adopted is not passed on.
    End,
}

/// Passes lines on until the task is aborted.
pub async fn follow(path: PathBuf, from: From) {
    let Ok(mut file) = File::open(&path).await else { return };
    if matches!(from, From::End) {
        let _from_the_start = file.seek(SeekFrom::End(0)).await;
    }
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut pause = FIRST_PAUSE;
    loop {
        match reader.read_until(b'\n', &mut line).await {
            Ok(_) if line.ends_with(b"\n") => {
                pass_on(&String::from_utf8_lossy(&line));
                line.clear();
                pause = FIRST_PAUSE;
            }
            Ok(_) => {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => {
                tracing::warn!(%error, "Envoy's log cannot be read any more");
                return;
            }
        }
    }
}

/// `[2026-11-22 06:00:00.000][12][warning][config] [source/x.cc:1] text`, or a line that continues one.
fn pass_on(line: &str) {
    let line = line.trim_end();
    if line.is_empty() {
        return;
    }
    if line.contains("[error]") || line.contains("[critical]") {
        tracing::error!("envoy: {line}");
    } else {
        tracing::warn!("envoy: {line}");
    }
}
