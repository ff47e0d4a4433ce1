//! The sidecars of callers. They choose who serves a request to one Service, and nothing else: who may ask and what it costs
//! is decided where the model runs. So everybody is taken, nothing is counted, and the control plane is never called.

use std::rc::Rc;

use tollgate_proto::v1 as wire;

use super::{Access, Backend, Class, InvalidConfig, Pool, Rewrite, all};

/// The one class of the stage.
pub(super) fn class(stage: wire::RequestStage) -> Result<Rc<Class>, InvalidConfig> {
    let place = || "the sidecars of callers".to_owned();
    let backends = all::<_, Backend>(stage.backends)?;
    if backends.iter().any(|backend| backend.name.is_empty()) {
        return Err(InvalidConfig::Missing { what: "name of a backend", place: place() });
    }
    let by_headers = |backend: Rc<Backend>| Rc::new(Backend { rewrite: Rewrite::ByHeaders, ..(*backend).clone() });
    let backends: Vec<Rc<Backend>> = backends.into_iter().map(by_headers).collect();
    let pools = stage.pools.into_iter().map(|pool| Pool::new(pool, &backends).map(Rc::new));
    let pools = pools.collect::<Result<Vec<_>, _>>()?;
    if pools.iter().any(|pool| pool.access == Access::Required) {
        // Its keys are not known there.
        return Err(InvalidConfig::Missing { what: "access of everybody", place: place() });
    }
    let mut classes = stage.classes.into_iter();
    match (classes.next(), classes.next()) {
        (Some(class), None) => Ok(Rc::new(Class::new(class, &pools, &[])?)),
        (None, _) => Err(InvalidConfig::Missing { what: "class", place: place() }),
        (Some(_), Some(other)) => Err(InvalidConfig::Twice { what: "class of callers", name: other.id }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn parsed(change: impl FnOnce(&mut wire::RequestStage)) -> Result<Rc<Class>, InvalidConfig> {
        let mut stage = fixture::caller();
        change(&mut stage);
        class(stage)
    }

    #[test]
    fn a_caller_has_one_class_and_its_backends_are_named_by_headers() {
        let Class::Open(terms) = &*parsed(|_| {}).unwrap() else { panic!() };
        assert_eq!((terms.limits.len(), terms.pool.access), (0, Access::Anonymous));
        let targets = terms.pool.models.iter().flat_map(|model| &model.targets);
        assert!(
            targets.clone().count() == 2 && targets.clone().all(|target| target.backend.rewrite == Rewrite::ByHeaders)
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let missing = |what| InvalidConfig::Missing { what, place: "the sidecars of callers".to_owned() };
        let refused = |change: fn(&mut wire::RequestStage)| parsed(change).unwrap_err();
        assert_eq!(refused(|stage| stage.classes.clear()), missing("class"));
        assert_eq!(refused(|stage| stage.backends[0].name.clear()), missing("name of a backend"));
        let required = |stage: &mut wire::RequestStage| stage.pools[0].access = wire::Access::Required.into();
        assert_eq!(refused(required), missing("access of everybody"));
        let twice = InvalidConfig::Twice { what: "class of callers", name: "c".to_owned() };
        assert_eq!(refused(|stage| stage.classes.push(stage.classes[0].clone())), twice);
        let limit = refused(|stage| stage.classes[0].limits = vec![0]);
        assert!(matches!(limit, InvalidConfig::Dangling { what: "limit", .. }), "{limit:?}");
    }
}
