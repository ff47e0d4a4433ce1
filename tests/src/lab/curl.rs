//! What curl is told by a server of the lab.

use anyhow::Context;

use crate::cli::Output;

/// How it is called, before what it asks for. Whoever does not answer at all is asked again soon; an answer may take its time.
pub const CURL: [&str; 7] = ["curl", "-s", "-i", "--connect-timeout", "15", "--max-time", "120"];

/// An answer to a client in the cluster.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

// === impl Answer ===

impl Answer {
    /// # Errors
    /// When curl got none.
    pub fn read(output: Output) -> anyhow::Result<Self> {
        let output = output.success()?;
        let (head, body) = output.out.split_once("\r\n\r\n").with_context(|| format!("no answer: {output:?}"))?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        Ok(Self { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// # Errors
    /// When it is another one.
    pub fn expect(self, status: u16) -> anyhow::Result<Self> {
        anyhow::ensure!(self.status == status, "{self:?}");
        Ok(self)
    }
}
