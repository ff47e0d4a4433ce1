//! LiteLLM's configuration as our objects, for people who move: `tollgate import litellm`. It stands beside the way of the
//! data. Texts go in, and texts come out that `files/` reads like any others.
//!
//! ```text
//! config.yaml -> section.rs -> deployment.rs, settings.rs -> pool.rs --+
//! keys.json   -> section.rs -> keys.rs --------------------------------+-> written.rs -> YAML
//! ```
//!
//! A field is taken out of its section where it is understood. What is left in a section is listed, so nothing is dropped
//! without a word. A finding of severity error says that LiteLLM did something that is not done here; a warning says what
//! is done in another way, or what its reader has to do. No value of a key is in a finding or in the documents.

mod access;
mod deployment;
mod endpoint;
mod fallbacks;
mod given;
mod keys;
mod known;
mod names;
mod notes;
mod pool;
mod provider;
mod secrets;
mod section;
mod settings;
mod timeouts;
mod weights;
mod written;

pub use self::written::Written;

use crate::files;
use crate::status::Finding;

use self::access::Consumers;
use self::deployment::Deployments;
use self::notes::Notes;
use self::secrets::Secrets;
use self::section::Section;
use self::settings::Settings;
use self::written::{Limit, Objects};

/// A file of LiteLLM's.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// For findings.
    pub name: &'a str,
    pub text: &'a str,
}

/// Variables of the environment. Values of keys are not asked for.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What there is to import.
#[derive(Clone, Copy)]
pub struct Import<'a> {
    pub config: Text<'a>,
    /// An export of LiteLLM's keys.
    pub keys: Option<Text<'a>>,
    /// Where the Gateway listens. LiteLLM has that on its command line.
    pub port: u16,
    pub environment: Environment<'a>,
}

/// The objects, and what they do not say.
#[derive(Debug)]
pub struct Imported {
    /// In the order in which people read them.
    pub files: Vec<Written>,
    pub findings: Vec<Finding>,
}

/// No configuration that a person wrote is longer.
pub const MAX_CONFIG: usize = 4 << 20;
/// A hundred thousand keys.
pub const MAX_KEYS: usize = 256 << 20;

// === impl Import ===

impl Import<'_> {
    /// What the texts mean. Where one cannot be read at all, the findings say so, and nothing is written.
    pub fn run(&self) -> Imported {
        let mut notes = Notes::new(self.config.name);
        let imported = self.read(&mut notes);
        let mut findings = notes.into_findings();
        findings.sort_by(Finding::by_spot);
        // Several models may have what is said of in common.
        findings.dedup();
        Imported { files: imported.unwrap_or_default(), findings }
    }

    fn read(&self, notes: &mut Notes) -> Option<Vec<Written>> {
        let mut root = Section::root(parsed(self.config, MAX_CONFIG, notes)?, notes);
        let mut secrets = Secrets::new(self.config.text);
        let credentials = given::credentials(&mut root, notes);
        let Settings { router, master_key } = settings::settings(&mut root, self.keys.is_some(), notes);
        let deployments = deployment::all(&mut root, &credentials, &router, self.environment, &mut secrets, notes);
        let models = pool::models(&deployments, &router, notes);
        let mut consumers = access::master(master_key, self.environment, &mut secrets, notes);
        root.leave(known::ROOT, notes);
        let limits = self.read_keys(&deployments, &mut consumers, notes);
        let backends = &deployments.backends;
        Some(written::files(Objects { port: self.port, models, backends, consumers, limits, secrets }))
    }

    fn read_keys(&self, deployments: &Deployments, consumers: &mut Consumers, notes: &mut Notes) -> Vec<Limit> {
        let Some(keys) = self.keys else { return Vec::new() };
        notes.read_another(keys.name);
        match parsed(keys, MAX_KEYS, notes) {
            Some(value) => keys::consumers(value, deployments, consumers, notes),
            None => Vec::new(),
        }
    }
}

/// The one document of a file.
fn parsed(text: Text<'_>, most: usize, notes: &mut Notes) -> Option<serde_json::Value> {
    if text.text.len() > most {
        notes.invalid("", format_args!("the file is larger than {} MiB", most >> 20), "");
        return None;
    }
    match files::parse(text.text) {
        Ok(documents) => {
            let mut documents = documents.into_iter();
            let Some(document) = documents.next() else {
                notes.invalid("", "the file is empty", "");
                return None;
            };
            notes.stands(document.lines);
            if documents.next().is_some() {
                notes.invalid("", "the file has several documents", "LiteLLM reads one");
                return None;
            }
            Some(document.value)
        }
        Err(error) => {
            notes.syntax(error);
            None
        }
    }
}
