//! `tollgate.v1.Ledger` on the wire: takes a call, and returns its answer or a status. A caller without an identity is
//! refused.

use std::sync::Arc;

use tollgate_proto::v1::{SyncRequest, SyncResponse, ledger_server};
use tonic::{Request, Response, Status};

use super::{Ledger, SyncError};
use crate::identity::Identity;

/// See [`service`](super::service).
#[derive(Debug)]
pub struct Service {
    ledger: Arc<dyn Ledger>,
}

// === impl Service ===

impl Service {
    pub(super) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger }
    }
}

#[tonic::async_trait]
impl ledger_server::Ledger for Service {
    async fn sync(&self, request: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        let identity = Identity::of_request(&request)?.to_string();
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
            SyncError::Busy | SyncError::Contended(_) | SyncError::Closed | SyncError::NoOwner => {
                Self::unavailable(error.to_string())
            }
            SyncError::Elsewhere { code, message } => Self::new(*code, message),
        }
    }
}
