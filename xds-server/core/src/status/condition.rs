//! The conditions of the Gateway API. Each is about one question, and has a verdict with its reason.

use serde::Serialize;

use super::Reason;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ConditionType {
    /// It is valid in itself and is acted on.
    Accepted,
    /// Of a GatewayClass: the definitions of the Gateway API are of a version that we know.
    SupportedVersion,
    /// Everything that it refers to is there and may be used.
    ResolvedRefs,
    /// Of a listener: another one stands in its way.
    Conflicted,
    /// A part of it is not in force, and the rest is.
    PartiallyInvalid,
    /// Of a Consumer: a key of it ends soon.
    KeysExpiring,
    /// Proxies work by it.
    Programmed,
    /// Of a Gateway: clients are let in whose certificates are not checked.
    InsecureFrontendValidationMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    True,
    False,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub about: ConditionType,
    #[serde(rename = "status")]
    pub verdict: Verdict,
    pub reason: Reason,
    /// Empty where the reason says it all.
    pub message: String,
    /// The generation of the object that it is about. An object of a file has none.
    #[serde(rename = "observedGeneration", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// One condition of each type at most, in the order of the types.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Conditions(Vec<Condition>);

// === impl ConditionType ===

impl ConditionType {
    pub const ALL: [Self; 8] = [
        Self::Accepted,
        Self::SupportedVersion,
        Self::ResolvedRefs,
        Self::Conflicted,
        Self::PartiallyInvalid,
        Self::KeysExpiring,
        Self::Programmed,
        Self::InsecureFrontendValidationMode,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::SupportedVersion => "SupportedVersion",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Conflicted => "Conflicted",
            Self::PartiallyInvalid => "PartiallyInvalid",
            Self::KeysExpiring => "KeysExpiring",
            Self::Programmed => "Programmed",
            Self::InsecureFrontendValidationMode => "InsecureFrontendValidationMode",
        }
    }

    /// The verdict when all is well.
    pub fn good(self) -> Verdict {
        match self {
            Self::Accepted | Self::SupportedVersion | Self::ResolvedRefs | Self::Programmed => Verdict::True,
            Self::Conflicted | Self::PartiallyInvalid | Self::InsecureFrontendValidationMode | Self::KeysExpiring => {
                Verdict::False
            }
        }
    }

    /// The verdict when something is wrong.
    pub fn bad(self) -> Verdict {
        match self {
            Self::Accepted | Self::SupportedVersion | Self::ResolvedRefs | Self::Programmed => Verdict::False,
            Self::Conflicted | Self::PartiallyInvalid | Self::InsecureFrontendValidationMode | Self::KeysExpiring => {
                Verdict::True
            }
        }
    }
}

// === impl Condition ===

impl Condition {
    pub fn new(about: ConditionType, verdict: Verdict, reason: Reason, message: impl Into<String>) -> Self {
        Self { about, verdict, reason, message: message.into(), observed_generation: None }
    }

    pub fn good(about: ConditionType, reason: Reason) -> Self {
        Self::new(about, about.good(), reason, "")
    }

    pub fn bad(about: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self::new(about, about.bad(), reason, message)
    }
}

// === impl Conditions ===

impl Conditions {
    /// Puts a condition in the place of the one of its type.
    pub fn set(&mut self, condition: Condition) {
        match self.0.binary_search_by_key(&condition.about, |other| other.about) {
            Ok(place) => {
                if let Some(other) = self.0.get_mut(place) {
                    *other = condition;
                }
            }
            Err(place) => self.0.insert(place, condition),
        }
    }

    pub fn get(&self, about: ConditionType) -> Option<&Condition> {
        self.0.iter().find(|condition| condition.about == about)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes the generation that all of them are about.
    pub(crate) fn observe(&mut self, generation: Option<i64>) {
        self.0.iter_mut().for_each(|condition| condition.observed_generation = generation);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }
}

impl FromIterator<Condition> for Conditions {
    fn from_iter<I: IntoIterator<Item = Condition>>(conditions: I) -> Self {
        let mut all = Self::default();
        conditions.into_iter().for_each(|condition| all.set(condition));
        all
    }
}
