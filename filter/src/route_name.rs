//! What the name of an Envoy route says: its class and its HTTPRoute (`proto/policy.proto`). It is the only thing that
//! a filter is told of a route, so that a new route changes no configuration of the filter.

/// The name of a route of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteName<'a> {
    /// The route leads to no pool.
    Plain,
    OfClass {
        class: &'a str,
        /// The HTTPRoute's display name: with its namespace, unless that is `default`.
        route: &'a str,
    },
}

/// Longer than any name that the control plane makes. A namespace has at most 63 bytes, a name 253.
const MAX_BYTES: usize = 512;
const DEFAULT_NAMESPACE: &str = "default";

// === impl RouteName ===

impl<'a> RouteName<'a> {
    /// None: the control plane makes no such name.
    pub fn parse(name: &'a str) -> Option<Self> {
        let mut parts = [""; 8];
        let mut count = 0;
        for part in name.split('/') {
            *parts.get_mut(count)? = part;
            count += 1;
        }
        let (class, object) = match parts.get(..count)? {
            [class, object @ ..] if count == parts.len() => (Some(*class), object),
            object => (None, object),
        };
        let [kind, namespace, route, "rule", rule, "match", r#match] = object else { return None };
        // A GRPCRoute leads to no pool.
        if *kind != "httproute" && !(*kind == "grpcroute" && class.is_none()) {
            return None;
        }
        let is_said = [class.unwrap_or("-"), namespace, route].iter().all(|part| !part.is_empty());
        if name.len() > MAX_BYTES || !is_said || !is_number(rule) || !is_number(r#match) {
            return None;
        }
        let Some(class) = class else { return Some(Self::Plain) };
        if *namespace == DEFAULT_NAMESPACE {
            return Some(Self::OfClass { class, route });
        }
        let start = class.len() + "/httproute/".len();
        let route = name.get(start..start + namespace.len() + 1 + route.len())?;
        Some(Self::OfClass { class, route })
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_says_its_class_and_its_route() {
        let of_class = |route| Some(RouteName::OfClass { class: "c1", route });
        for (name, said) in [
            ("c1/httproute/default/chat/rule/0/match/0", of_class("chat")),
            ("c1/httproute/tenant/chat/rule/12/match/3", of_class("tenant/chat")),
            ("c1/httproute/rule/match/rule/0/match/0", of_class("rule/match")),
            ("c1/httproute/default/rule/rule/0/match/0", of_class("rule")),
            ("c1/httproute/httproute/default/rule/0/match/0", of_class("httproute/default")),
            ("httproute/default/chat/rule/0/match/0", Some(RouteName::Plain)),
            ("httproute/httproute/chat/rule/0/match/0", Some(RouteName::Plain)),
            ("grpcroute/default/echo/rule/0/match/0", Some(RouteName::Plain)),
        ] {
            assert_eq!(RouteName::parse(name), said, "{name}");
        }
    }

    #[test]
    fn what_the_control_plane_never_writes_says_nothing() {
        let long = format!("c1/httproute/default/{}/rule/0/match/0", "a".repeat(MAX_BYTES));
        for name in [
            "",
            "/",
            "chat",
            "httproute",
            "httproute/default/chat",
            "httproute/default/chat/rule/0",
            "httproute//chat/rule/0/match/0",
            "httproute/default//rule/0/match/0",
            "httproute/default/chat/rule//match/0",
            "httproute/default/chat/rule/0/match/",
            "httproute/default/chat/rule/+1/match/0",
            "httproute/default/chat/rule/0/match/0/more",
            "httproute/default/chat/more/rule/0/match/0",
            "/httproute/default/chat/rule/0/match/0",
            "c1/grpcroute/default/chat/rule/0/match/0",
            "c1/c2/httproute/default/chat/rule/0/match/0",
            "c1/httproute/chat/rule/0/match/0",
            &long,
        ] {
            assert_eq!(RouteName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_longest_names_there_are_have_room() {
        let (class, namespace, name) = ("f".repeat(64), "n".repeat(63), "r".repeat(253));
        let text = format!("{class}/httproute/{namespace}/{name}/rule/{0}/match/{0}", u32::MAX);
        let route = format!("{namespace}/{name}");
        assert_eq!(RouteName::parse(&text), Some(RouteName::OfClass { class: &class, route: &route }));
        let full = |more: usize| "c".repeat(MAX_BYTES - text.len() + class.len() + more);
        let of_size = |more: usize| text.replace(&class, &full(more));
        assert!(RouteName::parse(&of_size(0)).is_some());
        assert_eq!(RouteName::parse(&of_size(1)), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            class in "[0-9a-f]{1,64}",
            namespace in prop_oneof![Just("default".to_owned()), "[a-z0-9-]{1,63}"],
            name in "[a-z0-9.-]{1,253}",
            rule in any::<u16>(),
            place in any::<u16>(),
        ) {
            let plain = format!("httproute/{namespace}/{name}/rule/{rule}/match/{place}");
            prop_assert_eq!(RouteName::parse(&plain), Some(RouteName::Plain));
            let route = if namespace == "default" { name } else { format!("{namespace}/{name}") };
            let of_class = format!("{class}/{plain}");
            prop_assert_eq!(RouteName::parse(&of_class), Some(RouteName::OfClass { class: &class, route: &route }));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(httproute|rule|match|default|[0-9]|/|é|c1){0,20}") {
            if let Some(RouteName::OfClass { class, route }) = RouteName::parse(&text) {
                prop_assert!(text.starts_with(class) && text.contains(route));
                prop_assert!(!class.is_empty() && !route.is_empty());
            }
        }
    }
}
