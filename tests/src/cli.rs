//! The binary's short commands, and what a command leaves.

use std::process::{Command, Stdio};

use crate::tools::Tools;

#[derive(Clone, Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

// === impl Output ===

impl Output {
    pub fn success(self) -> anyhow::Result<Self> {
        anyhow::ensure!(self.code == Some(0), "{self:?}");
        Ok(self)
    }

    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs `tollgate` with these arguments to its end.
pub fn tollgate(tools: &Tools, arguments: &[&str]) -> anyhow::Result<Output> {
    let output = Command::new(&tools.tollgate).args(arguments).stdin(Stdio::null()).output()?;
    Ok(output.into())
}
