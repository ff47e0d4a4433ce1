//! Which model is meant, and who serves it. A name is looked up exactly first, then by the longest prefix. The first
//! attempt is a weighted choice among the targets of the best priority; the other targets follow as further attempts.

use std::rc::Rc;

use crate::config::{Model, ModelName, Pool, Target};

/// Uniform random numbers, for the weighted choice.
pub trait Random {
    /// A number below `bound`; 0 when `bound` is 0.
    fn below(&mut self, bound: u64) -> u64;
}

/// The attempts in order. There is always one.
#[derive(Debug)]
pub struct Plan {
    pub model: Rc<Model>,
    /// Indexes into the model's targets.
    order: Vec<usize>,
}

/// Finds the model that clients know by this name.
pub fn find<'p>(pool: &'p Pool, name: &str) -> Option<&'p Rc<Model>> {
    let exact = pool.models.iter().find(|model| matches!(&model.name, ModelName::Exact(exact) if **exact == *name));
    exact.or_else(|| {
        pool.models
            .iter()
            .filter_map(|model| match &model.name {
                ModelName::Prefix(prefix) if name.starts_with(&**prefix) => Some((prefix.len(), model)),
                _ => None,
            })
            .max_by_key(|(length, _)| *length)
            .map(|(_, model)| model)
    })
}

// === impl Plan ===

impl Plan {
    /// None: no target takes a share.
    pub fn new(model: &Rc<Model>, random: &mut dyn Random) -> Option<Self> {
        let mut order: Vec<usize> = Vec::with_capacity(model.targets.len());
        let priority = |index: &usize| model.targets.get(*index).map(|target| target.priority);
        for (index, target) in model.targets.iter().enumerate().filter(|(_, target)| target.weight > 0) {
            let behind = order.iter().position(|other| priority(other) > Some(target.priority));
            order.insert(behind.unwrap_or(order.len()), index);
        }
        let first_priority = model.targets.get(*order.first()?)?.priority;
        let peers = || {
            order.iter().enumerate().filter_map(|(place, index)| {
                let target = model.targets.get(*index)?;
                (target.priority == first_priority).then_some((place, u64::from(target.weight)))
            })
        };
        let mut drawn = random.below(peers().map(|(_, weight)| weight).sum());
        let chosen = peers().find_map(|(place, weight)| match drawn.checked_sub(weight) {
            None => Some(place),
            Some(rest) => {
                drawn = rest;
                None
            }
        })?;
        if let Some(chosen) = order.get_mut(..=chosen) {
            chosen.rotate_right(1);
        }
        let attempts = usize::try_from(model.retries).unwrap_or(usize::MAX).saturating_add(1);
        order.truncate(attempts);
        Some(Self { model: model.clone(), order })
    }

    /// The distinct targets in order. After the last one, further attempts repeat it.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.order.iter().filter_map(|index| self.model.targets.get(*index))
    }

    pub fn first(&self) -> Option<&Target> {
        self.targets().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Access, Backend, Namespaces, Rewrite};

    struct Fixed(u64);

    impl Random for Fixed {
        fn below(&mut self, bound: u64) -> u64 {
            if bound == 0 { 0 } else { self.0 % bound }
        }
    }

    fn target(name: &str, weight: u32, priority: u32) -> Target {
        let backend = Backend {
            name: name.into(),
            cluster: format!("backend/default/{name}").into(),
            path_prefix: "/v1".into(),
            authority: name.into(),
            rewrite: Rewrite::PerAttempt,
            hands_over: false,
        };
        Target { backend: Rc::new(backend), model: None, weight, priority }
    }

    fn model(name: ModelName, targets: Vec<Target>, retries: u32) -> Rc<Model> {
        Rc::new(Model { counts_as: name.pattern(), name, targets, retries })
    }

    fn order(model: &Rc<Model>, drawn: u64) -> Option<Vec<String>> {
        let plan = Plan::new(model, &mut Fixed(drawn))?;
        Some(plan.targets().map(|target| target.backend.name.to_string()).collect())
    }

    #[test]
    fn the_exact_name_wins_then_the_longest_prefix() {
        let names = [
            ModelName::Prefix("".into()),
            ModelName::Prefix("gpt-".into()),
            ModelName::Prefix("gpt-4".into()),
            ModelName::Exact("gpt-4o".into()),
        ];
        let models = names.into_iter().map(|name| model(name, vec![], 0)).collect();
        let pool = Pool { access: Access::Required, consumers: Namespaces::All, models, most_retries: 0 };
        let found = |name| find(&pool, name).map(|model| model.name.pattern());
        assert_eq!(found("gpt-4o").as_deref(), Some("gpt-4o"));
        assert_eq!(found("gpt-4.1").as_deref(), Some("gpt-4*"));
        assert_eq!(found("gpt-3").as_deref(), Some("gpt-*"));
        assert_eq!(found("smol").as_deref(), Some("*"));
        let empty = Pool { access: Access::Required, consumers: Namespaces::All, models: vec![], most_retries: 0 };
        assert!(find(&empty, "smol").is_none());
    }

    #[test]
    fn the_choice_follows_the_weights_and_the_others_follow() {
        let targets = || vec![target("a", 1, 0), target("b", 3, 0), target("none", 0, 0), target("c", 1, 1)];
        let model = model(ModelName::Exact("m".into()), targets(), 5);
        assert_eq!(order(&model, 0).unwrap(), ["a", "b", "c"]);
        for drawn in 1..4 {
            assert_eq!(order(&model, drawn).unwrap(), ["b", "a", "c"]);
        }
    }

    #[test]
    fn a_plan_has_at_most_one_attempt_more_than_retries() {
        let model = model(ModelName::Exact("m".into()), vec![target("a", 1, 0), target("b", 1, 1)], 0);
        assert_eq!(order(&model, 0).unwrap(), ["a"]);
    }

    #[test]
    fn without_weight_there_is_no_plan() {
        let model = model(ModelName::Exact("m".into()), vec![target("a", 0, 0)], 1);
        assert_eq!(order(&model, 0), None);
    }
}
