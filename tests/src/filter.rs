//! In which form the tests run the filter: `TOLLGATE_TEST_FILTER` says `wasm` or `native`, and nothing means `wasm`.

use std::path::Path;

use crate::tools::Tools;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As WebAssembly.
    Wasm,
    /// As a dynamic module of Envoy.
    Native,
}

// === impl Form ===

impl Form {
    pub fn chosen() -> Self {
        match std::env::var("TOLLGATE_TEST_FILTER").as_deref() {
            Ok("native") => Self::Native,
            _ => Self::Wasm,
        }
    }

    /// What `tollgate run` and `tollgate serve` are told of it.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Wasm => &[],
            Self::Native => &["--filter", "native"],
        }
    }

    /// The option that names other code of this form.
    pub fn option(self) -> &'static str {
        match self {
            Self::Wasm => "--wasm",
            Self::Native => "--module",
        }
    }

    /// The code as it was built.
    pub fn code(self, tools: &Tools) -> &Path {
        match self {
            Self::Wasm => &tools.filter,
            Self::Native => &tools.module,
        }
    }

    /// The same code with another hash: with something at its end that nobody reads.
    pub fn of_version(self, code: &[u8], version: u8) -> Vec<u8> {
        match self {
            // A custom section (WebAssembly specification, section 5.5.3).
            Self::Wasm => [code, &[0, 3, 1, b'v', version]].concat(),
            // Bytes that no header of the file speaks of (ELF, chapter 4).
            Self::Native => [code, &[version]].concat(),
        }
    }

    /// What the names of our counters begin with in Envoy's text for Prometheus, which leaves out what it knows of as WebAssembly's.
    pub fn counters(self) -> &'static str {
        match self {
            Self::Wasm => "tollgate_",
            Self::Native => "envoy_wasmcustom_tollgate_",
        }
    }

    /// Where the tests' folders are, below `logs/`.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Wasm => "e2e",
            Self::Native => "e2e-native",
        }
    }
}
