//! What each attempt passes on its way to a backend, and the answer on its way back.
//!
//! ```text
//! removal of credentials -> [our filter] -> this backend's credential -> codec
//! ```
//! Envoy gives an attempt the headers that the attempt before left. So every backend's cluster removes every credential
//! that any cluster puts in. Envoy itself does that and not our filter, because a retry may arrive here while the
//! configuration changes. This cluster may then have no filter of ours, or one that does not know the plan of the
//! request's attempts. The removal comes first, so that nothing can end, hold or change an attempt that still carries
//! another provider's key.

use envoy_types::pb::envoy::config::common::mutation_rules::v3 as mutation;
use envoy_types::pb::envoy::extensions::filters::http::credential_injector::v3::CredentialInjector;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::{HeaderMutation, Mutations};
use envoy_types::pb::envoy::extensions::filters::http::upstream_codec::v3::UpstreamCodec;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::extensions::http::injected_credentials::generic::v3::Generic;

use crate::ir;

use super::cluster::filter;
use super::secret::{by_sds, credential_name};
use super::wasm;
use super::wire::extension;

/// The headers where a credential can stand. `placement` names no other.
const CREDENTIALS: [&str; 3] = [AUTHORIZATION, X_API_KEY, API_KEY];
const AUTHORIZATION: &str = "authorization";
const X_API_KEY: &str = "x-api-key";
const API_KEY: &str = "api-key";

/// With these headers a client would choose for whom in the operator's account a request is made.
const ACCOUNT_OF_REQUEST: [&str; 4] = ["anthropic-organization-id", "cookie", "openai-organization", "openai-project"];

/// Headers of an answer that tell a client whose account serves it, or that bind it to that account. The last two speak
/// for the provider's host, and a client would think that they speak for ours.
const ACCOUNT_OF_ANSWER: [&str; 6] = [
    "anthropic-organization-id",
    "openai-organization",
    "openai-project",
    "set-cookie",
    "alt-svc",
    "strict-transport-security",
];

/// The HTTP filters of a backend's cluster.
pub fn filters(gateway: &ir::Gateway, backend: &ir::Backend) -> Vec<HttpFilter> {
    let mut filters = vec![filter("envoy.filters.http.header_mutation", &removals(backend))];
    if backend.per_attempt {
        filters.push(wasm::discovered(wasm::attempt_name(&gateway.catalog.scope)));
    }
    if backend.credential.is_some() {
        filters.push(filter("envoy.filters.http.credential_injector", &injector(backend)));
    }
    filters.push(filter("envoy.filters.http.upstream_codec", &UpstreamCodec {}));
    filters
}

fn removals(backend: &ir::Backend) -> HeaderMutation {
    let mut request: Vec<_> = CREDENTIALS.map(remove).into();
    let mut response = Vec::new();
    // A runner of one's own has no account that could be told or chosen.
    if backend.credential.is_some() {
        request.extend(ACCOUNT_OF_REQUEST.map(remove));
        response.extend(ACCOUNT_OF_ANSWER.map(remove));
    }
    let mutations = Mutations { request_mutations: request, response_mutations: response, ..Default::default() };
    HeaderMutation { mutations: Some(mutations), ..Default::default() }
}

fn injector(backend: &ir::Backend) -> CredentialInjector {
    let (header, prefix) = placement(backend.schema);
    let generic = Generic {
        credential: Some(by_sds(credential_name(backend))),
        header: header.to_owned(),
        header_value_prefix: prefix.to_owned(),
    };
    CredentialInjector {
        overwrite: true,
        credential: Some(extension("envoy.http.injected_credentials.generic", &generic)),
        ..Default::default()
    }
}

/// The header of a credential, and the text before the credential in it.
fn placement(schema: ir::Schema) -> (&'static str, &'static str) {
    match schema {
        ir::Schema::OpenAI => (AUTHORIZATION, "Bearer "),
        ir::Schema::Anthropic => (X_API_KEY, ""),
        ir::Schema::AzureOpenAI => (API_KEY, ""),
    }
}

fn remove(name: &str) -> mutation::HeaderMutation {
    mutation::HeaderMutation { action: Some(mutation::header_mutation::Action::Remove(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_credential_that_is_put_in_is_taken_out() {
        for schema in [ir::Schema::OpenAI, ir::Schema::Anthropic, ir::Schema::AzureOpenAI] {
            assert!(CREDENTIALS.contains(&placement(schema).0), "{schema:?}");
        }
    }
}
