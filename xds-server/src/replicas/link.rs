//! A replica's connection to the leader.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tollgate_proto::replica::replica_client::ReplicaClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::remote::Remote;
use super::reports::{self, Build};
use crate::causes;
use crate::report::board::{Board, Teller};
use crate::serve::pki::{CurrentAuthority, Leaf, PkiError, SERVER_NAME};

const CONNECTS: Duration = Duration::from_secs(3);
/// A leader that stands still is noticed by pings within twice this time.
const PINGS: Duration = Duration::from_secs(2);
/// So many messages wait for the leader.
const QUEUE: usize = 16;

#[derive(Debug)]
pub struct Link {
    pub authority: CurrentAuthority,
    /// How long the certificate for a connection lives.
    pub lifetime: Duration,
    pub board: Board,
    pub build: Build,
}

/// Why the leader cannot be asked, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("{}", causes::of(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("{}", .0.message())]
    Status(#[from] Box<tonic::Status>),
    #[error("it has closed the connection")]
    Closed,
}

// === impl Link ===

impl Link {
    /// Connects to the leader, says when it can be asked, and tells it what proxies say, for as long as it listens.
    pub async fn ask(&self, leader: SocketAddr, can_be_asked: impl FnOnce(Remote)) -> Ended {
        match self.connected(leader, can_be_asked).await {
            Ok(()) => Ended::Closed,
            Err(ended) => ended,
        }
    }

    async fn connected(&self, leader: SocketAddr, can_be_asked: impl FnOnce(Remote)) -> Result<(), Ended> {
        let mut client = ReplicaClient::new(self.connect(leader).await?);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let telling = reports::tell(&self.board, &self.build, |teller| teller == Teller::Proxy, sender);
        let hearing = async {
            let answers = client.reports(ReceiverStream::new(receiver)).await.map_err(Box::new)?.into_inner();
            can_be_asked(Remote::new(client));
            reports::hear(&self.board, &self.build, self.board.replica(), answers).await.map_err(Box::new)?;
            Ok(())
        };
        tokio::select! {
            () = telling => Ok(()),
            heard = hearing => heard,
        }
    }

    async fn connect(&self, leader: SocketAddr) -> Result<Channel, Ended> {
        let authority = self.authority.get();
        let issued = authority.issue(Leaf::Replica, self.lifetime)?;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authority.trusted()))
            .identity(Identity::from_pem(&issued.certificate, &issued.key))
            .domain_name(SERVER_NAME);
        let endpoint = Endpoint::from_shared(format!("https://{leader}"))?
            .tls_config(tls)?
            .connect_timeout(CONNECTS)
            .http2_keep_alive_interval(PINGS)
            .keep_alive_timeout(PINGS)
            .keep_alive_while_idle(true);
        Ok(endpoint.connect().await?)
    }
}
