//! Usage as records of OpenTelemetry's logs. The names are those of its conventions where it has some.

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tollgate_core::ir::Schema;
use tollgate_core::ledger::usage::{Totals, UsageKey, second_of};
use tollgate_proto::measures::OTHER;

const EVENT: &str = "tollgate.usage";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What requests used that ended in one minute, as far as it was settled. What is settled later is told by itself, so that
/// sums over records are right.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// Since the epoch.
    pub minute: u64,
    pub key: UsageKey,
    /// What the backend speaks, if anybody knows it.
    pub schema: Option<Schema>,
    pub totals: Totals,
}

/// One life of this process, by which a receiver knows what came twice.
#[derive(Debug, Clone)]
pub struct Instance(String);

// === impl Instance ===

impl Instance {
    /// A random UUID, as OpenTelemetry advises for `service.instance.id`.
    pub fn new() -> Self {
        let random: u128 = rand::random();
        // Version 4, variant 1 (RFC 9562).
        let bits = (random & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
        let part = |from: u32, digits: u32| (bits >> from) & ((1 << (4 * digits)) - 1);
        Self(format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 8),
            part(80, 4),
            part(64, 4),
            part(48, 4),
            part(0, 12)
        ))
    }

    /// A call that tells of these, each under its number.
    pub fn request(&self, records: &[(u64, Usage)], now: Timestamp) -> ExportLogsServiceRequest {
        let attributes = vec![
            text("service.name", "tollgate"),
            text("service.version", VERSION),
            text("service.instance.id", &self.0),
        ];
        let scope = InstrumentationScope {
            name: "tollgate".to_owned(),
            version: VERSION.to_owned(),
            ..InstrumentationScope::default()
        };
        let log_records = records.iter().map(|(number, usage)| self.record(*number, usage, now)).collect();
        let logs = ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() };
        let resource = Resource { attributes, ..Resource::default() };
        let all = ResourceLogs { resource: Some(resource), scope_logs: vec![logs], ..ResourceLogs::default() };
        ExportLogsServiceRequest { resource_logs: vec![all] }
    }

    fn record(&self, number: u64, usage: &Usage, now: Timestamp) -> LogRecord {
        let Usage { minute, key, schema, totals } = usage;
        let began = Timestamp::from_second(second_of(*minute)).unwrap_or_default();
        LogRecord {
            time_unix_nano: nanoseconds(began),
            observed_time_unix_nano: nanoseconds(now),
            severity_number: SeverityNumber::Info.into(),
            event_name: EVENT.to_owned(),
            attributes: vec![
                text("tollgate.record.id", &format!("{}/{number}", self.0)),
                text("tollgate.minute", &began.to_string()),
                text("tollgate.consumer", &key.consumer),
                text("tollgate.route", &key.route),
                text("tollgate.backend", &key.backend),
                text("gen_ai.request.model", &key.model),
                text("gen_ai.provider.name", schema.map_or(OTHER, Schema::provider)),
                count("tollgate.requests", totals.requests),
                count("tollgate.estimated_requests", totals.estimated_requests),
                count("gen_ai.usage.input_tokens", totals.input_tokens),
                count("gen_ai.usage.output_tokens", totals.output_tokens),
                count("gen_ai.usage.cache_read.input_tokens", totals.cached_input_tokens),
                count("gen_ai.usage.reasoning.output_tokens", totals.reasoning_tokens),
            ],
            ..LogRecord::default()
        }
    }
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or_default()
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn count(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_a_uuid_of_its_own() {
        let (one, other) = (Instance::new().0, Instance::new().0);
        assert_ne!(one, other);
        let lengths: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{one}");
        assert!(one.chars().all(|c| c == '-' || c.is_ascii_hexdigit()), "{one}");
        assert_eq!(&one[14..15], "4", "{one}");
        assert!("89ab".contains(&one[19..20]), "{one}");
    }
}
