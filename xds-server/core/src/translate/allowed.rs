//! From which namespaces routes and ListenerSets may attach.

use std::collections::BTreeMap;

use gateway_api::apis::standard::gateways::{
    GatewayAllowedListenersNamespaces as SetNamespaces, GatewayAllowedListenersNamespacesFrom as SetFrom,
    GatewayListenersAllowedRoutesNamespaces as RouteNamespaces,
    GatewayListenersAllowedRoutesNamespacesFrom as RouteFrom,
};

use crate::objects::{LabelSelector, Namespace, Namespaces, Operator, Requirement};

use super::view::View;

/// The namespaces whose routes a listener takes. None: none, because its selector says something that nobody knows.
pub fn routes(allowed: Option<&RouteNamespaces>) -> Option<Namespaces> {
    match allowed.and_then(|allowed| allowed.from.as_ref()).unwrap_or(&RouteFrom::Same) {
        RouteFrom::All => Some(Namespaces::All),
        RouteFrom::Same => Some(Namespaces::Same),
        RouteFrom::Selector => {
            let selector = allowed.and_then(|allowed| allowed.selector.as_ref())?;
            let expressions = selector.match_expressions.iter().flatten();
            let expressions = expressions.map(|given| (&given.key, given.operator.as_str(), given.values.as_deref()));
            self::selector(selector.match_labels.as_ref(), expressions).map(Namespaces::Selector)
        }
    }
}

/// The namespaces whose ListenerSets a Gateway takes. None: none.
pub fn listener_sets(allowed: Option<&SetNamespaces>) -> Option<Namespaces> {
    match allowed.and_then(|allowed| allowed.from.as_ref()).unwrap_or(&SetFrom::None) {
        SetFrom::None => None,
        SetFrom::All => Some(Namespaces::All),
        SetFrom::Same => Some(Namespaces::Same),
        SetFrom::Selector => {
            let selector = allowed.and_then(|allowed| allowed.selector.as_ref())?;
            let expressions = selector.match_expressions.iter().flatten();
            let expressions = expressions.map(|given| (&given.key, given.operator.as_str(), given.values.as_deref()));
            self::selector(selector.match_labels.as_ref(), expressions).map(Namespaces::Selector)
        }
    }
}

/// Whether a namespace is among them. `own` is that of whoever allows.
pub fn include(view: View<'_>, allowed: Option<&Namespaces>, own: &str, namespace: &str) -> bool {
    match allowed {
        None => false,
        Some(Namespaces::All) => true,
        Some(Namespaces::Same) => own == namespace,
        Some(Namespaces::Selector(selector)) => {
            selector.selects(namespace, view.object::<Namespace>("", namespace).map(|object| &object.meta.labels))
        }
    }
}

/// None: it says something that nobody knows.
fn selector<'a>(
    labels: Option<&BTreeMap<String, String>>,
    expressions: impl Iterator<Item = (&'a String, &'a str, Option<&'a [String]>)>,
) -> Option<LabelSelector> {
    let labels = labels.into_iter().flatten();
    let labels =
        labels.map(|(key, value)| Some(Requirement { key: key.clone(), operator: Operator::In(vec![value.clone()]) }));
    let expressions = expressions.map(|(key, operator, values)| {
        let operator = Operator::parse(operator, values.unwrap_or_default().to_vec()).ok()?;
        Some(Requirement { key: key.clone(), operator })
    });
    labels.chain(expressions).collect::<Option<_>>().map(LabelSelector)
}
