//! TokenPolicy: what it may cost.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;
use tollgate_proto::v1::CountWeights;

use crate::terms::{CalendarUnit, Mode, OnEarlyEnd, OnLedgerUnavailable, ScopePart, Window};

use super::check::Check;
use super::redact::Shown;
use super::{GATEWAY_GROUP, TOLLGATE_GROUP, expression};
use crate::terms::names::is_label_key;

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
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenPolicyWire {
    target_refs: Vec<TargetRefWire>,
    #[serde(default)]
    mode: ModeWire,
    limits: Vec<LimitWire>,
    #[serde(default)]
    on_ledger_unavailable: OnLedgerUnavailableWire,
    #[serde(default)]
    on_early_end: OnEarlyEndWire,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TargetRefWire {
    #[serde(default)]
    group: String,
    kind: String,
    name: String,
}

#[derive(Deserialize, Default)]
enum ModeWire {
    #[default]
    Enforce,
    Shadow,
}

#[derive(Deserialize, Default)]
enum OnLedgerUnavailableWire {
    #[default]
    Deny,
    Allow,
}

#[derive(Deserialize, Default)]
enum OnEarlyEndWire {
    #[default]
    Estimate,
    Reservation,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LimitWire {
    name: String,
    tokens: i64,
    window: String,
    time_zone: Option<String>,
    #[serde(default)]
    scope: Vec<String>,
    count: Option<Value>,
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
            _ => match text.strip_prefix("Label/") {
                Some(key) if is_label_key(key) => ScopePart::Label(key.to_owned()),
                _ => {
                    let hint = "one of Consumer, Model, Route, Label/<key of the Consumer>";
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
    Some(TokenPolicyLimit { name: wire.name, tokens, window: window?, scope, count: count? })
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
