//! The claims that are looked at in each namespace, kept up to date.

use std::collections::BTreeSet;

use crate::ir::{Delta, Key};
use crate::objects::Consumer;
use crate::status::{Finding, StatusKind};
use crate::translate::view::Fact;
use crate::translate::{claim_sets, jwt_issuers};

use super::memo::Dirty;
use super::{Touched, World};

// === impl World ===

impl World {
    /// A key of the IR is another one now.
    pub(super) fn note_claims(&mut self, [before, after]: [Option<&Key>; 2], dirty: &mut Dirty) {
        let mut changed = BTreeSet::new();
        changed.extend(before.filter(|key| self.made.remove_claims(key)).map(|key| &key.origin.namespace));
        changed.extend(after.filter(|key| self.made.add_claims(key)).map(|key| &key.origin.namespace));
        dirty.facts.extend(changed.into_iter().map(|namespace| Fact::claim_sets(namespace)));
    }

    /// Gateways that verify JWTs, and are to look at other claims now.
    pub(super) fn note_claims_at_gateways(&self, touched: &mut Touched) {
        for (key, open) in self.made.listeners.iter().filter(|(_, open)| !open.jwt_issuers.is_empty()) {
            let sets = jwt_issuers::claim_sets(&self.made.claim_sets, &open.jwt_issuers);
            if self.ir.gateways.get(key).is_some_and(|gateway| gateway.catalog.claim_sets != sets) {
                touched.gateways.insert(key.clone());
            }
        }
    }

    /// Says anew which claims are left out in these namespaces, and where Consumers stand that did say so.
    pub(super) fn step_claim_sets(&mut self, namespaces: BTreeSet<String>, dirty: &Dirty, delta: &mut Delta) {
        let of_dirty = dirty.of::<Consumer>().map(|key| key.namespace.to_string());
        let of_dirty = of_dirty.filter(|namespace| self.of_claims.contains_key(namespace));
        let due: BTreeSet<String> = namespaces.into_iter().chain(of_dirty).collect();
        for namespace in due {
            let findings = self.left_out(&namespace);
            let before = if findings.is_empty() {
                self.of_claims.remove(&namespace)
            } else {
                self.of_claims.insert(namespace.clone(), findings.clone())
            };
            let before = before.unwrap_or_default();
            if before != findings {
                let origins = before.iter().chain(&findings).filter_map(|finding| finding.origin.as_ref());
                delta.statuses.extend(origins.map(|origin| (StatusKind::Consumer, origin.key())));
            }
        }
    }

    fn left_out(&self, namespace: &str) -> Vec<Finding> {
        let sets = self.made.claim_sets.get(namespace).into_iter();
        let keys = sets.flat_map(|sets| sets.left_out()).filter_map(|name| self.ir.keys.get(name));
        let consumers: BTreeSet<_> = keys.map(|key| key.origin.key()).collect();
        let consumers = consumers.iter().filter_map(|key| self.objects.consumers.get(&key.namespace, &key.name));
        consumers.map(claim_sets::left_out).collect()
    }
}

#[cfg(test)]
mod tests {
    use tollgate_proto::jwt::MAX_SETS;

    use crate::objects::{Changes, NoSecretSource, Objects};
    use crate::placement::{Direction, Placement};
    use crate::translate::translate;
    use crate::world::World;

    /// A workload, and Consumers that ask for a claim each, below so many empty lines.
    fn objects(consumers: impl Iterator<Item = usize>, lines: usize) -> Objects {
        let consumer = |number: usize| {
            format!(
                "---\napiVersion: tollgate.dev/v1alpha1\nkind: Consumer\nmetadata: {{name: c{number:03}}}\n\
                 spec: {{claims: [{{issuer: i, match: {{claim{number:03}: x}}}}, {{issuer: i, match: {{claim000: y}}}}]}}\n"
            )
            // No two ask for the same, and all ask for the first claim.
            .replace("y}", &format!("y{number}}}"))
        };
        let consumers: String = consumers.map(consumer).collect();
        let workload = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: s}, ports: [{port: 80}]}\n\
                        ---\napiVersion: tollgate.dev/v1alpha1\nkind: TokenPolicy\nmetadata: {name: p}\nspec: \
                        {targetRefs: [{kind: Service, name: s}], limits: [{name: day, tokens: 5, window: 1d}]}\n";
        let mut objects = Objects::default();
        let text = format!("{}{workload}{consumers}", "\n".repeat(lines));
        assert_eq!(objects.add_yaml("f", &text, &NoSecretSource), []);
        objects
    }

    #[test]
    fn so_many_sets_of_claims_are_looked_at_and_the_others_are_told() {
        let placement = Placement::Sidecar(Direction::Inbound);
        let mut world = World::new(placement.clone());
        let all = MAX_SETS + 3;
        for (consumers, lines, left_out) in [
            (0..MAX_SETS, 0, vec![]),
            (0..all, 0, vec!["c064", "c065", "c066"]),
            (0..all, 5, vec!["c064", "c065", "c066"]),
            (1..all, 5, vec!["c064", "c065", "c066"]),
            (3..all, 5, vec!["c066"]),
            (4..all, 5, vec![]),
        ] {
            let objects = objects(consumers, lines);
            world.step(Changes::between(world.objects(), &objects));
            let whole = translate(&objects, placement.clone());
            assert_eq!(world.ir().workloads, whole.ir.workloads);
            assert_eq!(world.findings(), whole.findings);
            assert_eq!(world.statuses(&[]), whole.statuses(&objects, &[]));
            let origins = whole.findings.iter().filter_map(|finding| finding.origin.as_ref());
            assert_eq!(origins.map(|origin| origin.name.to_string()).collect::<Vec<_>>(), left_out);
            let looked_at =
                world.ir().workloads.values().map(|workload| workload.catalog.claim_sets.len()).sum::<usize>();
            assert!(looked_at <= MAX_SETS && (left_out.is_empty() || looked_at == MAX_SETS), "{looked_at}");
        }
    }
}
