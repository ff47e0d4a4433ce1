//! What a client asked for, kept for the access log and for spans: these are made at the end of a request, and each attempt at a
//! backend writes the backend's own path and authority into the headers. It stands before all other filters.

use envoy_types::pb::envoy::config::core::v3::{SubstitutionFormatString, substitution_format_string::Format};
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::{Key, Value};
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3::Config;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use super::cluster::filter;
use super::wire::inline;

/// The path without its query: some clients put a key there.
pub const PATH: &str = "%FILTER_STATE(tollgate.asked.path:PLAIN)%";
pub const AUTHORITY: &str = "%FILTER_STATE(tollgate.asked.authority:PLAIN)%";

const KEPT: [(&str, &str); 2] =
    [("tollgate.asked.path", "%PATH(NQ:PATH)%"), ("tollgate.asked.authority", "%REQ(:AUTHORITY)%")];

pub fn keep() -> HttpFilter {
    let value = |(key, format): (&str, &str)| FilterStateValue {
        key: Some(Key::ObjectKey(key.to_owned())),
        factory_key: "envoy.string".to_owned(),
        value: Some(Value::FormatString(SubstitutionFormatString {
            format: Some(Format::TextFormatSource(inline(format))),
            ..Default::default()
        })),
        skip_if_empty: true,
        ..Default::default()
    };
    let config = Config { on_request_headers: KEPT.into_iter().map(value).collect(), ..Default::default() };
    filter("tollgate.asked", &config)
}
