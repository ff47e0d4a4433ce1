//! Which models follow a model that fails, in LiteLLM's order: one after the other, each with those that follow it.

use super::settings::{Named, Router};

// === impl Router ===

impl Router {
    /// The models that follow this one, each once.
    pub(super) fn after(&self, model: &str) -> Vec<&Named> {
        let mut after = Vec::new();
        self.walk(model, model, &mut after);
        after
    }

    fn walk<'r>(&'r self, first: &str, model: &str, after: &mut Vec<&'r Named>) {
        let next = self.fallbacks.of.get(model).map_or(&self.fallbacks.of_others, |fallback| &fallback.models);
        for named in next {
            if after.len() >= self.most_fallbacks {
                return;
            }
            if named.model != first && after.iter().all(|other| other.model != named.model) {
                after.push(named);
                self.walk(first, &named.model, after);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Fallback, Fallbacks};
    use super::*;

    fn named(models: &[&str]) -> Vec<Named> {
        models.iter().map(|model| Named { path: String::new(), model: (*model).to_owned() }).collect()
    }

    fn router(of: &[(&str, &[&str])], of_others: &[&str], most_fallbacks: usize) -> Router {
        let fallback = |models| Fallback { path: String::new(), models: named(models) };
        let of = of.iter().map(|(model, models)| ((*model).to_owned(), fallback(models))).collect();
        Router { fallbacks: Fallbacks { of, of_others: named(of_others) }, most_fallbacks, ..Router::default() }
    }

    fn after(router: &Router, model: &str) -> Vec<String> {
        router.after(model).into_iter().map(|named| named.model.clone()).collect()
    }

    #[test]
    fn each_model_is_followed_by_its_own_and_comes_once() {
        let chains = router(&[("a", &["b", "c"]), ("b", &["d", "a", "c"]), ("d", &["b"])], &[], 5);
        assert_eq!(after(&chains, "a"), ["b", "d", "c"]);
        assert_eq!(after(&chains, "d"), ["b", "a", "c"]);
        assert_eq!(after(&chains, "x"), [] as [&str; 0]);
    }

    #[test]
    fn those_of_all_others_are_for_models_without_any() {
        let chains = router(&[("a", &["b"]), ("z", &[])], &["y"], 5);
        assert_eq!(after(&chains, "a"), ["b", "y"]);
        assert_eq!(after(&chains, "x"), ["y"]);
        assert_eq!(after(&chains, "z"), [] as [&str; 0]);
    }

    #[test]
    fn there_are_no_more_than_litellm_tries() {
        assert_eq!(after(&router(&[("a", &["b", "c", "d"])], &[], 2), "a"), ["b", "c"]);
        assert_eq!(after(&router(&[("a", &["b"])], &[], 0), "a"), [] as [&str; 0]);
    }
}
