//! What the control plane makes of generated files, for tests.

use tollgate_core::ir::Ir;
use tollgate_core::objects::{Objects, SecretSource};
use tollgate_core::translate::translate;

struct Nothing;

// === impl Nothing ===

impl SecretSource for Nothing {
    fn file(&self, _: &str) -> Result<String, String> {
        Err("no files".to_owned())
    }

    fn env(&self, _: &str) -> Result<String, String> {
        Err("no environment".to_owned())
    }
}

/// Nothing may be wrong with the files.
pub fn ir(texts: &[String]) -> Ir {
    let mut objects = Objects::default();
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(objects.add_yaml(&format!("{index}.yaml"), text, &Nothing), []);
    }
    let translation = translate(&objects);
    assert_eq!(translation.findings, []);
    translation.ir
}
