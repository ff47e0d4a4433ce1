//! `envoy.service.discovery.v3.AggregatedDiscoveryService` as routes of the proxies' port. The requests are read by tonic.
//! The responses are written by `answers.rs`.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::Response;
use axum::routing::post;
use tonic::codec::{Codec as _, Streaming};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic_prost::ProstCodec;

use super::ads::Ads;
use super::answers::Answers;
use super::standing::Claim;
use super::wire::{Delta, StateOfTheWorld, Wire};

const SERVICE: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService";

/// The most bytes of one discovery request. A proxy that comes back names the version of each key that it has, in about
/// 100 bytes. This is enough for 300,000 keys.
const MAX_REQUEST: usize = 32 << 20;

pub fn routes(ads: Ads) -> axum::Router {
    let path = |method| format!("{SERVICE}/{method}");
    axum::Router::new()
        .route(&path(Delta::METHOD), post(stream::<Delta>))
        .route(&path(StateOfTheWorld::METHOD), post(stream::<StateOfTheWorld>))
        .with_state(ads)
}

async fn stream<W: Wire + Unpin>(State(ads): State<Ads>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // A request that says that it is compressed is refused by tonic.
    let decoder = ProstCodec::<W::Response, W::Request>::default().decoder();
    let requests = Streaming::new_request(decoder, body, None, Some(MAX_REQUEST));
    match ads.drive::<W>(Claim::of_extensions(&parts.extensions), requests) {
        Ok(responses) => {
            let mut response = Response::new(Body::new(Answers::<W>::new(responses)));
            response.headers_mut().insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
            response
        }
        Err(status) => status.into_http(),
    }
}
