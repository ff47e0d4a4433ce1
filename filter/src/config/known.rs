//! The classes that configurations of this worker have, or had until lately. A filter's configuration comes before the
//! routes that name its new classes, and Envoy answers for it before they are sent. Until they are there, routes name
//! classes that the newest configuration has no more. They may do so for long if Envoy refuses the new routes: then
//! the last good ones go on as they were.

use std::rc::Rc;

use super::{ByName, Class};

/// In the order in which the configurations came. An id always means the same pool and limits, so one list serves all
/// Gateways of a worker.
#[derive(Debug, Default)]
pub struct Known(Vec<(String, Rc<Class>)>);

/// So many classes are kept that no configuration has any more.
const MAX_FORMER: usize = 64;

// === impl Known ===

impl Known {
    /// A new configuration has these classes.
    pub fn add(&mut self, classes: &ByName<Class>) {
        let is_former = |class: &Rc<Class>| Rc::strong_count(class) == 1;
        let formers = self.0.iter().filter(|(id, class)| is_former(class) && classes.get(id).is_none());
        let mut too_many = formers.count().saturating_sub(MAX_FORMER);
        self.0.retain(|(id, class)| {
            if classes.get(id).is_some() {
                return false;
            }
            let goes = too_many > 0 && is_former(class);
            too_many -= usize::from(goes);
            !goes
        });
        self.0.extend_from_slice(classes.all());
    }

    pub fn get(&self, id: &str) -> Option<&Rc<Class>> {
        self.0.iter().rev().find(|(known, _)| known == id).map(|(_, class)| class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration whose classes have these ids, each closed by the given policy.
    fn classes(ids: impl IntoIterator<Item = usize>, policy: &str) -> ByName<Class> {
        let class = |id: usize| (id.to_string(), Rc::new(Class::Closed { policy: policy.to_owned() }));
        ByName::new("class", ids.into_iter().map(class).collect()).unwrap()
    }

    fn policy_of(known: &Known, id: usize) -> Option<&str> {
        known.get(&id.to_string()).map(|class| match &**class {
            Class::Closed { policy } => policy.as_str(),
            Class::Open(_) => panic!("{class:?}"),
        })
    }

    #[test]
    fn a_class_is_known_after_its_configuration() {
        let mut known = Known::default();
        known.add(&classes([1, 2], "old"));
        known.add(&classes([2, 3], "new"));
        assert_eq!([0, 1, 2, 3].map(|id| policy_of(&known, id)), [None, Some("old"), Some("new"), Some("new")]);
        known.add(&classes([1], "again"));
        assert_eq!([1, 2, 3].map(|id| policy_of(&known, id)), [Some("again"), Some("new"), Some("new")]);
        assert_eq!(known.0.len(), 3);
    }

    #[test]
    fn the_oldest_are_forgotten_that_nobody_has_any_more() {
        let mut known = Known::default();
        let of_another_gateway = classes([1000], "");
        known.add(&of_another_gateway);
        for id in 0..=MAX_FORMER {
            known.add(&classes([id], ""));
        }
        let newest = classes([2000], "");
        known.add(&newest);
        assert_eq!((policy_of(&known, 0), policy_of(&known, 1)), (None, Some("")));
        assert_eq!((policy_of(&known, 1000), policy_of(&known, 2000)), (Some(""), Some("")));
        assert_eq!(known.0.len(), MAX_FORMER + 2);
        drop(of_another_gateway);
        known.add(&classes([], ""));
        assert_eq!((policy_of(&known, 1000), policy_of(&known, 1)), (None, Some("")), "the oldest goes");
        assert_eq!(policy_of(&known, 2000), Some(""));
        drop(newest);
    }

    #[test]
    fn any_number_of_classes_in_use_are_known() {
        let mut known = Known::default();
        let many = classes(0..1000, "");
        known.add(&many);
        known.add(&many);
        assert_eq!((known.0.len(), policy_of(&known, 0), policy_of(&known, 999)), (1000, Some(""), Some("")));
        drop(many);
        known.add(&classes([], ""));
        assert_eq!((known.0.len(), policy_of(&known, 999)), (MAX_FORMER, Some("")));
    }
}
