//! `tollgate.v1.Ledger` on the wire: a call in, its answer or a status out.

use tollgate_proto::v1::{SyncRequest, SyncResponse, ledger_server};
use tonic::{Request, Response, Status};

use super::Ledger;

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
    async fn sync(&self, _request: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        let _ledger = &self.ledger;
        Err(Status::unavailable("the ledger is not open"))
    }
}
