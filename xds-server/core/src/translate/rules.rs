//! Rules of an HTTPRoute: matches, and what each is answered with.

use std::sync::Arc;

use gateway_api::apis::standard::httproutes::{
    HttpRouteRules, HttpRouteRulesBackendRefs as BackendRef, HttpRouteRulesMatches,
    HttpRouteRulesMatchesPathType as PathType,
};

use crate::ir::{Action, Route, WeightedService};
use crate::objects::{GATEWAY_GROUP, HttpRoute, ModelPool, Object, Service, Shown, TOLLGATE_GROUP, parse_duration};
use crate::status::{Finding, Reason, Severity};

use super::filters::{self, Filters};
use super::matches;
use super::refs::{HTTP_ROUTE, MODEL_POOL, Reference, SERVICE};
use super::services::cluster_name;
use super::view::View;

/// What is wrong with a rule, or with one of its backends. The rule then answers 500 (HTTPRouteRule: unknown filters and
/// references).
type Refused = Finding;

/// One route for each match of each rule. The limits of a pool are not in them yet, because they depend on the Gateway.
pub fn rules(view: View<'_>, object: &Object<HttpRoute>, findings: &mut Vec<Finding>) -> Vec<Arc<Route>> {
    let mut routes = Vec::new();
    for (index, rule) in object.spec.rules.iter().flatten().enumerate() {
        let context = Context { view, object, field: format!("spec.rules[{index}]") };
        let (filters, action) = match context.filters_and_action(rule, findings) {
            Ok(outcome) => outcome,
            Err(finding) => {
                findings.push(finding);
                (Filters::default(), Action::Fail { status: 500 })
            }
        };
        let everything = [HttpRouteRulesMatches::default()];
        let matches = rule.matches.as_deref().filter(|matches| !matches.is_empty()).unwrap_or(&everything);
        // A rule whose matches are all refused matches nothing.
        let matches = matches.iter().enumerate().filter(|(number, _)| !context.has_refused_match(*number));
        let timeouts = rule.timeouts.as_ref();
        let timeout = |text: Option<&String>| text.and_then(|text| parse_duration(text).ok());
        for (number, found) in matches {
            routes.push(Arc::new(Route {
                origin: object.meta.origin.section(format!("rule {index}")),
                place: (index, number),
                matches: matches::matches(found),
                request_headers: filters.request_headers.clone(),
                response_headers: filters.response_headers.clone(),
                rewrite: filters.rewrite.clone(),
                request_timeout: timeout(timeouts.and_then(|timeouts| timeouts.request.as_ref())),
                attempt_timeout: timeout(timeouts.and_then(|timeouts| timeouts.backend_request.as_ref())),
                action: action.clone(),
            }));
        }
    }
    routes
}

struct Context<'a> {
    view: View<'a>,
    object: &'a Object<HttpRoute>,
    field: String,
}

// === impl Context ===

impl Context<'_> {
    fn filters_and_action(
        &self,
        rule: &HttpRouteRules,
        findings: &mut Vec<Finding>,
    ) -> Result<(Filters, Action), Refused> {
        if let Some(finding) = self.object.refused.of(&format!("{}.filters", self.field)) {
            return Err(finding.clone());
        }
        let matches = rule.matches.iter().flatten().enumerate();
        let mut matches = matches.filter(|(number, _)| !self.has_refused_match(*number));
        let prefixes_only = matches.all(|(_, found)| {
            let kind = found.path.as_ref().and_then(|path| path.r#type.as_ref());
            matches!(kind, None | Some(PathType::PathPrefix))
        });
        let given = rule.filters.as_deref().unwrap_or_default();
        let filters = filters::filters(given, prefixes_only)
            .map_err(|unusable| self.refused(format!("{}.filters[{}]", self.field, unusable.index), &unusable.error))?;
        let backends = rule.backend_refs.as_deref().unwrap_or_default();
        if let Some(redirect) = filters.redirect.clone() {
            if !backends.is_empty() {
                let field = format!("{}.backendRefs", self.field);
                return Err(self.invalid(field, "a rule that redirects has no backends", "remove them"));
            }
            return Ok((filters, Action::Redirect(Box::new(redirect))));
        }
        let is_pool = |backend: &BackendRef| {
            backend.group.as_deref() == Some(TOLLGATE_GROUP) && backend.kind.as_deref() == Some("ModelPool")
        };
        let action = match backends {
            [] => {
                findings.push(self.object.meta.finding(
                    Severity::Warning,
                    Reason::BackendNotFound,
                    format!("{}.backendRefs", self.field),
                    "the rule has no backend and answers 500",
                    "",
                ));
                Action::Fail { status: 500 }
            }
            [pool] if is_pool(pool) => {
                if filters.rewrite.is_some() {
                    let field = format!("{}.filters", self.field);
                    return Err(self.invalid(
                        field,
                        "a path or host to a ModelPool cannot be rewritten: each of its backends has its own",
                        "pathPrefix and endpoint of the ModelBackend",
                    ));
                }
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

    fn has_refused_match(&self, number: usize) -> bool {
        let refused = &self.object.refused;
        !refused.is_empty() && refused.of(&format!("{}.matches[{number}]", self.field)).is_some()
    }

    fn pool(&self, backend: &BackendRef) -> Result<Action, Refused> {
        let field = format!("{}.backendRefs[0]", self.field);
        if let Some(finding) = self.object.refused.of(&field) {
            return Err(finding.clone());
        }
        if backend.filters.as_ref().is_some_and(|filters| !filters.is_empty()) {
            let field = format!("{field}.filters");
            return Err(self.invalid(field, "filters of a ModelPool are not served", "set them on the rule"));
        }
        let namespace = backend.namespace.as_deref().unwrap_or(self.object.meta.namespace());
        let reference = self.reference(backend, (MODEL_POOL, namespace), &field);
        if !reference.is_permitted(self.view) {
            return Err(reference.not_permitted());
        }
        let pool = format!("{namespace}/{}", backend.name);
        if !self.view.has_pool(&pool) {
            return Err(reference.not_found::<ModelPool>(Reason::BackendNotFound, self.view));
        }
        // A pool of weight 0 takes no requests, and then nobody is left to answer.
        if backend.weight == Some(0) {
            return Ok(Action::Fail { status: 500 });
        }
        Ok(Action::Pool { pool, limits: Vec::new(), closed_by: None })
    }

    /// References that cannot be used keep their share of requests, which is answered with 500.
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
            return Action::Fail { status: 500 };
        }
        Action::Services { services, invalid }
    }

    fn service(
        &self,
        backend: &BackendRef,
        field: &str,
        weight: u32,
    ) -> Result<(WeightedService, Option<Finding>), Refused> {
        if let Some(finding) = self.object.refused.of(field) {
            return Err(finding.clone());
        }
        let (group, kind) = (backend.group.as_deref().unwrap_or(""), backend.kind.as_deref().unwrap_or("Service"));
        if (group, kind) != ("", "Service") {
            let hint = match (group, kind) {
                (_, "ModelPool") => "group: tollgate.dev",
                (TOLLGATE_GROUP, _) => "kind: ModelPool",
                (GATEWAY_GROUP, _) => "",
                _ => "a Service, or kind ModelPool of group tollgate.dev",
            };
            let message = format!("a backend cannot be {} of group {}", Shown(kind), Shown(group));
            return Err(self.object.meta.finding(Severity::Error, Reason::InvalidKind, field, message, hint));
        }
        let namespace = backend.namespace.as_deref().unwrap_or(self.object.meta.namespace());
        let reference = self.reference(backend, (SERVICE, namespace), field);
        if !reference.is_permitted(self.view) {
            return Err(reference.not_permitted());
        }
        if self.view.object::<Service>(namespace, &backend.name).is_none() {
            return Err(reference.not_found::<Service>(Reason::BackendNotFound, self.view));
        }
        let Some(port) = backend.port.and_then(|port| u16::try_from(port).ok()) else {
            return Err(reference.finding(Reason::BackendNotFound, "a Service needs a port", "port: 80"));
        };
        let cluster = cluster_name(namespace, &backend.name, port);
        let Some(has_endpoints) = self.view.has_endpoints(&cluster) else {
            let message = format!("{} has no port {port}", reference.target());
            return Err(reference.finding(Reason::BackendNotFound, &message, ""));
        };
        let filters = filters::backend_filters(backend.filters.as_deref().unwrap_or_default())
            .map_err(|unusable| self.refused(format!("{field}.filters[{}]", unusable.index), &unusable.error))?;
        let warning = (!has_endpoints).then(|| {
            self.object.meta.finding(
                Severity::Warning,
                Reason::NoEndpoints,
                field,
                format_args!("{} has no endpoints for port {port}: it answers 503", reference.target()),
                "an EndpointSlice with the label kubernetes.io/service-name",
            )
        });
        let service = WeightedService {
            service: cluster,
            weight,
            request_headers: filters.request_headers,
            response_headers: filters.response_headers,
        };
        Ok((service, warning))
    }

    fn reference<'a>(
        &'a self,
        backend: &'a BackendRef,
        (to_kind, namespace): (super::refs::GroupKind, &'a str),
        field: &'a str,
    ) -> Reference<'a> {
        Reference { from: &self.object.meta, from_kind: HTTP_ROUTE, to_kind, namespace, name: &backend.name, field }
    }

    fn invalid(&self, field: String, message: &str, hint: &str) -> Refused {
        self.object.meta.finding(Severity::Error, Reason::UnsupportedValue, field, message, hint)
    }

    fn refused(&self, field: String, error: &filters::InvalidFilter) -> Refused {
        let hint = "the rule answers 500";
        self.object.meta.finding(Severity::Error, Reason::UnsupportedValue, field, error, hint)
    }
}
