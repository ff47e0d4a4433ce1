//! Resources for people: JSON by reflection. Nested messages and the filter's configuration are shown, secrets are not.

use std::sync::LazyLock;

use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use envoy_types::pb::google::protobuf::{Any, BytesValue};
use prost::{Message as _, Name as _};
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::snapshot::{Resource, ResourceType, Snapshot};

use super::wasm::with_filter;
use super::wire::inline;

/// How the configuration of a filter is printed, which travels as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// As it travels.
    AsBytes,
    /// As the message that it is.
    AsMessage,
}

/// It is a fault of this program.
#[derive(Debug, Error)]
#[error("the message cannot be printed: {0}")]
pub struct NotPrinted(String);

const REDACTED: &str = "[redacted]";
const FILTER_CONFIG: &str = "type.googleapis.com/tollgate.v1.FilterConfig";

/// Descriptors of every message that resources are made of.
static POOL: LazyLock<Result<DescriptorPool, prost_reflect::DescriptorError>> = LazyLock::new(|| {
    let mut pool = DescriptorPool::new();
    pool.decode_file_descriptor_set(include_bytes!(concat!(env!("OUT_DIR"), "/envoy.bin")).as_slice())?;
    pool.decode_file_descriptor_set(tollgate_proto::DESCRIPTORS)?;
    Ok(pool)
});

/// All resources by type and name.
pub fn to_json(snapshot: &Snapshot) -> Value {
    let mut types = Map::new();
    for kind in ResourceType::ALL {
        let resources: Map<String, Value> =
            snapshot.of(kind).map(|(name, resource)| (name.to_owned(), to_value(kind, resource))).collect();
        if !resources.is_empty() {
            types.insert(format!("{kind:?}"), Value::Object(resources));
        }
    }
    Value::Object(types)
}

/// One resource.
fn to_value(kind: ResourceType, resource: &Resource) -> Value {
    let bytes = resource.content.bytes();
    let value = match kind {
        ResourceType::Secret => redacted(&bytes),
        ResourceType::ExtensionConfig => opened(&bytes),
        _ => Some(bytes.into_owned()),
    };
    let name = kind.type_url().rsplit('/').next().unwrap_or_default();
    value.ok_or_else(|| "the message cannot be read".to_owned()).and_then(|value| reflect(name, &value)).unwrap_or_else(
        // The content is never shown, because it may be a secret.
        |error| json!({ "error": error }),
    )
}

/// A filter, as the TypedExtensionConfig that it is given as.
pub fn filter(message: &[u8], shown: Shown) -> Result<Value, NotPrinted> {
    let opened = match shown {
        Shown::AsBytes => None,
        Shown::AsMessage => opened(message),
    };
    reflect("envoy.config.core.v3.TypedExtensionConfig", opened.as_deref().unwrap_or(message)).map_err(NotPrinted)
}

/// The place of a filter among the others.
pub fn place(filter: &HttpFilter) -> Result<Value, NotPrinted> {
    reflect(&HttpFilter::full_name(), &filter.encode_to_vec()).map_err(NotPrinted)
}

fn reflect(name: &str, value: &[u8]) -> Result<Value, String> {
    let pool = POOL.as_ref().map_err(ToString::to_string)?;
    let descriptor = pool.get_message_by_name(name).ok_or_else(|| format!("no descriptor of {name}"))?;
    let message = DynamicMessage::decode(descriptor.clone(), value).map_err(|error| error.to_string())?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut json =
        message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| error.to_string())?;
    sort_maps(pool, &mut json, &descriptor);
    Ok(json)
}

/// Sorts the entries of maps, which have no order by themselves. Fields stand in the order of their message.
fn sort_maps(pool: &DescriptorPool, json: &mut Value, descriptor: &MessageDescriptor) {
    let Value::Object(fields) = json else { return };
    let inner = fields
        .get("@type")
        .and_then(Value::as_str)
        .and_then(|url| pool.get_message_by_name(url.rsplit('/').next().unwrap_or(url)));
    let descriptor = inner.as_ref().unwrap_or(descriptor);
    for (name, value) in fields.iter_mut() {
        let Some(field) = descriptor.get_field_by_name(name) else {
            continue;
        };
        let Kind::Message(message) = field.kind() else {
            continue;
        };
        match value {
            Value::Object(entries) if field.is_map() => {
                entries.sort_keys();
                if let Kind::Message(message) = message.map_entry_value_field().kind() {
                    entries.values_mut().for_each(|entry| sort_maps(pool, entry, &message));
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| sort_maps(pool, item, &message)),
            value => sort_maps(pool, value, &message),
        }
    }
}

/// Certificates and authorities are public; keys and credentials are not.
fn redacted(value: &[u8]) -> Option<Vec<u8>> {
    let mut message = Secret::decode(value).ok()?;
    match message.r#type.as_mut()? {
        secret::Type::GenericSecret(generic) => generic.secret = Some(inline(REDACTED)),
        secret::Type::TlsCertificate(certificate) => certificate.private_key = Some(inline(REDACTED)),
        secret::Type::ValidationContext(_) => {}
        secret::Type::SessionTicketKeys(_) => return None,
    }
    Some(message.encode_to_vec())
}

/// The filter's configuration travels as bytes. Here it is shown as the message that it is.
fn opened(value: &[u8]) -> Option<Vec<u8>> {
    with_filter(value, |_, configuration| {
        let bytes = BytesValue::decode(configuration.as_ref()?.value.as_slice()).ok()?;
        *configuration = Some(Any { type_url: FILTER_CONFIG.to_owned(), value: bytes.value });
        Some(())
    })
}
