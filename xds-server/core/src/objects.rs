//! To be written.

use crate::status::Finding;

/// Every object that is known, valid in itself. References between objects are checked by `translate`.
#[derive(Debug, Default, Clone)]
pub struct Objects {}

impl Objects {
    /// Reads the YAML (or JSON) documents of one file and adds what is valid.
    ///
    /// `file` is only for messages. Values of Secrets by `file:` and `env:` are resolved by `secrets`.
    pub fn add_yaml(&mut self, _file: &str, _text: &str, _secrets: &dyn SecretSource) -> Vec<Finding> {
        Vec::new()
    }
}

/// Where `file:` and `env:` references of Secrets are read; the edge has the real one.
pub trait SecretSource {
    /// # Errors
    /// Why it cannot be read, for the user.
    fn file(&self, path: &str) -> Result<String, String>;
    /// # Errors
    /// Why it cannot be read, for the user.
    fn env(&self, name: &str) -> Result<String, String>;
}
