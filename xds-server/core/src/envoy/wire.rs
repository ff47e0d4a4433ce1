//! Small pieces of Envoy's messages that everything here is made of.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration as WireDuration, UInt32Value};
use prost::{Message, Name};

pub fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub fn extension<M: Message + Name>(name: &str, message: &M) -> core::TypedExtensionConfig {
    core::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(any(message)) }
}

pub fn duration(duration: Duration) -> Option<WireDuration> {
    Some(WireDuration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    })
}

pub fn yes() -> Option<BoolValue> {
    Some(BoolValue { value: true })
}

pub fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// Envoy asks for a resource with this source on the one stream that everything comes on.
pub fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3 as i32,
        // Envoy waits without limit, so half a configuration is never put to work.
        initial_fetch_timeout: duration(Duration::ZERO),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})),
        ..Default::default()
    }
}

pub fn address(host: &str, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: host.to_owned(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

pub fn inline(text: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(text.to_owned())),
        ..Default::default()
    }
}

/// A file on the machine of the proxy.
pub fn file(path: &str) -> core::DataSource {
    core::DataSource { specifier: Some(core::data_source::Specifier::Filename(path.to_owned())), ..Default::default() }
}

pub fn prefix_of(text: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(MatchPattern::Prefix(text.to_owned())), ..Default::default() }
}
