//! What an Envoy tells of each request besides the ledger: a line of the access log, and spans (docs/signals.md). All of it is
//! off unless somebody asks for it, and then a listener says no word of it.
//!
//! What our filter knows of a request stands in filter state. Here those fields get the names under which they are shown: those
//! of OpenTelemetry's conventions for GenAI where they have one.

use super::RequestFields;
use crate::terms::Collector;

/// What is told of requests, and where.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signals {
    /// The file on the Envoy's machine that has a line for each request.
    pub access_log: Option<String>,
    pub tracing: Option<Tracing>,
}

/// Where spans go, and of how many requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    pub collector: Collector,
    pub sampling: Sampling,
}

/// The share of the requests without a trace of their own that get one: more than none of them, at most all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling(f64);

/// What the filter tells of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    /// In filter state, behind [`PREFIX`].
    name: &'static str,
    /// In the access log and as an attribute of a span.
    pub shown_as: &'static str,
    pub known: Known,
}

/// When a field is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Before Envoy ends the span.
    InTime,
    /// When the access log is written, and not before.
    AtTheLog,
}

/// Who answers, by OpenTelemetry's name. The filter need not tell it: it is metadata of the cluster of each ModelBackend, so an
/// attempt's span has that of its own backend.
pub(super) const PROVIDER: &str = "gen_ai.provider.name";
pub(super) const PROVIDER_FORMAT: &str = "%CLUSTER_METADATA(tollgate:provider)%";
/// Where it is in metadata: the namespace, and the name there.
pub(super) const PROVIDER_METADATA: (&str, &str) = ("tollgate", "provider");

/// Envoy puts this before the names that a filter gives.
const PREFIX: &str = "wasm.tollgate.";

pub(super) const FIELDS: [Field; 12] = [
    Field { name: "operation", shown_as: "gen_ai.operation.name", known: Known::InTime },
    Field { name: "model", shown_as: "gen_ai.request.model", known: Known::InTime },
    Field { name: "input_tokens", shown_as: "gen_ai.usage.input_tokens", known: Known::InTime },
    Field { name: "cached_input_tokens", shown_as: "gen_ai.usage.cache_read.input_tokens", known: Known::InTime },
    Field { name: "output_tokens", shown_as: "gen_ai.usage.output_tokens", known: Known::InTime },
    Field { name: "reasoning_tokens", shown_as: "gen_ai.usage.reasoning.output_tokens", known: Known::InTime },
    Field { name: "estimated", shown_as: "tollgate.usage.estimated", known: Known::InTime },
    Field { name: "first_token_ms", shown_as: "tollgate.first_token_ms", known: Known::InTime },
    Field { name: "consumer", shown_as: "tollgate.consumer", known: Known::InTime },
    Field { name: "route", shown_as: "tollgate.route", known: Known::InTime },
    Field { name: "backend", shown_as: "tollgate.backend", known: Known::AtTheLog },
    Field { name: "error", shown_as: "error.type", known: Known::InTime },
];

// === impl Signals ===

impl Signals {
    /// What the filter of a Gateway has to tell for them. `asked` is what it tells in any case.
    pub fn fields(&self, asked: RequestFields) -> RequestFields {
        if self.are_on() { RequestFields::Told } else { asked }
    }

    pub(super) fn are_on(&self) -> bool {
        self.access_log.is_some() || self.tracing.is_some()
    }
}

// === impl Sampling ===

impl Sampling {
    /// None: it is no share, or none of the requests.
    pub fn of_percent(percent: f64) -> Option<Self> {
        (percent > 0.0 && percent <= 100.0).then_some(Self(percent))
    }

    pub fn percent(self) -> f64 {
        self.0
    }
}

// === impl Field ===

impl Field {
    /// What Envoy puts in its place.
    pub fn format(&self) -> String {
        format!("%FILTER_STATE({PREFIX}{}:PLAIN)%", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::Security;

    #[test]
    fn the_filter_tells_its_fields_where_they_are_shown() {
        let none = Signals::default();
        assert_eq!(none.fields(RequestFields::Kept), RequestFields::Kept);
        assert_eq!(none.fields(RequestFields::Told), RequestFields::Told);
        let log = Signals { access_log: Some("/dev/stdout".to_owned()), tracing: None };
        assert_eq!(log.fields(RequestFields::Kept), RequestFields::Told);
        let collector = Collector { host: "otel".to_owned(), port: 4317, security: Security::None };
        let tracing = Some(Tracing { collector, sampling: Sampling::of_percent(0.5).unwrap() });
        assert_eq!(Signals { access_log: None, tracing }.fields(RequestFields::Kept), RequestFields::Told);
    }

    /// Sidecars are not programmed by us, so Istio is told the same names.
    #[test]
    fn istio_shows_every_field_under_the_same_name() {
        let values: serde_json::Value = serde_saphyr::from_str(include_str!("../../../../istio/values.yaml")).unwrap();
        let format = values.pointer("/spec/meshConfig/accessLogFormat").and_then(|format| format.as_str()).unwrap();
        let format: serde_json::Map<String, serde_json::Value> = serde_json::from_str(format).unwrap();
        for field in FIELDS {
            assert_eq!(format.get(field.shown_as).unwrap(), &field.format(), "{field:?}");
        }
        assert_eq!(format["path"], "%PATH(NQ:ORIG_OR_PATH)%", "keys may stand in a query");
    }

    #[test]
    fn a_share_is_more_than_none_and_at_most_all() {
        for (percent, is_share) in
            [(0.0, false), (-1.0, false), (f64::NAN, false), (0.01, true), (100.0, true), (100.1, false)]
        {
            assert_eq!(Sampling::of_percent(percent).map(Sampling::percent), is_share.then_some(percent), "{percent}");
        }
    }
}
