//! What stays in force when new input is broken: the last good version of each object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::objects::{
    EachKind, FileVersion, Key, Kind, LAST_GOOD_HINT as HINT, Meta, Objects, RefusedPolicy, each_kind,
};
use crate::status::{Finding, Reason, Severity, Spot};

/// What was taken over, for the findings.
#[derive(Debug, Default)]
struct TakenOver {
    /// By file that cannot be read: how many objects, and since when the oldest is as it is.
    by_file: BTreeMap<Arc<str>, (usize, i64)>,
    policies: BTreeSet<Key>,
    /// Files that policies were taken over of.
    policy_files: BTreeSet<Arc<str>>,
    findings: Vec<Finding>,
}

// === impl Objects ===

impl Objects {
    /// Takes over from `last` what the new input lost by mistake and not on purpose: objects of files that
    /// can no longer be read, and objects that are still there but are now refused. It is for objects of files alone.
    ///
    /// `last_files` are the files that could be read then.
    ///
    /// A policy that is refused closes what it names only when there is no good version of it.
    pub fn keep_last_good(
        &mut self,
        last: &Self,
        last_files: &BTreeSet<String>,
        broken_files: &BTreeSet<String>,
    ) -> Vec<Finding> {
        let mut keeper = Keeper { new: self, last, broken_files, taken: TakenOver::default() };
        each_kind(&mut keeper);
        let taken = keeper.taken;
        let Self { refused_policies, files, .. } = self;
        // A good version stands for the later ones of a policy, and what a file said when it could be read for all of
        // it, refused policies included.
        let is_lost = |file: &str| broken_files.contains(file) && !files.contains(file) && last_files.contains(file);
        let is_of = |policy: &RefusedPolicy, is: &dyn Fn(&Arc<str>) -> bool| {
            policy.meta.file().is_some_and(|file| is(&file.path))
        };
        refused_policies.retain(|policy| {
            let nameless = !policy.is_named() && is_of(policy, &|file| taken.policy_files.contains(file));
            !(is_of(policy, &|file| is_lost(file)) || nameless || taken.policies.contains(&policy.meta.key()))
        });
        let lost = last.refused_policies.iter().filter(|policy| is_of(policy, &|file| is_lost(file)));
        refused_policies.extend(lost.cloned());
        files.extend(broken_files.intersection(last_files).cloned());
        taken.into_findings()
    }

    /// Everything of files that is in force, by its file. Files without objects are in it too. So are refused policies, because
    /// they close what they name.
    pub fn kept(&self) -> BTreeMap<&str, Vec<&FileVersion>> {
        let kept = self.files.iter().map(|file| (file.as_str(), Vec::new())).collect();
        let mut collecting = Collecting { objects: self, kept };
        each_kind(&mut collecting);
        self.refused_policies.iter().for_each(|policy| collecting.keep(&policy.meta));
        collecting.kept
    }
}

/// Everything by its file.
struct Collecting<'a> {
    objects: &'a Objects,
    kept: BTreeMap<&'a str, Vec<&'a FileVersion>>,
}

// === impl Collecting ===

impl<'a> Collecting<'a> {
    fn keep(&mut self, meta: &'a Meta) {
        // A file that could never be read is no last good version of anything.
        if let Some(version) = meta.file()
            && let Some(of_file) = self.kept.get_mut(version.path.as_ref())
        {
            of_file.push(version);
        }
    }
}

impl EachKind for Collecting<'_> {
    fn kind<T: Kind>(&mut self) {
        T::store(self.objects).iter().for_each(|object| self.keep(&object.meta));
    }
}

struct Keeper<'a> {
    new: &'a mut Objects,
    last: &'a Objects,
    broken_files: &'a BTreeSet<String>,
    taken: TakenOver,
}

// === impl Keeper ===

impl EachKind for Keeper<'_> {
    fn kind<T: Kind>(&mut self) {
        for object in T::store(self.last).shared() {
            let meta = &object.meta;
            let Some(version) = meta.file() else { continue };
            let with_its_file = self.broken_files.contains(&*version.path);
            let lost = with_its_file || self.new.refused.contains_key(&meta.origin);
            if lost && T::store_mut(self.new).share(object).is_ok() {
                self.taken.note(meta, version, with_its_file);
                self.new.refused.remove(&meta.origin);
            }
        }
    }
}

// === impl TakenOver ===

impl TakenOver {
    fn note(&mut self, meta: &Meta, version: &FileVersion, with_its_file: bool) {
        if meta.origin.kind == "TokenPolicy" {
            self.policies.insert(meta.key());
            self.policy_files.insert(Arc::clone(&version.path));
        }
        if with_its_file {
            let (count, oldest) = self.by_file.entry(Arc::clone(&version.path)).or_insert((0, version.since));
            *count += 1;
            *oldest = version.since.min(*oldest);
        } else {
            let message = format!("its version of {} stays in force", time(version.since));
            self.findings.push(meta.finding(Severity::Warning, Reason::LastGood, "", message, HINT));
        }
    }

    fn into_findings(self) -> Vec<Finding> {
        let files = self.by_file.into_iter().map(|(file, (count, oldest))| Finding {
            severity: Severity::Warning,
            reason: Reason::LastGood,
            origin: None,
            spot: Some(Spot { file: file.to_string(), line: 1 }),
            field: String::new(),
            message: format!(
                "{count} objects of this file stay in force as they were read, the oldest on {}",
                time(oldest)
            ),
            hint: HINT.to_owned(),
        });
        files.chain(self.findings).collect()
    }
}

fn time(second: i64) -> String {
    Timestamp::from_second(second).map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string())
}
