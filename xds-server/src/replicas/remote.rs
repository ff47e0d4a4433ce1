//! The ledger of the leader, asked from another replica.

use std::time::Duration;

use tokio::time::timeout;
use tollgate_proto::replica::{Call, replica_client::ReplicaClient};
use tollgate_proto::v1::{SyncRequest, SyncResponse};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{plots, rows};
use crate::ledger::query::{BudgetRow, Listed, Page, UsageQuery, UsageRow};
use crate::ledger::series::{SeriesQuery, SeriesRow};
use crate::ledger::{Ledger, StoreError, SyncError};

/// The longest that a question takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes of an answer. `MAX_ROWS` of usage are a few megabytes.
const MAX_ANSWER: usize = 32 << 20;

#[derive(Debug, Clone)]
pub struct Remote(ReplicaClient<Channel>);

// === impl Remote ===

impl Remote {
    pub fn new(client: ReplicaClient<Channel>) -> Self {
        Self(client.max_decoding_message_size(MAX_ANSWER))
    }
}

#[tonic::async_trait]
impl Ledger for Remote {
    async fn sync(&self, identity: &str, request: SyncRequest) -> Result<SyncResponse, SyncError> {
        let call = Call { identity: identity.to_owned(), request: Some(request) };
        asked(self.0.clone().sync(call)).await.map_err(|status| match status.code() {
            // About the call, whoever asks.
            code @ (Code::InvalidArgument | Code::FailedPrecondition) => {
                SyncError::Elsewhere { code, message: status.message().to_owned() }
            }
            // About us. The proxy is to ask again.
            _ => SyncError::Elsewhere { code: Code::Unavailable, message: status.message().to_owned() },
        })
    }

    async fn usage(&self, query: UsageQuery) -> Result<Listed<UsageRow>, StoreError> {
        let rows = asked(self.0.clone().usage(rows::usage_query(query))).await.map_err(elsewhere)?;
        Ok(rows::usage_rows(rows))
    }

    /// Too much to pass on.
    async fn backup(&self) -> Result<std::fs::File, StoreError> {
        Err(StoreError::NotHere)
    }

    async fn series(&self, query: SeriesQuery) -> Result<Vec<SeriesRow>, StoreError> {
        let plot = asked(self.0.clone().series(plots::query(query))).await.map_err(elsewhere)?;
        Ok(plots::rows(plot))
    }

    async fn budgets(&self, page: Page) -> Result<Listed<BudgetRow>, StoreError> {
        let rows = asked(self.0.clone().budgets(rows::page(page))).await.map_err(elsewhere)?;
        Ok(rows::budget_rows(rows))
    }
}

async fn asked<T>(answer: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_elapsed) => Err(Status::unavailable("the leader does not answer")),
    }
}

fn elsewhere(status: Status) -> StoreError {
    StoreError::Elsewhere(status.message().to_owned())
}
