//! The admin port of `run` and `serve`: where it is, and who may use it.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

use super::ask;
use super::stages::{Admin, listen};
use crate::admin::{Entrance, TokenFile};

#[derive(Debug, Clone, clap::Args)]
pub struct AdminPort {
    /// Address of the admin API and its page: usage, budgets, status, metrics, probes
    #[arg(long, default_value = ask::DEFAULT, value_name = "IP:PORT")]
    admin: String,
    /// File with the token that every path of the admin port but its probes wants, as `authorization: Bearer TOKEN` or in
    /// the page's login form. A new token in it acts at once. Without it the port asks nobody who he is
    #[arg(long, env = "TOLLGATE_ADMIN_TOKEN_FILE", value_name = "PATH")]
    admin_token_file: Option<PathBuf>,
    /// Let everybody in who reaches an admin port that is not this machine's alone
    #[arg(long, conflicts_with = "admin_token_file")]
    admin_without_token: bool,
}

/// Others reach the port, and nobody has said who may use it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the admin port would listen on {0}, where others reach it, and ask nobody who he is: --admin-token-file names a file \
     with a token (openssl rand -hex 32 makes one), {default} keeps the port to this machine, and --admin-without-token lets \
     everybody in",
    default = ask::DEFAULT
)]
pub struct Unguarded(SocketAddr);

// === impl AdminPort ===

impl AdminPort {
    /// Opens the port. Nobody is answered yet.
    pub async fn open(&self) -> anyhow::Result<(SocketAddr, Admin)> {
        let listener: TcpListener = listen(&self.admin, "--admin").await?;
        let address = listener.local_addr()?;
        let entrance = match &self.admin_token_file {
            Some(path) => Entrance::by(TokenFile::open(path)?),
            None if address.ip().to_canonical().is_loopback() || self.admin_without_token => Entrance::Open,
            None => return Err(Unguarded(address).into()),
        };
        Ok((address, Admin::All(listener, entrance)))
    }
}
