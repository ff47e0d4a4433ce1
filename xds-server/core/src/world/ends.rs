//! The keys that end soon or have ended. Asking for them costs as much as there are of them.

use std::sync::Arc;

use crate::ir::Key;
use crate::status::{Horizon, Phase};

use super::World;

/// The keys of all Consumers at a time.
#[derive(Debug, Default, PartialEq)]
pub struct Ends {
    /// In the order of their ends.
    pub ending: Vec<Arc<Key>>,
    pub ended: Vec<Arc<Key>>,
    /// Unix seconds when this is another, if no object changes.
    pub next: Option<i64>,
}

// === impl World ===

impl World {
    pub fn ends(&self, horizon: Horizon) -> Ends {
        let mut ends = Ends::default();
        for (end, hash) in &self.ends {
            let turn = horizon.turn(*end);
            ends.next = [ends.next, turn].into_iter().flatten().min();
            let list = match horizon.phase(*end) {
                // All others end later.
                Phase::Lasting => break,
                Phase::Ending => &mut ends.ending,
                Phase::Ended => &mut ends.ended,
            };
            list.extend(self.ir.keys.get(hash).map(Arc::clone));
        }
        ends
    }

    /// The key of this hash is to be another one. It is still the one of before.
    pub(super) fn note_end(&mut self, hash: &str, next: Option<&Key>) {
        if let Some(end) = self.ir.keys.get(hash).and_then(|before| before.not_after) {
            self.ends.remove(&(end, hash.to_owned()));
        }
        if let Some(end) = next.and_then(|next| next.not_after) {
            self.ends.insert((end, hash.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::objects::{Changes, NoSecretSource, Objects};
    use crate::placement::Placement;

    /// What changes in `world` when the Consumer has these keys.
    fn consumer(world: &World, keys: &[(char, i64)]) -> Changes {
        let keys: Vec<String> = keys
            .iter()
            .map(|(digit, end)| {
                let hash: String = [*digit; 64].iter().collect();
                format!("{{sha256: '{hash}', notAfter: '{}'}}", Timestamp::from_second(*end).unwrap())
            })
            .collect();
        let text = format!(
            "{{apiVersion: tollgate.dev/v1alpha1, kind: Consumer, metadata: {{name: a}}, spec: {{keys: [{}]}}}}",
            keys.join(", ")
        );
        let mut objects = Objects::default();
        // A Consumer without a key is warned of.
        objects.add_yaml("f", &text, &NoSecretSource);
        Changes::between(world.objects(), &objects)
    }

    fn asked(world: &World, now: i64) -> (String, String, Option<i64>) {
        let now = Timestamp::from_second(now).unwrap();
        let Ends { ending, ended, next } = world.ends(Horizon::new(now, Duration::from_secs(100)));
        let names = |keys: Vec<Arc<Key>>| keys.iter().filter_map(|key| key.proof.name().chars().next()).collect();
        (names(ending), names(ended), next)
    }

    #[test]
    fn keys_are_told_of_in_the_order_in_which_they_end() {
        let mut world = World::new(Placement::OneHost);
        let changes = consumer(&world, &[('a', 1000), ('b', 950), ('c', 5000)]);
        world.step(changes);
        assert_eq!(asked(&world, 849), (String::new(), String::new(), Some(850)));
        assert_eq!(asked(&world, 900), ("ba".to_owned(), String::new(), Some(951)));
        assert_eq!(asked(&world, 951), ("a".to_owned(), "b".to_owned(), Some(1001)));
        assert_eq!(asked(&world, 5001), (String::new(), "bac".to_owned(), None));
        let changes = consumer(&world, &[('a', 2000)]);
        world.step(changes);
        assert_eq!(asked(&world, 1950), ("a".to_owned(), String::new(), Some(2001)));
        let changes = consumer(&world, &[]);
        world.step(changes);
        assert_eq!(asked(&world, 1950), (String::new(), String::new(), None));
    }
}
