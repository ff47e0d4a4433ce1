//! Objects of several files put together. Each file is decoded by itself, so that only those that changed are read again.

use crate::objects::refused_policy::{RefusedPolicy, Suspect};
use crate::objects::{EachKind, Kind, Objects, each_kind, read};
use crate::status::Finding;

/// Files that are put together, and what was found on the way.
struct Merging<'a> {
    all: &'a mut Objects,
    file: &'a Objects,
    findings: Vec<Finding>,
    refused_policies: Vec<RefusedPolicy>,
}

/// Notes since when objects are as they are.
struct Dating<'a> {
    new: &'a mut Objects,
    last: &'a Objects,
    now: i64,
}

// === impl Objects ===

impl Objects {
    /// Adds what another file says. An object that is there already stays as it is, and a finding says so. The objects
    /// themselves are shared.
    pub fn merge(&mut self, file: &Self) -> Vec<Finding> {
        let mut merging = Merging { all: self, file, findings: Vec::new(), refused_policies: Vec::new() };
        each_kind(&mut merging);
        let Merging { mut findings, mut refused_policies, .. } = merging;
        self.refused.extend(file.refused.iter().map(|(origin, generation)| (origin.clone(), *generation)));
        self.files.extend(file.files.iter().cloned());
        self.refused_policies.extend(file.refused_policies.iter().cloned());
        self.refused_policies.append(&mut refused_policies);
        findings.sort_by(Finding::by_spot);
        findings
    }

    /// Moves the objects to memory of their own, but those that others share with it. While a file is read, much is allocated between what stays of it, and by
    /// another thread perhaps. The holes that this leaves may be as large as the objects.
    pub fn resettle(&mut self) {
        each_kind(&mut Resettling(self));
    }

    /// Notes since when each object is as it is. `now` is the time in Unix seconds.
    pub fn date(&mut self, last: &Self, now: i64) {
        each_kind(&mut Dating { new: self, last, now });
    }
}

struct Resettling<'a>(&'a mut Objects);

// === impl Resettling ===

impl EachKind for Resettling<'_> {
    fn kind<T: Kind>(&mut self) {
        T::store_mut(self.0).resettle();
    }
}

// === impl Merging ===

impl EachKind for Merging<'_> {
    fn kind<T: Kind>(&mut self) {
        for object in T::store(self.file).shared() {
            let Err(first) = T::store_mut(self.all).share(object) else { continue };
            self.findings.push(read::duplicate(&first.meta, &object.meta));
            // It may be that a policy was to say this, and not what the first one says.
            if let (Some(first), Some(second)) = (first.meta.file(), object.meta.file())
                && first.source != second.source
                && let Some(suspect) = Suspect::of_source(&second.source)
            {
                self.refused_policies.push(suspect.refused(object.meta.clone()));
            }
        }
    }
}

// === impl Dating ===

impl EachKind for Dating<'_> {
    fn kind<T: Kind>(&mut self) {
        T::store_mut(self.new).date(T::store(self.last), self.now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::objects::NoSecretSource;

    const BACKEND: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: ModelBackend\nmetadata: {name: a}\nspec: {schema: OpenAI, endpoint: {hostname: a, port: 1}}\n";
    const OTHER_BACKEND: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: ModelBackend\nmetadata: {name: a}\nspec: {schema: OpenAI, endpoint: {hostname: b, port: 1}}\n";
    const POLICY: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: TokenPolicy\nmetadata: {name: p}\nspec:\n  targetRefs: [{group: tollgate.dev, kind: ModelPool, name: x}]\n  limits: [{name: day, tokens: 10, window: 1d}]\n";
    const OTHER_POLICY: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: TokenPolicy\nmetadata: {name: p}\nspec:\n  targetRefs: [{group: tollgate.dev, kind: ModelPool, name: z}]\n  limits: [{name: day, tokens: 20, window: 1d}]\n";
    const SHADOW_POLICY: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: TokenPolicy\nmetadata: {name: p}\nspec:\n  mode: Shadow\n  targetRefs: [{group: tollgate.dev, kind: ModelPool, name: z}]\n  limits: [{name: day, tokens: 20, window: 1d}]\n";
    const REFUSED_POLICY: &str =
        "apiVersion: tollgate.dev/v1alpha1\nkind: TokenPolicy\nmetadata: {name: q}\nspec: {limits: 7}\n";
    const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n";
    const UNKNOWN: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: ModelBakend\nmetadata: {name: a}\n";
    const BROKEN: &str = "kind: [\n";

    /// A file that names no object twice. The documents are in any order.
    fn file() -> impl Strategy<Value = Vec<&'static str>> {
        let backend = prop::sample::select(vec![BACKEND, OTHER_BACKEND]);
        let policy = prop::sample::select(vec![POLICY, OTHER_POLICY, SHADOW_POLICY]);
        let others = vec![REFUSED_POLICY, NAMESPACE, UNKNOWN, BROKEN];
        (backend, policy, prop::sample::subsequence(others, 0..=2), any::<(bool, bool)>())
            .prop_map(|(backend, policy, mut documents, (has_backend, has_policy))| {
                documents.extend(has_backend.then_some(backend));
                documents.extend(has_policy.then_some(policy));
                documents
            })
            .prop_shuffle()
    }

    proptest! {
        /// Decoding one file after the other into the same objects is the oracle.
        #[test]
        fn files_put_together_are_as_if_they_were_read_in_turn(files in prop::collection::vec(file(), 0..4)) {
            let (mut in_turn, mut together) = (Objects::default(), Objects::default());
            let (mut expected, mut findings) = (Vec::new(), Vec::new());
            for (number, documents) in files.iter().enumerate() {
                let (name, text) = (format!("{number}.yaml"), documents.join("---\n"));
                expected.extend(in_turn.add_yaml(&name, &text, &NoSecretSource));
                let mut file = Objects::default();
                findings.extend(file.add_yaml(&name, &text, &NoSecretSource));
                findings.extend(together.merge(&file));
            }
            expected.sort_by(Finding::by_spot);
            findings.sort_by(Finding::by_spot);
            prop_assert_eq!(findings, expected);
            in_turn.refused_policies.sort_by_key(|policy| policy.meta.provenance.spot(""));
            together.refused_policies.sort_by_key(|policy| policy.meta.provenance.spot(""));
            prop_assert_eq!(format!("{together:?}"), format!("{in_turn:?}"));
        }
    }
}
