//! `tollgate.v1.Ledger` on the wire: takes a call, and returns its answer or a status. A caller without an identity is
//! refused.

use tollgate_proto::v1::{SyncRequest, SyncResponse, ledger_server};
use tonic::{Request, Response, Status};

use super::{Ledger, SyncError};
use crate::serve::identity::Identity;

/// See [`Ledger::grpc`].
#[derive(Debug)]
pub struct Service {
    ledger: Ledger,
}

// === impl Service ===

impl Service {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }
}

#[tonic::async_trait]
impl ledger_server::Ledger for Service {
    async fn sync(&self, request: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        let identity = Identity::of_request(&request)?.clone();
        self.ledger.sync(&identity, request.into_inner()).await.map(Response::new).map_err(Status::from)
    }
}

impl From<SyncError> for Status {
    /// The status for the caller. Unavailable asks the caller to send the same call again. After the others that would
    /// not help.
    fn from(error: SyncError) -> Self {
        match &error {
            SyncError::Invalid(_) => Self::invalid_argument(error.to_string()),
            SyncError::Past(_) => Self::failed_precondition(error.to_string()),
            // The path of the file is the operator's business, and it is in the log.
            SyncError::Store(_) => Self::unavailable("the ledger cannot write; see the control plane's log"),
            SyncError::Busy | SyncError::Closed => Self::unavailable(error.to_string()),
        }
    }
}
