//! The workload whose sidecars the filter is in. What Gateways are told of pools and backends follows here from one thing:
//! a request goes to the workload, whatever model it asks for.

use std::rc::Rc;

use tollgate_proto::v1 as wire;

use super::{Backend, Class, InvalidConfig, Limit, Pool, Rewrite};

#[derive(Debug)]
pub struct Workload {
    /// How the control plane knows it.
    pub scope: String,
    /// It stands in usage rows in the place of a route.
    pub route: Rc<str>,
    pub class: Rc<Class>,
    /// Who is believed about what a request is charged to, by SPIFFE ID.
    pub gateways: Vec<String>,
}

// === impl Workload ===

impl Workload {
    pub(super) fn new(
        workload: wire::Workload,
        classes: Vec<wire::Class>,
        limits: &[Rc<Limit>],
    ) -> Result<Self, InvalidConfig> {
        let place = || "the workload".to_owned();
        if workload.scope.is_empty() {
            return Err(InvalidConfig::Missing { what: "scope", place: place() });
        }
        if workload.route.is_empty() {
            return Err(InvalidConfig::Missing { what: "route", place: place() });
        }
        let route: Rc<str> = workload.route.into();
        let mut classes = classes.into_iter();
        let class = match (classes.next(), classes.next()) {
            (Some(class), None) => class,
            (None, _) => return Err(InvalidConfig::Missing { what: "class", place: place() }),
            (Some(_), Some(other)) => return Err(InvalidConfig::Twice { what: "class of a workload", name: other.id }),
        };
        if class.pool.is_some() {
            return Err(InvalidConfig::Dangling { what: "pool", place: place(), index: class.pool(), len: 0 });
        }
        let backend = Backend {
            name: route.clone(),
            cluster: Rc::from(""),
            path_prefix: String::new(),
            authority: String::new(),
            rewrite: Rewrite::Nobody,
            hands_over: false,
        };
        let target = wire::Target { weight: 1, ..wire::Target::default() };
        let to_it = |model| wire::Model { targets: vec![target.clone()], ..model };
        let is_any = |model: &wire::Model| model.prefix && model.name.is_empty();
        let any = (!workload.models.iter().any(is_any)).then(|| wire::Model { prefix: true, ..wire::Model::default() });
        let pool = wire::Pool {
            access: wire::Access::Required.into(),
            consumer_namespaces: workload.consumer_namespaces,
            models: workload.models.into_iter().chain(any).map(to_it).collect(),
            ..wire::Pool::default()
        };
        let pool = Pool::new(pool, &[Rc::new(backend)])?;
        let class = Class::with_pool(Rc::new(pool), class, limits)?;
        Ok(Self { scope: workload.scope, route, class: Rc::new(class), gateways: workload.gateways })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Namespaces, Place, Stage, parse},
        fixture,
    };
    use prost::Message as _;

    fn parsed(change: impl FnOnce(&mut wire::RequestStage)) -> Result<Place, InvalidConfig> {
        let mut stage = fixture::workload();
        change(&mut stage);
        let config = wire::FilterConfig { stage: Some(wire::filter_config::Stage::Request(stage)) };
        let Stage::Request(stage) = parse(&config.encode_to_vec())?.stage else { panic!() };
        Ok(stage.place)
    }

    fn workload(stage: &mut wire::RequestStage) -> &mut wire::Workload {
        stage.workload.as_mut().unwrap()
    }

    #[test]
    fn a_workload_has_one_class_that_leads_nowhere_else() {
        let Ok(Place::Workload(workload)) = parsed(|_| {}) else { panic!() };
        let Class::Open(terms) = &*workload.class else { panic!("{workload:?}") };
        assert_eq!((terms.limits.len(), terms.pool.models.len()), (1, 1));
        assert_eq!(terms.pool.consumers, Namespaces::Only(vec!["default".to_owned()]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let missing = |what| InvalidConfig::Missing { what, place: "the workload".to_owned() };
        let refused = |change: fn(&mut wire::RequestStage)| parsed(change).unwrap_err();
        assert_eq!(refused(|stage| workload(stage).scope.clear()), missing("scope"));
        assert_eq!(refused(|stage| workload(stage).route.clear()), missing("route"));
        assert_eq!(refused(|stage| stage.classes.clear()), missing("class"));
        let twice = InvalidConfig::Twice { what: "class of a workload", name: "w".to_owned() };
        assert_eq!(refused(|stage| stage.classes.push(stage.classes[0].clone())), twice);
        let place = || "the workload".to_owned();
        let pool = InvalidConfig::Dangling { what: "pool", place: place(), index: 3, len: 0 };
        assert_eq!(refused(|stage| stage.classes[0].pool = Some(3)), pool);
        let of_models = |names: &[&str]| {
            let model = |name: &&str| wire::Model { name: (*name).to_owned(), ..wire::Model::default() };
            parsed(|stage| workload(stage).models = names.iter().map(model).collect()).map(drop)
        };
        assert_eq!(of_models(&["m", "n"]), Ok(()));
        let unnamed = InvalidConfig::Missing { what: "name", place: "a model".to_owned() };
        assert_eq!(of_models(&[""]), Err(unnamed));
        let twice = InvalidConfig::Twice { what: "model", name: "m".to_owned() };
        assert_eq!(of_models(&["m", "m"]), Err(twice));
        let limit = InvalidConfig::Dangling { what: "limit", place: "class \"w\"".to_owned(), index: 7, len: 1 };
        assert_eq!(refused(|stage| stage.classes[0].limits = vec![7]), limit);
    }
}
