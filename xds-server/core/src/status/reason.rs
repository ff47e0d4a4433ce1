//! Why something is as it is, in one word. The word is the Gateway API's where it has one, else ours in the same style.

use std::fmt;

use serde::Serialize;

use super::{ConditionType, Verdict};

/// It prints and serializes as the name of its variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Reason {
    // Of what is well.
    Accepted,
    SupportedVersion,
    ResolvedRefs,
    NoConflicts,
    Programmed,
    /// Of something that is as its author wants it, and not safe.
    ConfigurationChanged,
    // Of objects as such.
    SyntaxError,
    Unreadable,
    UnsupportedKind,
    UnsupportedVersion,
    Invalid,
    UnsupportedValue,
    Duplicate,
    LastGood,
    // Of references.
    RefNotPermitted,
    InvalidKind,
    BackendNotFound,
    TargetNotFound,
    SecretNotFound,
    InvalidSecret,
    InvalidCertificateRef,
    InvalidClientCertificateRef,
    ListenersNotResolved,
    InvalidCACertificateRef,
    InvalidCACertificateKind,
    InvalidExtensionRef,
    NoTarget,
    // Of Gateways and their listeners.
    UnknownClass,
    ListenersNotValid,
    UnsupportedProtocol,
    UnsupportedAddress,
    AddressNotUsable,
    AddressNotAssigned,
    InvalidParameters,
    InvalidRouteKinds,
    ProtocolConflict,
    HostnameConflict,
    PortUnavailable,
    NotAllowed,
    // Of policies about TLS to backends.
    NoValidCACertificate,
    Conflicted,
    // Of routes at their parents.
    NoMatchingParent,
    NotAllowedByListeners,
    NoMatchingListenerHostname,
    HostnameTaken,
    NoEndpoints,
    // Of our own kinds.
    DuplicateKey,
    DuplicateIdentity,
    DuplicateClaims,
    TooManyClaims,
    NoKey,
    KeyEnds,
    KeyEnded,
    PolicyInvalid,
    MixedSchemas,
    Plaintext,
    NotActedOn,
    // Of proxies.
    Pending,
    Refused,
}

// === impl Reason ===

impl Reason {
    /// The condition that it speaks about, and the verdict. None: it is a remark, and no condition has it.
    pub fn condition(self) -> Option<(ConditionType, Verdict)> {
        use ConditionType::{Accepted, KeysExpiring, PartiallyInvalid, Programmed, ResolvedRefs};
        let (condition, is_good) = match self {
            Self::Accepted => (Accepted, true),
            Self::SupportedVersion => (ConditionType::SupportedVersion, true),
            Self::ResolvedRefs => (ResolvedRefs, true),
            Self::NoConflicts => (ConditionType::Conflicted, true),
            Self::Programmed => (Programmed, true),
            Self::ConfigurationChanged => (ConditionType::InsecureFrontendValidationMode, false),
            Self::SyntaxError
            | Self::Unreadable
            | Self::UnsupportedKind
            | Self::UnsupportedVersion
            | Self::Invalid
            | Self::UnsupportedValue
            | Self::UnknownClass
            | Self::ListenersNotValid
            | Self::UnsupportedProtocol
            | Self::UnsupportedAddress
            | Self::InvalidParameters
            | Self::PortUnavailable
            | Self::NotAllowed
            | Self::NoMatchingParent
            | Self::NotAllowedByListeners
            | Self::NoMatchingListenerHostname
            | Self::HostnameTaken
            | Self::TargetNotFound
            | Self::NoValidCACertificate
            | Self::Conflicted
            | Self::PolicyInvalid
            | Self::Refused => (Accepted, false),
            Self::RefNotPermitted
            | Self::InvalidKind
            | Self::BackendNotFound
            | Self::SecretNotFound
            | Self::InvalidSecret
            | Self::InvalidCertificateRef
            | Self::InvalidClientCertificateRef
            | Self::ListenersNotResolved
            | Self::InvalidCACertificateRef
            | Self::InvalidCACertificateKind
            | Self::InvalidExtensionRef
            | Self::InvalidRouteKinds
            | Self::NoTarget => (ResolvedRefs, false),
            Self::ProtocolConflict | Self::HostnameConflict => (ConditionType::Conflicted, false),
            // The first one of them is in force.
            Self::Duplicate
            | Self::DuplicateKey
            | Self::DuplicateIdentity
            | Self::DuplicateClaims
            | Self::TooManyClaims
            | Self::LastGood => (PartiallyInvalid, false),
            Self::KeyEnds => (KeysExpiring, false),
            Self::KeyEnded => (KeysExpiring, true),
            Self::Pending | Self::AddressNotUsable | Self::AddressNotAssigned => (Programmed, false),
            Self::NoEndpoints | Self::NoKey | Self::MixedSchemas | Self::Plaintext | Self::NotActedOn => return None,
        };
        Some((condition, if is_good { condition.good() } else { condition.bad() }))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_same_text_everywhere() {
        for reason in [Reason::Invalid, Reason::NoMatchingListenerHostname] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.to_string());
        }
        assert_eq!(Reason::RefNotPermitted.to_string(), "RefNotPermitted");
    }

    #[test]
    fn a_conflict_is_true_where_other_mistakes_are_false() {
        assert_eq!(Reason::HostnameConflict.condition(), Some((ConditionType::Conflicted, Verdict::True)));
        assert_eq!(Reason::BackendNotFound.condition(), Some((ConditionType::ResolvedRefs, Verdict::False)));
        assert_eq!(Reason::Accepted.condition(), Some((ConditionType::Accepted, Verdict::True)));
        assert_eq!(Reason::NoEndpoints.condition(), None);
    }
}
