//! The folder of keys: one consumer for each, a thousand share a file. In one file a key comes and goes.

use std::path::{Path, PathBuf};

use super::changes::Change;
use super::client::{Answer, Probe};
use super::routes::{self, MODELS_HOST};
use crate::bench::config;

const PER_FILE: u32 = 1_000;
const KEY: &str = "the-key-that-comes-and-goes";
/// SHA-256 of the key.
const HASH: &str = "280ad1e0c44f6c2e0daa3286f30b48294c8f16b9a7e48d58be3d2ddf06c0de6e";

pub struct Keys {
    folder: PathBuf,
    count: u32,
}

// === impl Keys ===

impl Keys {
    pub fn write(folder: &Path, port: u16, count: u32) -> anyhow::Result<Self> {
        let keys = Self { folder: folder.to_path_buf(), count };
        std::fs::write(folder.join("models.yaml"), routes::models(port))?;
        for file in 0..count.div_ceil(PER_FILE) {
            std::fs::write(keys.path(file), keys.text(file))?;
        }
        Ok(keys)
    }

    /// Asks with a key that is always there.
    pub fn known(&self) -> Probe {
        probe(config::KEY, 200)
    }

    /// The last file with one more consumer.
    pub fn addition(&self) -> Change {
        let file = self.last();
        let text = [self.text(file), consumer("guest", HASH)].join("---\n");
        Change { file: self.path(file), text, before: Answer::Other(401), after: probe(KEY, 200) }
    }

    /// The last file without it.
    pub fn revocation(&self) -> Change {
        let file = self.last();
        Change { file: self.path(file), text: self.text(file), before: Answer::Other(200), after: probe(KEY, 401) }
    }

    fn last(&self) -> u32 {
        self.count.div_ceil(PER_FILE).saturating_sub(1)
    }

    fn path(&self, file: u32) -> PathBuf {
        self.folder.join(format!("consumers-{file:05}.yaml"))
    }

    fn text(&self, file: u32) -> String {
        let first = file * PER_FILE;
        let end = (first + PER_FILE).min(self.count);
        let consumers = (first..end).map(|index| consumer(&format!("consumer-{index}"), &hash(index)));
        consumers.collect::<Vec<_>>().join("---\n")
    }
}

/// Asks for the list of models.
fn probe(key: &str, status: u16) -> Probe {
    let request = format!("GET /v1/models HTTP/1.1\r\nhost: {MODELS_HOST}\r\nauthorization: Bearer {key}\r\n\r\n");
    Probe { request: request.into_bytes(), answer: Answer::Other(status) }
}

fn consumer(name: &str, hash: &str) -> String {
    format!(
        "\
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {{name: {name}}}
spec: {{keys: [{{sha256: {hash}}}]}}
"
    )
}

/// What a key's hash looks like. Nobody knows the key, and no two are the same.
fn hash(index: u32) -> String {
    (0..4).map(|part| format!("{:016x}", mixed(u64::from(index) * 4 + part))).collect()
}

/// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::parsed;
    use super::*;

    #[test]
    fn the_control_plane_takes_the_files_with_and_without_the_key() {
        let keys = Keys { folder: PathBuf::new(), count: 1_500 };
        let [added, revoked] = [keys.addition(), keys.revocation()];
        assert_eq!(added.file, revoked.file);
        for (change, count) in [(added, 1_502), (revoked, 1_501)] {
            let texts = [routes::models(8080), keys.text(0), change.text];
            assert_eq!(parsed::ir(&texts).keys.len(), count);
        }
    }
}
