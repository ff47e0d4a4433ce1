//! Translates between the two forms of xDS messages and the one form that `core::subscription` speaks.
//!
//! A response is written in parts, one for each resource. Protocol Buffers merge what stands behind each other: the parts
//! in a row are the encoded message ("Last One Wins" and repeated fields, protobuf.dev/programming-guides/encoding).

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource as WireResource,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use prost::Message;
use sha2::{Digest as _, Sha256};
use tollgate_core::snapshot::{Resource, ResourceType};
use tollgate_core::subscription::{Answer, Ask, Protocol, Request, Response};

/// One form of xDS.
pub trait Wire: Send + Sync + 'static {
    const PROTOCOL: Protocol;
    /// Of the service, after its name.
    const METHOD: &'static str;
    type Request: Message + Default + 'static;
    type Response: Message + Default + 'static;

    /// The type and request are None if the type is not served here.
    fn read(request: Self::Request) -> (Option<Node>, Option<(ResourceType, Request)>);
    /// Everything but the resources.
    fn head(response: &Response) -> Self::Response;
    /// One resource, and nothing else.
    fn part(kind: ResourceType, name: &str, resource: &Resource) -> Self::Response;
}

#[derive(Debug)]
pub struct Delta;

#[derive(Debug)]
pub struct StateOfTheWorld;

// === impl Delta ===

impl Wire for Delta {
    const PROTOCOL: Protocol = Protocol::Delta;
    const METHOD: &'static str = "DeltaAggregatedResources";
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

    fn head(response: &Response) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            system_version_info: version(response),
            type_url: response.kind.type_url().to_owned(),
            removed_resources: response.removed.iter().map(ToString::to_string).collect(),
            nonce: response.nonce.clone(),
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn part(kind: ResourceType, name: &str, resource: &Resource) -> DeltaDiscoveryResponse {
        let resource = WireResource {
            name: name.to_owned(),
            version: resource.version.to_string(),
            resource: Some(any(kind, resource)),
            ..WireResource::default()
        };
        DeltaDiscoveryResponse { resources: vec![resource], ..DeltaDiscoveryResponse::default() }
    }
}

// === impl StateOfTheWorld ===

impl Wire for StateOfTheWorld {
    const PROTOCOL: Protocol = Protocol::StateOfTheWorld;
    const METHOD: &'static str = "StreamAggregatedResources";
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn read(request: DiscoveryRequest) -> (Option<Node>, Option<(ResourceType, Request)>) {
        let kind = ResourceType::from_type_url(&request.type_url);
        let answer = answer(request.response_nonce, request.error_detail);
        let request_for = |kind| (kind, Request { answer, ask: Ask::Exactly(request.resource_names) });
        (request.node, kind.map(request_for))
    }

    fn head(response: &Response) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: version(response),
            type_url: response.kind.type_url().to_owned(),
            nonce: response.nonce.clone(),
            ..DiscoveryResponse::default()
        }
    }

    fn part(kind: ResourceType, _name: &str, resource: &Resource) -> DiscoveryResponse {
        DiscoveryResponse { resources: vec![any(kind, resource)], ..DiscoveryResponse::default() }
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
    Any { type_url: kind.type_url().to_owned(), value: resource.content.bytes().into_owned() }
}

/// Names the contents of a response, for people and for Envoy's statistics.
fn version(response: &Response) -> String {
    let mut hash = Sha256::new();
    for (name, resource) in response.resources.iter() {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(resource.version.to_string());
    }
    let digest: [u8; 32] = hash.finalize().into();
    hex::encode(digest.first_chunk::<8>().unwrap_or(&[0; 8]))
}
