//! What the leader answers to other replicas. Those who are no leader refuse.

use std::fmt::Debug;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tollgate_proto::replica::replica_server::{Replica, ReplicaServer, SERVICE_NAME};
use tollgate_proto::replica::{BudgetRows, Call, News, Page, Plot, SeriesQuery, UsageQuery, UsageRows};
use tollgate_proto::v1::{MAX_CALL_BYTES, SyncResponse};
use tonic::{Request, Response, Status, Streaming};

use super::books::Books;
use super::reports::{self, Build};
use super::{plots, rows};
use crate::identity::Caller;
use crate::ledger::{Embedded, Ledger as _, StoreError};
use crate::report::board::Board;

/// So many messages wait for a replica.
const QUEUE: usize = 16;
/// The most bytes of a message: a full one of reports, in most cases, and a call with what stands around it.
const MAX_MESSAGE: usize = 8 << 20;
const _: () = assert!(MAX_CALL_BYTES < MAX_MESSAGE, "a call has room in it");

/// The routes of the service, for connections that know their caller.
pub fn router(books: Books, board: Board, build: Build) -> axum::Router {
    let service = ReplicaServer::new(Service { books, board, build }).max_decoding_message_size(MAX_MESSAGE);
    axum::Router::new().route_service(&format!("/{SERVICE_NAME}/{{*method}}"), service)
}

#[derive(Debug)]
struct Service {
    books: Books,
    board: Board,
    build: Build,
}

// === impl Service ===

impl Service {
    fn ledger<T>(&self, request: &Request<T>) -> Result<Embedded, Status> {
        Caller::is_replica(request)?;
        self.books.here().ok_or_else(|| Status::unavailable("this replica does not have the ledger"))
    }
}

#[tonic::async_trait]
impl Replica for Service {
    async fn sync(&self, request: Request<Call>) -> Result<Response<SyncResponse>, Status> {
        let ledger = self.ledger(&request)?;
        let Call { identity, request } = request.into_inner();
        let request = request.ok_or_else(|| Status::invalid_argument("request is missing"))?;
        ledger.sync(&identity, request).await.map(Response::new).map_err(Status::from)
    }

    async fn usage(&self, request: Request<UsageQuery>) -> Result<Response<UsageRows>, Status> {
        let ledger = self.ledger(&request)?;
        let listed = ledger.usage(rows::usage_query_of(request.into_inner())).await.map_err(unreadable)?;
        Ok(Response::new(rows::of_usage_rows(listed)))
    }

    async fn series(&self, request: Request<SeriesQuery>) -> Result<Response<Plot>, Status> {
        let ledger = self.ledger(&request)?;
        let query = plots::query_of(request.into_inner());
        let rows = ledger.series(query).await.map_err(unreadable)?;
        Ok(Response::new(plots::of_rows(rows)))
    }

    async fn budgets(&self, request: Request<Page>) -> Result<Response<BudgetRows>, Status> {
        let ledger = self.ledger(&request)?;
        let listed = ledger.budgets(rows::page_of(request.into_inner())).await.map_err(unreadable)?;
        Ok(Response::new(rows::of_budget_rows(listed)))
    }

    type ReportsStream = futures::stream::Map<ReceiverStream<News>, fn(News) -> Result<News, Status>>;

    async fn reports(&self, request: Request<Streaming<News>>) -> Result<Response<Self::ReportsStream>, Status> {
        self.ledger(&request)?;
        let teller = self.board.replica();
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (board, build, mut books) = (self.board.clone(), self.build.clone(), self.books.clone());
        let incoming = request.into_inner();
        tokio::spawn(async move {
            tokio::select! {
                () = reports::tell(&board, &build, |other| other != teller, sender) => {}
                heard = reports::hear(&board, &build, teller, incoming) => {
                    if let Err(status) = heard {
                        tracing::debug!(%status, "a replica does not tell any more");
                    }
                }
                () = books.gone() => {}
            }
        });
        Ok(Response::new(futures::StreamExt::map(ReceiverStream::new(receiver), Ok)))
    }
}

/// What is wrong with the file is in this replica's log.
fn unreadable(error: StoreError) -> Status {
    tracing::warn!(%error, "another replica's question cannot be answered");
    Status::unavailable("the ledger cannot be read; see the log of the leader")
}
