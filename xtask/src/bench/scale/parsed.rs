//! What the control plane makes of generated files, for tests.

use tollgate_core::ir::Ir;
use tollgate_core::objects::{NoSecretSource, Objects};
use tollgate_core::placement::Placement;
use tollgate_core::translate::translate;

/// Nothing may be wrong with the files.
pub fn ir(texts: &[String]) -> Ir {
    let mut objects = Objects::default();
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(objects.add_yaml(&format!("{index}.yaml"), text, &NoSecretSource), []);
    }
    let translation = translate(&objects, Placement::OneHost);
    assert_eq!(translation.findings, []);
    translation.ir
}
