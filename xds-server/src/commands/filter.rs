//! `--filter`: in which form the proxies of Gateways run the filter.

use std::path::{Path, PathBuf};

use tollgate_core::envoy::{FilterCode as EnvoyCode, Runtime};

use crate::filter_code::{FilterCode, FilterCodeError, Form};

#[derive(Debug, clap::Args)]
pub struct FilterArgs {
    /// How Envoy runs the filter on the Gateways. Sidecars of a mesh run it as WebAssembly always, and so does a Gateway whose
    /// Consumers are known by JWTs
    #[arg(long, value_enum, default_value = "wasm", value_name = "FORM")]
    filter: Chosen,
    /// The filter as WebAssembly, in place of the one built in
    #[arg(long, value_name = "PATH")]
    wasm: Option<PathBuf>,
    /// The filter as a module for `--filter native`, in place of the one built in
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Chosen {
    /// In Envoy's sandbox for WebAssembly: a fault in it ends no more than the requests of one worker
    Wasm,
    /// As machine code inside Envoy, which costs a request less. It needs Envoy 1.40 with glibc, on this processor; what Envoy
    /// offers to such modules may change with its next version
    Native,
}

/// The filter's code, in the forms that proxies of this control plane ask for.
#[derive(Debug)]
pub struct Codes {
    /// Sidecars and some Gateways have it always.
    pub wasm: FilterCode,
    /// None: no proxy runs it.
    pub module: Option<FilterCode>,
}

#[derive(Debug, thiserror::Error)]
pub enum FilterArgsError {
    #[error("--module names a filter that nobody would run (add --filter native)")]
    NobodyRunsIt,
    #[error(transparent)]
    Code(#[from] FilterCodeError),
}

// === impl FilterArgs ===

impl FilterArgs {
    /// # Errors
    /// When a form has no code.
    pub fn load(&self) -> Result<Codes, FilterArgsError> {
        if self.filter == Chosen::Wasm && self.module.is_some() {
            return Err(FilterArgsError::NobodyRunsIt);
        }
        let module = match self.filter {
            Chosen::Wasm => None,
            Chosen::Native => Some(FilterCode::load(Form::Module, self.module.as_deref())?),
        };
        Ok(Codes { wasm: FilterCode::load(Form::Wasm, self.wasm.as_deref())?, module })
    }
}

// === impl Codes ===

impl Codes {
    /// How Envoy on this machine runs the filter, from files in this folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn put_into(&self, dir: &Path) -> Result<(EnvoyCode, Runtime), FilterCodeError> {
        let file = |code: &FilterCode| code.put_into(dir).map(|path| EnvoyCode::File(path.display().to_string()));
        let runtime = match &self.module {
            Some(module) => Runtime::Native(file(module)?),
            None => Runtime::Wasm,
        };
        Ok((file(&self.wasm)?, runtime))
    }

    /// How Envoys elsewhere run it: they fetch it from here.
    pub fn remote(&self) -> (EnvoyCode, Runtime) {
        let remote = |code: &FilterCode| EnvoyCode::Remote {
            sha256: code.sha256.clone(),
            path: format!("/code/{}", code.file_name()),
        };
        (remote(&self.wasm), self.module.as_ref().map_or(Runtime::Wasm, |module| Runtime::Native(remote(module))))
    }
}
