//! The access log of a Gateway: Envoy's own, in JSON, a line for each request. Envoy writes it, whatever became of the request.
//!
//! No header that may hold a key is in it, and no query. A field that a request does not have is left out.

use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use envoy_types::pb::envoy::config::core::v3::{SubstitutionFormatString, substitution_format_string::Format};
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat};
use envoy_types::pb::google::protobuf::{Any, Struct, Value, value::Kind};
use prost::{Message as _, Name as _};

use super::asked::{AUTHORITY, PATH};
use super::signals::{FIELDS, PROVIDER, PROVIDER_FORMAT};

/// What Envoy knows of every request, under the names that Envoy's own JSON log and Istio's have for it.
const OF_ENVOY: [(&str, &str); 22] = [
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", PATH),
    ("protocol", "%PROTOCOL%"),
    ("authority", AUTHORITY),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("trace_id", "%TRACE_ID%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("duration_ms", "%DURATION%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("listener", "%FILTER_CHAIN_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
];

/// Lines in this file on the Envoy's machine.
pub fn in_file(path: &str) -> AccessLog {
    let mut value = FileAccessLog { path: path.to_owned(), ..Default::default() }.encode_to_vec();
    // A map of several entries is encoded in any order, and another order is another listener. Messages one after the other
    // are one message.
    let ours = FIELDS.iter().map(|field| (field.shown_as, field.format()));
    let ours = ours.chain([(PROVIDER, PROVIDER_FORMAT.to_owned())]);
    for (name, format) in OF_ENVOY.into_iter().map(|(name, format)| (name, format.to_owned())).chain(ours) {
        let json = Struct { fields: [(name.to_owned(), text(format))].into() };
        let format = SubstitutionFormatString {
            format: Some(Format::JsonFormat(json)),
            omit_empty_values: true,
            ..Default::default()
        };
        let more = FileAccessLog { access_log_format: Some(AccessLogFormat::LogFormat(format)), ..Default::default() };
        value.extend(more.encode_to_vec());
    }
    AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(Any { type_url: FileAccessLog::type_url(), value })),
        ..Default::default()
    }
}

fn text(value: String) -> Value {
    Value { kind: Some(Kind::StringValue(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> (Vec<u8>, String, Struct) {
        let Some(access_log::ConfigType::TypedConfig(any)) = in_file(path).config_type else { panic!("no config") };
        let log = FileAccessLog::decode(any.value.as_slice()).unwrap();
        let Some(AccessLogFormat::LogFormat(format)) = log.access_log_format else { panic!("{log:?}") };
        assert!(format.omit_empty_values);
        let Some(Format::JsonFormat(json)) = format.format else { panic!("{format:?}") };
        (any.value, log.path, json)
    }

    #[test]
    fn a_line_has_the_fields_of_envoy_and_ours_and_the_same_each_time() {
        let (bytes, path, json) = read("/dev/stdout");
        assert_eq!(path, "/dev/stdout");
        assert_eq!(json.fields.len(), OF_ENVOY.len() + FIELDS.len() + 1, "no name stands twice");
        let format = |name: &str| json.fields.get(name).unwrap().kind.clone().unwrap();
        let of = |text: &str| Kind::StringValue(text.to_owned());
        assert_eq!(format("gen_ai.usage.output_tokens"), of("%FILTER_STATE(wasm.tollgate.output_tokens:PLAIN)%"));
        assert_eq!(format("tollgate.backend"), of("%FILTER_STATE(wasm.tollgate.backend:PLAIN)%"));
        assert_eq!(format("path"), of("%FILTER_STATE(tollgate.asked.path:PLAIN)%"));
        for _ in 0..8 {
            assert!(read("/dev/stdout").0 == bytes, "another order is another listener");
        }
    }

    #[test]
    fn no_header_is_in_it_that_may_hold_a_key() {
        let (_, _, json) = read("-");
        let headers = ["%REQ(:METHOD)%", "%REQ(USER-AGENT)%", "%REQ(X-REQUEST-ID)%"];
        for value in json.fields.into_values() {
            let Some(Kind::StringValue(format)) = value.kind else { panic!("no text") };
            assert!(!format.contains("REQ(") || headers.contains(&format.as_str()), "{format}");
        }
    }
}
