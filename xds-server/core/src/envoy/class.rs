//! Classes of routes. The filter knows each class once, and a route says its class in its name. So a new route to a known
//! pool, under limits that another route has too, changes nothing in the filter's configuration.

use sha2::{Digest as _, Sha256};

use crate::ir::{Class, Route};

/// So many bytes that no tenant finds two classes of one id: that takes 2^64 tries.
const ID_BYTES: usize = 16;

/// The name of the Envoy route. The filter reads it (`proto/policy.proto`).
pub fn route_name(route: &Route) -> String {
    let name = route.name();
    match Class::of(&route.action) {
        Some(class) => format!("{}/{name}", id(&class)),
        None => name,
    }
}

/// A hash of the content and of nothing else. A change of how it is made changes all routes and the filter's
/// configuration of every proxy.
pub fn id(class: &Class) -> String {
    let mut hash = Sha256::new();
    // Each text has its length in front, and the limits, of which there may be any number, come last.
    let is_closed = u8::from(class.closed_by.is_some());
    let has_no_pool = u8::from(class.pool.is_none());
    hash.update([is_closed | (has_no_pool << 1)]);
    let texts = [class.pool.as_deref().unwrap_or_default(), class.closed_by.as_deref().unwrap_or_default()];
    for text in texts.into_iter().chain(class.limits.iter().map(String::as_str)) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    let digest: [u8; 32] = hash.finalize().into();
    hex::encode(digest.first_chunk::<ID_BYTES>().unwrap_or(&[0; ID_BYTES]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use tollgate_filter::route_name::RouteName;

    use super::*;
    use crate::ir::{Action, HeaderEdits, Match};
    use crate::status::Origin;

    fn pool(pool: &str, limits: &[&str], closed_by: Option<&str>) -> Action {
        Action::Pool {
            pool: pool.to_owned(),
            limits: limits.iter().map(|limit| (*limit).to_owned()).collect(),
            closed_by: closed_by.map(str::to_owned),
        }
    }

    fn route(namespace: &str, name: &str, action: Action) -> Route {
        Route {
            origin: Origin::new("HTTPRoute", namespace, name),
            place: (1, 2),
            matches: Match::default(),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            rewrite: None,
            request_timeout: None,
            attempt_timeout: None,
            retry: None,
            cors: None,
            session: None,
            mirrors: [].into(),
            action,
        }
    }

    fn id(action: &Action) -> String {
        super::id(&Class::of(action).unwrap())
    }

    #[test]
    fn an_id_is_the_same_for_ever() {
        assert_eq!(id(&pool("default/chat", &["default/p/daily"], None)), "191cccee43ebcce6e2be049c9d47cc48");
    }

    #[test]
    fn what_differs_in_anything_has_another_id() {
        let different = [
            pool("a/b", &[], None),
            pool("a/c", &[], None),
            pool("a/b", &[], Some("")),
            pool("a/b", &[], Some("n/p")),
            pool("a/b", &["n/p"], None),
            pool("a/b", &["n/p/l"], None),
            pool("a/b", &["n/p/l", ""], None),
            pool("a/b", &["n/p", "l"], None),
            pool("a/b", &["l", "n/p"], None),
            pool("a/b", &["n/p/l"], Some("n/p")),
        ];
        let ids: BTreeSet<String> = different.iter().map(id).collect();
        assert_eq!(ids.len(), different.len());
    }

    #[test]
    fn a_class_without_a_pool_is_no_class_of_a_pool() {
        let class = |pool: Option<&str>, closed_by: Option<&str>| Class {
            pool: pool.map(str::to_owned),
            limits: vec!["n/p/l".to_owned()],
            closed_by: closed_by.map(str::to_owned),
        };
        let all = [class(None, None), class(None, Some("")), class(Some(""), None), class(Some(""), Some(""))];
        let ids: BTreeSet<String> = all.iter().map(super::id).collect();
        assert_eq!(ids.len(), all.len());
    }

    #[test]
    fn a_plain_routes_name_has_no_class() {
        let plain = route("default", "app", Action::Fail { status: 500 });
        assert_eq!(route_name(&plain), "httproute/default/app/rule/1/match/2");
        assert_eq!(RouteName::parse(&route_name(&plain)), Some(RouteName::Plain));
    }

    fn actions() -> impl Strategy<Value = Action> {
        let text = || "[a-c/]{0,3}";
        (text(), prop::collection::vec(text(), 0..3), prop::option::of(text()))
            .prop_map(|(pool, limits, closed_by)| Action::Pool { pool, limits, closed_by })
    }

    proptest! {
        #[test]
        fn ids_are_equal_where_the_content_is(one in actions(), other in actions()) {
            prop_assert_eq!(id(&one) == id(&other), one == other);
            prop_assert_eq!(id(&one), id(&one.clone()));
        }

        #[test]
        fn the_filter_reads_what_is_written(
            namespace in prop_oneof![Just("default".to_owned()), "[a-z0-9-]{1,63}"],
            name in "[a-z0-9.-]{1,253}",
            action in actions(),
        ) {
            let route = route(&namespace, &name, action);
            let said = RouteName::OfClass { class: &id(&route.action), route: &route.origin.display_name() };
            let name = route_name(&route);
            prop_assert_eq!(RouteName::parse(&name), Some(said));
        }
    }
}
