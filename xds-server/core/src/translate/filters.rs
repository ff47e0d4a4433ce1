//! Filters of a rule to header edits, rewrites, redirects and CORS. Mirrors refer to Services, so `rules` resolves them.

use gateway_api::apis::experimental::httproutes::{
    HttpRouteRulesBackendRefsFilters as BackendFilter, HttpRouteRulesBackendRefsFiltersType as BackendType,
    HttpRouteRulesFiltersRequestRedirect as RedirectFilter,
    HttpRouteRulesFiltersRequestRedirectPathType as RedirectPathType,
    HttpRouteRulesFiltersRequestRedirectScheme as Scheme, HttpRouteRulesFiltersUrlRewrite as RewriteFilter,
    HttpRouteRulesFiltersUrlRewritePathType as RewritePathType,
};
use serde_json::Value;

use crate::ir::{Cors, Edits, HeaderEdits, PathRewrite, Redirect, Rewrite};
use crate::objects::RouteFilter;

use super::cors::cors;

#[derive(Debug, Clone, Default)]
pub struct Filters {
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub rewrite: Option<Box<Rewrite>>,
    pub redirect: Option<Redirect>,
    pub cors: Option<Box<Cors>>,
}

/// A filter that cannot be served. The rule cannot do without it.
#[derive(Debug)]
pub struct Unusable {
    pub index: usize,
    pub error: InvalidFilter,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    #[error("filters of type {0} are not served")]
    Unsupported(&'static str),
    #[error("a rule has each type of filter once")]
    Repeated,
    #[error("a rule cannot both rewrite and redirect")]
    RewriteAndRedirect,
    #[error("a rule that redirects has no mirrors and no CORS")]
    BesideRedirect,
    #[error("ReplacePrefixMatch needs matches by PathPrefix only")]
    NoPrefix,
    #[error("the path's type and fields differ")]
    PathFields,
    #[error("status code {0} is no redirect")]
    Status(i64),
    #[error("header `{0}` cannot be changed")]
    Header(String),
}

pub fn filters(given: &[RouteFilter], prefixes_only: bool) -> Result<Filters, Unusable> {
    let mut filters = Filters::default();
    for (index, filter) in given.iter().enumerate() {
        let repeated = !matches!(filter, RouteFilter::RequestMirror(_))
            && given.iter().take(index).any(|other| other.has_type_of(filter));
        let result = if repeated { Err(InvalidFilter::Repeated) } else { add(&mut filters, filter, prefixes_only) };
        result.map_err(|error| Unusable { index, error })?;
        if filters.redirect.is_some() && filters.rewrite.is_some() {
            return Err(Unusable { index, error: InvalidFilter::RewriteAndRedirect });
        }
        let needs_backend = |filter| matches!(filter, &RouteFilter::RequestMirror(_) | &RouteFilter::Cors(_));
        if filters.redirect.is_some()
            && let Some(index) = given.iter().position(needs_backend)
        {
            return Err(Unusable { index, error: InvalidFilter::BesideRedirect });
        }
    }
    Ok(filters)
}

/// The filters of one backendRef. They may only edit headers.
pub fn backend_filters(given: &[BackendFilter]) -> Result<Filters, Unusable> {
    let mut filters = Filters::default();
    for (index, filter) in given.iter().enumerate() {
        let repeated = given.iter().take(index).any(|other| other.r#type == filter.r#type);
        let result = if repeated { Err(InvalidFilter::Repeated) } else { add_to_backend(&mut filters, filter) };
        result.map_err(|error| Unusable { index, error })?;
    }
    Ok(filters)
}

fn add_to_backend(filters: &mut Filters, filter: &BackendFilter) -> Result<(), InvalidFilter> {
    match filter.r#type {
        BackendType::RequestHeaderModifier => filters.request_headers = edits(&filter.request_header_modifier)?,
        BackendType::ResponseHeaderModifier => filters.response_headers = edits(&filter.response_header_modifier)?,
        _ => return Err(InvalidFilter::Unsupported("other than header modifiers")),
    }
    Ok(())
}

fn add(filters: &mut Filters, filter: &RouteFilter, prefixes_only: bool) -> Result<(), InvalidFilter> {
    match filter {
        RouteFilter::RequestHeaderModifier(modifier) => filters.request_headers = edits(modifier)?,
        RouteFilter::ResponseHeaderModifier(modifier) => filters.response_headers = edits(modifier)?,
        RouteFilter::UrlRewrite(given) => filters.rewrite = rewrite(given, prefixes_only)?,
        RouteFilter::RequestRedirect(given) => filters.redirect = Some(redirect(given, prefixes_only)?),
        RouteFilter::Cors(given) => filters.cors = Some(Box::new(cors(given))),
        RouteFilter::RequestMirror(_) => {}
        RouteFilter::ExtensionRef => return Err(InvalidFilter::Unsupported("ExtensionRef")),
        RouteFilter::ExternalAuth => return Err(InvalidFilter::Unsupported("ExternalAuth")),
    }
    Ok(())
}

/// Request and response modifiers are two types with the same fields.
fn edits(modifier: &impl serde::Serialize) -> Result<HeaderEdits, InvalidFilter> {
    let value = serde_json::to_value(modifier).unwrap_or(Value::Null);
    let items = |name: &str| value.get(name).and_then(Value::as_array).into_iter().flatten();
    let pairs = |name: &str| {
        items(name)
            .filter_map(|pair| Some((header(pair.get("name")?.as_str()?), pair.get("value")?.as_str()?.to_owned())))
            .map(|(name, value)| Ok((name?, value)))
            .collect::<Result<Vec<_>, _>>()
    };
    let edits = Edits {
        set: pairs("set")?,
        add: pairs("add")?,
        remove: items("remove").filter_map(Value::as_str).map(header).collect::<Result<_, _>>()?,
    };
    Ok(edits.into())
}

fn header(name: &str) -> Result<String, InvalidFilter> {
    let name = name.to_ascii_lowercase();
    // Envoy refuses the first two, and a refused resource would stop every later change. By the third one a route could speak
    // to a sidecar as if it were the Gateway.
    let is_taken = name == "host" || name.starts_with(':') || name.starts_with("x-tollgate-");
    if is_taken { Err(InvalidFilter::Header(name)) } else { Ok(name) }
}

fn rewrite(filter: &RewriteFilter, prefixes_only: bool) -> Result<Option<Box<Rewrite>>, InvalidFilter> {
    let path = match &filter.path {
        None => None,
        Some(path) => match (&path.r#type, &path.replace_full_path, &path.replace_prefix_match) {
            (RewritePathType::ReplaceFullPath, Some(full), None) => Some(PathRewrite::Full(full.clone())),
            (RewritePathType::ReplacePrefixMatch, None, Some(_)) if !prefixes_only => {
                return Err(InvalidFilter::NoPrefix);
            }
            (RewritePathType::ReplacePrefixMatch, None, Some(prefix)) => Some(PathRewrite::Prefix(prefix.clone())),
            _ => return Err(InvalidFilter::PathFields),
        },
    };
    let rewrite = Rewrite { hostname: filter.hostname.clone(), path };
    Ok((rewrite != Rewrite::default()).then(|| Box::new(rewrite)))
}

fn redirect(filter: &RedirectFilter, prefixes_only: bool) -> Result<Redirect, InvalidFilter> {
    let path = match &filter.path {
        None => None,
        Some(path) => match (&path.r#type, &path.replace_full_path, &path.replace_prefix_match) {
            (RedirectPathType::ReplaceFullPath, Some(full), None) => Some(PathRewrite::Full(full.clone())),
            (RedirectPathType::ReplacePrefixMatch, None, Some(_)) if !prefixes_only => {
                return Err(InvalidFilter::NoPrefix);
            }
            (RedirectPathType::ReplacePrefixMatch, None, Some(prefix)) => Some(PathRewrite::Prefix(prefix.clone())),
            _ => return Err(InvalidFilter::PathFields),
        },
    };
    let status = match filter.status_code.unwrap_or(302) {
        code @ (301 | 302 | 303 | 307 | 308) => u16::try_from(code).unwrap_or(302),
        code => return Err(InvalidFilter::Status(code)),
    };
    Ok(Redirect {
        scheme: filter.scheme.as_ref().map(|scheme| match scheme {
            Scheme::Http => "http".to_owned(),
            Scheme::Https => "https".to_owned(),
        }),
        hostname: filter.hostname.clone(),
        port: filter.port.and_then(|port| u16::try_from(port).ok()),
        path,
        status,
    })
}
