//! Rules of an HTTPRoute or a GRPCRoute: matches, and what each is answered with.

use std::sync::Arc;

use gateway_api::apis::experimental::httproutes::{
    HttpRouteRulesBackendRefs as BackendRef, HttpRouteRulesMatches, HttpRouteRulesMatchesPathType as PathType,
    HttpRouteRulesRetry as GivenRetry,
};

use crate::ir::{Action, Match, Mirror, PathMatch, Retry, Route, Session, WeightedService};
use crate::objects::{Meta, ModelPool, RouteFilter, RouteRule, TOLLGATE_GROUP, parse_duration};
use crate::placement::Feature;
use crate::status::{Finding, Reason, Severity};

use super::filters::{self, Filters};
use super::given::{GivenRoute, RouteKind};
use super::matches;
use super::refs::{MODEL_POOL, Reference};
use super::service_refs::ServiceRef;
use super::sessions::{self, Unusable};
use super::view::View;

/// What is wrong with a rule, or with one of its backends. The rule then answers 500, or UNAVAILABLE to a call
/// (HTTPRouteRule: unknown filters and references).
type Refused = Finding;

/// What Istio does where a rule does not say how often.
const ATTEMPTS: u32 = 2;
const MILLION: u64 = 1_000_000;

/// One route for each match of each rule. The limits of a pool are not in them yet, because they depend on the Gateway.
pub fn rules(view: View<'_>, route: GivenRoute<'_>, findings: &mut Vec<Finding>) -> Vec<Arc<Route>> {
    let mut routes = Vec::new();
    for (index, rule) in route.spec.rules.iter().enumerate() {
        let context = Context { view, route, index, field: format!("spec.rules[{index}]") };
        let (filters, action) = match context.filters_and_action(rule, findings) {
            Ok(outcome) => outcome,
            Err(finding) => {
                findings.push(finding);
                (Filters::default(), context.nobody_there())
            }
        };
        let action = context.with_sessions(rule, action, findings);
        let mirrors = match action {
            Action::Services { .. } => context.mirrors(rule, findings),
            _ => [].into(),
        };
        let everything = [HttpRouteRulesMatches::default()];
        let given = if rule.matches.is_empty() { &everything } else { rule.matches.as_ref() };
        // A rule whose matches are all refused matches nothing.
        let given = given.iter().enumerate().filter(|(number, _)| !context.has_refused_match(*number));
        let timeouts = rule.timeouts.as_ref();
        let timeout = |text: Option<&String>| text.and_then(|text| parse_duration(text).ok());
        for (number, found) in given {
            let matches = context.matches(number, found);
            let session = context.session(rule, &matches, &action);
            routes.push(Arc::new(Route {
                origin: route.meta.origin.section(format!("rule {index}")),
                place: (index, number),
                matches,
                request_headers: filters.request_headers.clone(),
                response_headers: filters.response_headers.clone(),
                rewrite: filters.rewrite.clone(),
                request_timeout: timeout(timeouts.and_then(|timeouts| timeouts.request.as_ref())),
                attempt_timeout: timeout(timeouts.and_then(|timeouts| timeouts.backend_request.as_ref())),
                retry: rule.retry.as_ref().map(|given| Box::new(retry(given))),
                cors: filters.cors.clone(),
                session,
                mirrors: mirrors.clone(),
                action: action.clone(),
            }));
        }
    }
    routes
}

fn retry(given: &GivenRetry) -> Retry {
    let codes = given.codes.iter().flatten().filter_map(|code| u16::try_from(*code).ok());
    Retry {
        attempts: given.attempts.and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or(ATTEMPTS),
        codes: codes.collect(),
        backoff: given.backoff.as_deref().and_then(|text| parse_duration(text).ok()),
    }
}

struct Context<'a> {
    view: View<'a>,
    route: GivenRoute<'a>,
    index: usize,
    field: String,
}

// === impl Context ===

impl Context<'_> {
    fn matches(&self, number: usize, found: &HttpRouteRulesMatches) -> Match {
        match self.route.calls {
            Some(calls) => matches::calls(calls.method(self.index, number), found),
            None => matches::matches(found),
        }
    }

    fn nobody_there(&self) -> Action {
        Action::Fail { status: self.route.kind.nobody_there() }
    }

    fn filters_and_action(&self, rule: &RouteRule, findings: &mut Vec<Finding>) -> Result<(Filters, Action), Refused> {
        for part in ["filters", "sessionPersistence"] {
            if let Some(finding) = self.route.refused.of(&format!("{}.{part}", self.field)) {
                return Err(finding.clone());
            }
        }
        let matches = rule.matches.iter().enumerate();
        let mut matches = matches.filter(|(number, _)| !self.has_refused_match(*number));
        let prefixes_only = matches.all(|(_, found)| {
            let kind = found.path.as_ref().and_then(|path| path.r#type.as_ref());
            matches!(kind, None | Some(PathType::PathPrefix))
        });
        let filters = filters::filters(&rule.filters, prefixes_only)
            .map_err(|unusable| self.refused(format!("{}.filters[{}]", self.field, unusable.index), &unusable.error))?;
        let backends = rule.backend_refs.as_ref();
        if let Some(redirect) = filters.redirect.clone() {
            if !backends.is_empty() {
                let field = format!("{}.backendRefs", self.field);
                return Err(self.invalid(field, "a rule that redirects has no backends", "remove them"));
            }
            return Ok((filters, Action::Redirect(Box::new(redirect))));
        }
        let is_pool = |backend: &BackendRef| {
            self.route.kind == RouteKind::Http
                && backend.group.as_deref() == Some(TOLLGATE_GROUP)
                && backend.kind.as_deref() == Some("ModelPool")
        };
        let action = match backends {
            [] => {
                findings.push(self.route.meta.finding(
                    Severity::Warning,
                    Reason::BackendNotFound,
                    format!("{}.backendRefs", self.field),
                    format_args!("the rule has no backend and answers {}", self.route.kind.nobody_there()),
                    "",
                ));
                self.nobody_there()
            }
            [pool] if is_pool(pool) => {
                self.check_beside_pool(rule, &filters)?;
                self.pool(pool)?
            }
            _ if backends.iter().any(is_pool) => {
                let field = format!("{}.backendRefs", self.field);
                return Err(self.invalid(
                    field,
                    "a ModelPool shares its rule with other backends",
                    "weights and priorities are set on the pool's targets",
                ));
            }
            _ => self.services(backends, findings),
        };
        Ok((filters, action))
    }

    /// What a rule cannot have that leads to a ModelPool.
    fn check_beside_pool(&self, rule: &RouteRule, filters: &Filters) -> Result<(), Refused> {
        let (field, message, hint) = if filters.rewrite.is_some() {
            let message = "a path or host to a ModelPool cannot be rewritten: each of its backends has its own";
            ("filters", message, "pathPrefix and endpoint of the ModelBackend")
        } else if rule.filters.iter().any(|filter| matches!(filter, RouteFilter::RequestMirror(_))) {
            ("filters", "a request to a ModelPool is not mirrored: nobody would pay for its copy", "remove the mirror")
        } else if rule.retry.is_some() {
            ("retry", "a ModelPool has retries of its own", "retries of the ModelPool's model")
        } else {
            return Ok(());
        };
        Err(self.invalid(format!("{}.{field}", self.field), message, hint))
    }

    /// A rule whose sessions cannot be kept as it says answers as one with an unknown filter.
    fn with_sessions(&self, rule: &RouteRule, action: Action, findings: &mut Vec<Finding>) -> Action {
        let Some(given) = &rule.session_persistence else { return action };
        let field = format!("{}.sessionPersistence", self.field);
        let several = Unusable {
            field: "",
            message: "sessions are kept at one Service, and the rule has several",
            hint: "a rule for each",
        };
        let unusable = match &action {
            Action::Pool { .. } => {
                findings.extend(self.view.lack(Feature::PoolSessions, self.route.meta, field));
                return action;
            }
            Action::Redirect(_) | Action::Fail { .. } => return action,
            Action::Services { services, .. } if services.len() > 1 => Some(several),
            Action::Services { .. } => sessions::session(given, "", &PathMatch::default()).err(),
        };
        match unusable {
            Some(Unusable { field: part, message, hint }) => {
                findings.push(self.invalid(format!("{field}{part}"), message, hint));
                self.nobody_there()
            }
            None => action,
        }
    }

    fn session(&self, rule: &RouteRule, matches: &Match, action: &Action) -> Option<Box<Session>> {
        let given = rule.session_persistence.as_ref().filter(|_| matches!(action, Action::Services { .. }))?;
        let Meta { origin, .. } = self.route.meta;
        let number = || self.index.to_string();
        let name = rule.name.as_deref().map_or_else(number, str::to_owned);
        let rule = format!("{}/{}/{}/{name}", origin.kind, origin.namespace, origin.name);
        sessions::session(given, &rule, &matches.path).ok().map(Box::new)
    }

    fn has_refused_match(&self, number: usize) -> bool {
        let refused = self.route.refused;
        !refused.is_empty() && refused.of(&format!("{}.matches[{number}]", self.field)).is_some()
    }

    fn pool(&self, backend: &BackendRef) -> Result<Action, Refused> {
        let field = format!("{}.backendRefs[0]", self.field);
        if let Some(finding) = self.route.refused.of(&field) {
            return Err(finding.clone());
        }
        if backend.filters.as_ref().is_some_and(|filters| !filters.is_empty()) {
            let field = format!("{field}.filters");
            return Err(self.invalid(field, "filters of a ModelPool are not served", "set them on the rule"));
        }
        let namespace = backend.namespace.as_deref().unwrap_or(self.route.meta.namespace());
        let reference = Reference {
            from: self.route.meta,
            from_kind: self.route.kind.group_kind(),
            to_kind: MODEL_POOL,
            namespace,
            name: &backend.name,
            field: &field,
        };
        if !reference.is_permitted(self.view) {
            return Err(reference.not_permitted());
        }
        let pool = format!("{namespace}/{}", backend.name);
        if !self.view.has_pool(&pool) {
            return Err(reference.not_found::<ModelPool>(Reason::BackendNotFound, self.view));
        }
        // A pool of weight 0 takes no requests, and then nobody is left to answer.
        if backend.weight == Some(0) {
            return Ok(self.nobody_there());
        }
        Ok(Action::Pool { pool, limits: Vec::new(), closed_by: None })
    }

    /// References that cannot be used keep their share of requests, which is answered with an error.
    fn services(&self, backends: &[BackendRef], findings: &mut Vec<Finding>) -> Action {
        let mut services: Vec<WeightedService> = Vec::new();
        let mut invalid = 0;
        for (index, backend) in backends.iter().enumerate() {
            let field = format!("{}.backendRefs[{index}]", self.field);
            let weight = u32::try_from(backend.weight.unwrap_or(1)).unwrap_or_default();
            match self.service(backend, &field, weight) {
                Ok((service, warning)) => {
                    services.push(service);
                    findings.extend(warning);
                }
                Err(finding) => {
                    findings.push(finding);
                    invalid += weight;
                }
            }
        }
        services.retain(|service| service.weight > 0);
        if services.is_empty() {
            return self.nobody_there();
        }
        Action::Services { services, invalid }
    }

    fn service(
        &self,
        backend: &BackendRef,
        field: &str,
        weight: u32,
    ) -> Result<(WeightedService, Option<Finding>), Refused> {
        if let Some(finding) = self.route.refused.of(field) {
            return Err(finding.clone());
        }
        let target = ServiceRef::from(backend).resolve(self.view, self.route, field)?;
        let filters = filters::backend_filters(backend.filters.as_deref().unwrap_or_default())
            .map_err(|unusable| self.refused(format!("{field}.filters[{}]", unusable.index), &unusable.error))?;
        let service = WeightedService {
            service: target.cluster,
            weight,
            websocket: target.port.websocket,
            picker: target.port.picker,
            request_headers: filters.request_headers,
            response_headers: filters.response_headers,
        };
        Ok((service, target.warning))
    }

    /// A mirror that leads nowhere is left out, and the rule does without it (HTTPRequestMirrorFilter.backendRef).
    fn mirrors(&self, rule: &RouteRule, findings: &mut Vec<Finding>) -> Box<[Mirror]> {
        let given = rule.filters.iter().enumerate();
        let mirrors = given.filter_map(|(index, filter)| {
            let field = format!("{}.filters[{index}].requestMirror.backendRef", self.field);
            self.mirror(filter, &field, findings).map_err(|finding| findings.push(finding)).ok().flatten()
        });
        mirrors.collect()
    }

    fn mirror(
        &self,
        filter: &RouteFilter,
        field: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<Mirror>, Finding> {
        let RouteFilter::RequestMirror(given) = filter else { return Ok(None) };
        let target = ServiceRef::from(&given.backend_ref).resolve(self.view, self.route, field)?;
        findings.extend(target.warning);
        let (part, whole) = match (&given.fraction, given.percent) {
            (Some(fraction), _) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
            (None, percent) => (percent.unwrap_or(100), 100),
        };
        let (part, whole) = (u64::try_from(part).unwrap_or_default(), u64::try_from(whole).unwrap_or_default());
        let share = (part * MILLION).checked_div(whole).unwrap_or_default().min(MILLION);
        let share = u32::try_from(share).unwrap_or_default();
        Ok((share > 0).then_some(Mirror { service: target.cluster, share }))
    }

    fn invalid(&self, field: String, message: &str, hint: &str) -> Refused {
        self.route.meta.finding(Severity::Error, Reason::UnsupportedValue, field, message, hint)
    }

    fn refused(&self, field: String, error: &filters::InvalidFilter) -> Refused {
        let hint = format_args!("the rule answers {}", self.route.kind.nobody_there());
        self.route.meta.finding(Severity::Error, Reason::UnsupportedValue, field, error, hint)
    }
}
