//! TokenPolicy: what it may cost.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;
use tollgate_proto::v1::CountWeights;

use crate::terms::{CalendarUnit, Mode, OnEarlyEnd, OnLedgerUnavailable, ScopePart, Thresholds, Window};

use super::check::Check;
use super::redact::Shown;
use super::{GATEWAY_GROUP, TOLLGATE_GROUP, expression};
use crate::terms::names::{is_claim_name, is_label_key};

#[derive(Debug, Clone)]
pub struct TokenPolicy {
    pub targets: Vec<PolicyTarget>,
    pub mode: Mode,
    pub limits: Vec<TokenPolicyLimit>,
    pub on_ledger_unavailable: OnLedgerUnavailable,
    pub on_early_end: OnEarlyEnd,
}

/// Always in the policy's own namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTarget {
    pub kind: TargetKind,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetKind {
    Gateway,
    HttpRoute,
    ModelPool,
    /// Sidecars only.
    Service,
}

#[derive(Debug, Clone)]
pub struct TokenPolicyLimit {
    pub name: String,
    pub tokens: u64,
    pub window: Window,
    pub scope: Vec<ScopePart>,
    pub count: CountWeights,
    pub warn_at: Thresholds,
}

/// What requests may cost.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenPolicyWire {
    /// What the policy is for.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 16)))]
    target_refs: Vec<TargetRefWire>,
    /// Enforce, or Shadow, which counts and reports and never refuses.
    #[serde(default)]
    mode: ModeWire,
    /// The limits, each with a name of its own. All of them hold.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    limits: Vec<LimitWire>,
    /// What happens to requests while the ledger cannot be asked.
    #[serde(default)]
    on_ledger_unavailable: OnLedgerUnavailableWire,
    /// What a client pays that leaves before the usage is known.
    #[serde(default)]
    on_early_end: OnEarlyEndWire,
}

/// What the policy is for, in its own namespace.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "(has(self.group) && self.group == 'gateway.networking.k8s.io' && self.kind in ['Gateway', 'HTTPRoute']) || (has(self.group) && self.group == 'tollgate.dev' && self.kind == 'ModelPool') || ((!has(self.group) || self.group in ['', 'core']) && self.kind == 'Service')", "message": "a target is a Gateway, HTTPRoute, ModelPool or Service"}])))]
struct TargetRefWire {
    /// The API group. Default: the core group.
    #[cfg_attr(feature = "schema", schemars(length(max = 253)))]
    #[serde(default)]
    group: String,
    /// Gateway, HTTPRoute, ModelPool or Service.
    #[cfg_attr(feature = "schema", schemars(length(max = 63)))]
    kind: String,
    /// Its name.
    #[cfg_attr(
        feature = "schema",
        schemars(
            regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$"),
            length(max = 253)
        )
    )]
    name: String,
}

#[derive(Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum ModeWire {
    #[default]
    Enforce,
    Shadow,
}

#[derive(Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum OnLedgerUnavailableWire {
    #[default]
    Deny,
    Allow,
}

#[derive(Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum OnEarlyEndWire {
    #[default]
    Estimate,
    Reservation,
}

/// One budget, or one for each combination of its scope.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "!has(self.timeZone) || self.window in ['day', 'week', 'month']", "message": "timeZone is of a calendar window"}])))]
struct LimitWire {
    /// The name of the limit.
    #[cfg_attr(
        feature = "schema",
        schemars(
            regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$"),
            length(max = 253)
        )
    )]
    name: String,
    /// How many tokens there are in each window; 0 allows none.
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    tokens: i64,
    /// A duration such as 1h or 1d, from the UTC epoch; or day, week or month of the calendar.
    #[cfg_attr(
        feature = "schema",
        schemars(regex(pattern = r"^(day|week|month|([0-9]{1,5}(ms|s|m|h|d)){1,5})$"), length(max = 40))
    )]
    window: String,
    /// The time zone of a calendar window, as the IANA names it. Default: UTC.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    time_zone: Option<String>,
    /// One budget for each combination of these: Consumer, Model, Route, Label/KEY of the Consumer, Claim/NAME of the verified
    /// JWT. Empty: one for all.
    #[cfg_attr(feature = "schema", schemars(length(max = 8), inner(length(max = 330), regex(pattern = r"^(Consumer|Model|Route|Label/.+|Claim/.+)$")), extend("x-kubernetes-list-type" = "set")))]
    #[serde(default)]
    scope: Vec<String>,
    /// Total, Input or Output, or {expression: TEXT}. Default: Total.
    #[cfg_attr(feature = "schema", schemars(schema_with = "super::schema::count"))]
    #[serde(default)]
    count: Option<Value>,
    /// At how much of its tokens a budget is told of, in percent: by an event, in the log, by a metric and to the webhook.
    /// Empty: never. Default: 80 and 100.
    #[cfg_attr(feature = "schema", schemars(length(max = 8), inner(range(min = 1, max = 1000)), extend("x-kubernetes-list-type" = "set")))]
    warn_at: Option<Vec<i64>>,
}

// === impl TargetKind ===

impl TargetKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "Gateway",
            Self::HttpRoute => "HTTPRoute",
            Self::ModelPool => "ModelPool",
            Self::Service => "Service",
        }
    }
}

pub fn token_policy(wire: TokenPolicyWire, check: &mut Check<'_>) -> Option<TokenPolicy> {
    if wire.target_refs.is_empty() {
        check.error(
            "spec.targetRefs",
            "the policy has no target",
            "a Gateway, HTTPRoute or ModelPool of its namespace",
        );
    }
    if wire.limits.is_empty() {
        check.error("spec.limits", "the policy has no limits", "list at least one");
    }
    let targets = wire
        .target_refs
        .into_iter()
        .enumerate()
        .filter_map(|(index, target)| self::target(target, &format!("spec.targetRefs[{index}]"), check))
        .collect();
    let mut names = BTreeSet::new();
    let limits = wire
        .limits
        .into_iter()
        .enumerate()
        .filter_map(|(index, limit)| {
            let field = format!("spec.limits[{index}]");
            check.name(format_args!("{field}.name"), &limit.name);
            if !names.insert(limit.name.clone()) {
                check.error(
                    format_args!("{field}.name"),
                    format_args!("limit {} is listed twice", Shown(&limit.name)),
                    "",
                );
            }
            self::limit(limit, &field, check)
        })
        .collect();
    Some(TokenPolicy {
        targets,
        mode: match wire.mode {
            ModeWire::Enforce => Mode::Enforce,
            ModeWire::Shadow => Mode::Shadow,
        },
        limits,
        on_ledger_unavailable: match wire.on_ledger_unavailable {
            OnLedgerUnavailableWire::Deny => OnLedgerUnavailable::Deny,
            OnLedgerUnavailableWire::Allow => OnLedgerUnavailable::Allow,
        },
        on_early_end: match wire.on_early_end {
            OnEarlyEndWire::Estimate => OnEarlyEnd::Estimate,
            OnEarlyEndWire::Reservation => OnEarlyEnd::Reservation,
        },
    })
}

fn target(wire: TargetRefWire, field: &str, check: &mut Check<'_>) -> Option<PolicyTarget> {
    check.name(format_args!("{field}.name"), &wire.name);
    let kind = match (wire.group.as_str(), wire.kind.as_str()) {
        (GATEWAY_GROUP, "Gateway") => TargetKind::Gateway,
        (GATEWAY_GROUP, "HTTPRoute") => TargetKind::HttpRoute,
        (TOLLGATE_GROUP, "ModelPool") => TargetKind::ModelPool,
        ("" | "core", "Service") => TargetKind::Service,
        (group, kind) => {
            check.error(
                field,
                format_args!("a policy cannot be for {} of group {}", Shown(kind), Shown(group)),
                "Gateway or HTTPRoute of gateway.networking.k8s.io, ModelPool of tollgate.dev, or Service",
            );
            return None;
        }
    };
    Some(PolicyTarget { kind, name: wire.name })
}

fn limit(wire: LimitWire, field: &str, check: &mut Check<'_>) -> Option<TokenPolicyLimit> {
    let tokens = u64::try_from(wire.tokens).unwrap_or_else(|_| {
        check.error(format_args!("{field}.tokens"), "a negative number of tokens", "0 allows none");
        0
    });
    let window = window(&wire.window, wire.time_zone, field, check);
    let mut scope = Vec::new();
    for (index, text) in wire.scope.iter().enumerate() {
        let field = format!("{field}.scope[{index}]");
        let part = match text.as_str() {
            "Consumer" => ScopePart::Consumer,
            "Model" => ScopePart::Model,
            "Route" => ScopePart::Route,
            _ => match (text.strip_prefix("Label/"), text.strip_prefix("Claim/")) {
                (Some(key), _) if is_label_key(key) => ScopePart::Label(key.to_owned()),
                (_, Some(name)) if is_claim_name(name) => ScopePart::Claim(name.to_owned()),
                _ => {
                    let hint = "one of Consumer, Model, Route, Label/<key of the Consumer>, Claim/<name in the JWT>";
                    check.error(field, format_args!("{} is not a known value", Shown(text)), hint);
                    continue;
                }
            },
        };
        if scope.contains(&part) {
            check.error(field, format_args!("{} is listed twice", Shown(text)), "");
        } else {
            scope.push(part);
        }
    }
    let count = count(wire.count, &format!("{field}.count"), check);
    let warn_at = warn_at(wire.warn_at, field, check);
    Some(TokenPolicyLimit { name: wire.name, tokens, window: window?, scope, count: count?, warn_at: warn_at? })
}

fn warn_at(percent: Option<Vec<i64>>, field: &str, check: &mut Check<'_>) -> Option<Thresholds> {
    let Some(percent) = percent else { return Some(Thresholds::default()) };
    let hint = "up to 8 percentages from 1 to 1000, each once; an empty list for none";
    Thresholds::new(&percent).map_err(|error| check.error(format_args!("{field}.warnAt"), error, hint)).ok()
}

fn window(text: &str, time_zone: Option<String>, field: &str, check: &mut Check<'_>) -> Option<Window> {
    let unit = match text {
        "day" => CalendarUnit::Day,
        "week" => CalendarUnit::Week,
        "month" => CalendarUnit::Month,
        _ => {
            if time_zone.is_some() {
                check.error(
                    format_args!("{field}.timeZone"),
                    "a fixed window has no time zone",
                    "window: day, week or month",
                );
            }
            return match super::duration::parse(text) {
                Ok(length) if length.as_secs() > 0 && length.subsec_nanos() == 0 => Some(Window::Fixed(length)),
                Ok(Duration { .. }) => {
                    check.error(format_args!("{field}.window"), "a window is whole seconds, at least one", "");
                    None
                }
                Err(error) => {
                    let hint = "a duration such as 1h or 1d, or day, week or month";
                    check.error(format_args!("{field}.window"), error, hint);
                    None
                }
            };
        }
    };
    let time_zone = time_zone.unwrap_or_else(|| "UTC".to_owned());
    if TimeZone::get(&time_zone).is_err() {
        check.error(
            format_args!("{field}.timeZone"),
            format_args!("there is no time zone {}", Shown(&time_zone)),
            "an IANA name, for example Europe/Berlin",
        );
        return None;
    }
    Some(Window::Calendar { unit, time_zone })
}

fn count(wire: Option<Value>, field: &str, check: &mut Check<'_>) -> Option<CountWeights> {
    let none = CountWeights::default();
    let hint = "Total, Input, Output or {expression: \"input + 4*output\"}";
    match wire {
        None => Some(CountWeights { input: 1.0, output: 1.0, ..none }),
        Some(Value::String(name)) => match name.as_str() {
            "Total" => Some(CountWeights { input: 1.0, output: 1.0, ..none }),
            "Input" => Some(CountWeights { input: 1.0, ..none }),
            "Output" => Some(CountWeights { output: 1.0, ..none }),
            _ => {
                check.error(field, format_args!("{} is not a known value", Shown(&name)), hint);
                None
            }
        },
        Some(Value::Object(map)) => match map.get("expression") {
            Some(Value::String(text)) => {
                for other in map.keys().filter(|name| *name != "expression") {
                    check.unknown_field(&format!("{field}.{other}"), "known fields: expression");
                }
                match expression::parse(text) {
                    Ok(weights) => Some(weights),
                    Err(error) => {
                        let expression_hint = error.hint();
                        check.error(format_args!("{field}.expression"), error, expression_hint);
                        None
                    }
                }
            }
            _ => {
                check.error(field, "not a known way to count", hint);
                None
            }
        },
        Some(_) => {
            check.error(field, "not a known way to count", hint);
            None
        }
    }
}
