//! Translates between the two forms of xDS messages and the one form that `core::subscription` speaks.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource as WireResource,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use sha2::{Digest as _, Sha256};
use tollgate_core::snapshot::{Resource, ResourceType};
use tollgate_core::subscription::{Answer, Ask, Protocol, Request, Response};

/// One form of xDS.
pub trait Wire: Send + 'static {
    const PROTOCOL: Protocol;
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// The type and request are None if the type is not served here.
    fn read(request: Self::Request) -> (Option<Node>, Option<(ResourceType, Request)>);
    fn write(response: Response) -> Self::Response;
}

#[derive(Debug)]
pub struct Delta;

#[derive(Debug)]
pub struct StateOfTheWorld;

// === impl Delta ===

impl Wire for Delta {
    const PROTOCOL: Protocol = Protocol::Delta;
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn read(request: DeltaDiscoveryRequest) -> (Option<Node>, Option<(ResourceType, Request)>) {
        let kind = ResourceType::from_type_url(&request.type_url);
        let ask = Ask::Change {
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            initial: request.initial_resource_versions.into_iter().collect(),
        };
        let answer = answer(request.response_nonce, request.error_detail);
        (request.node, kind.map(|kind| (kind, Request { answer, ask })))
    }

    fn write(response: Response) -> DeltaDiscoveryResponse {
        let kind = response.kind;
        DeltaDiscoveryResponse {
            system_version_info: version(&response),
            resources: response
                .resources
                .iter()
                .map(|(name, resource)| WireResource {
                    name: name.to_string(),
                    version: resource.version.to_string(),
                    resource: Some(any(kind, resource)),
                    ..WireResource::default()
                })
                .collect(),
            type_url: kind.type_url().to_owned(),
            removed_resources: response.removed.iter().map(ToString::to_string).collect(),
            nonce: response.nonce,
            ..DeltaDiscoveryResponse::default()
        }
    }
}

// === impl StateOfTheWorld ===

impl Wire for StateOfTheWorld {
    const PROTOCOL: Protocol = Protocol::StateOfTheWorld;
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn read(request: DiscoveryRequest) -> (Option<Node>, Option<(ResourceType, Request)>) {
        let kind = ResourceType::from_type_url(&request.type_url);
        let answer = answer(request.response_nonce, request.error_detail);
        let request_for = |kind| (kind, Request { answer, ask: Ask::Exactly(request.resource_names) });
        (request.node, kind.map(request_for))
    }

    fn write(response: Response) -> DiscoveryResponse {
        let kind = response.kind;
        DiscoveryResponse {
            version_info: version(&response),
            resources: response.resources.values().map(|resource| any(kind, resource)).collect(),
            type_url: kind.type_url().to_owned(),
            nonce: response.nonce,
            ..DiscoveryResponse::default()
        }
    }
}

fn answer(nonce: String, error: Option<RpcStatus>) -> Answer {
    match (nonce.is_empty(), error) {
        (true, _) => Answer::Nothing,
        (false, None) => Answer::Ack { nonce },
        (false, Some(error)) => Answer::Nack { nonce, message: error.message },
    }
}

fn any(kind: ResourceType, resource: &Resource) -> Any {
    Any { type_url: kind.type_url().to_owned(), value: resource.value.clone() }
}

/// Names the contents of a response, for people and for Envoy's statistics.
fn version(response: &Response) -> String {
    let mut hash = Sha256::new();
    for (name, resource) in &response.resources {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(resource.version.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    hex::encode(digest.first_chunk::<8>().unwrap_or(&[0; 8]))
}
