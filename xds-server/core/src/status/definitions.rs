//! Whether the definitions of the Gateway API in a cluster are of a version that we know. A GatewayClass says so. Others
//! are worked with as well as can be: a field that nobody knows is ignored.

use crate::terms::redact::plain;

use super::{Condition, ConditionType, ObjectStatus, Reason, StatusKind};

/// The definition that is looked at, and its annotation that has the version. All definitions of a bundle have the same.
pub const DEFINITION: &str = "gatewayclasses.gateway.networking.k8s.io";
pub const BUNDLE_VERSION: &str = "gateway.networking.k8s.io/bundle-version";

/// The versions that we know, as they begin.
const KNOWN: [&str; 2] = ["v1.5.", "v1.6."];

/// What is known of the definitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Definitions {
    /// Nobody has asked, or there is no answer yet.
    #[default]
    NotYet,
    /// There are none, or nobody may read them.
    Unknown,
    /// As the annotation says. None: it says nothing.
    Version(Option<String>),
}

// === impl ObjectStatus ===

impl ObjectStatus {
    /// Adds what is known of the definitions to the status of a GatewayClass.
    pub fn judge_definitions(&mut self, definitions: &Definitions) {
        let (StatusKind::GatewayClass, Definitions::Version(version)) = (self.kind, definitions) else { return };
        let about = ConditionType::SupportedVersion;
        let condition = match version {
            Some(version) if KNOWN.iter().any(|known| version.starts_with(known)) => {
                Condition::good(about, Reason::SupportedVersion)
            }
            Some(version) => Condition::bad(about, Reason::UnsupportedVersion, not_known(&plain(version))),
            None => Condition::bad(about, Reason::UnsupportedVersion, not_known("without a version")),
        };
        self.status.conditions.set(condition);
        self.status.observe();
    }
}

fn not_known(version: &str) -> String {
    let known = KNOWN.map(|known| format!("{known}x")).join(" and ");
    format!(
        "the Gateway API's definitions are {version}, and known are {known}: they are worked with as well as can be"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Brief, Status, Verdict};

    fn judged(kind: StatusKind, definitions: &Definitions) -> Option<(Verdict, Reason, String)> {
        let (namespace, name) = (String::new(), "tollgate".to_owned());
        let status = Status { generation: Some(3), ..Status::default() };
        let mut object = ObjectStatus { kind, namespace, name, brief: Brief::Refused {}, status };
        object.judge_definitions(definitions);
        let condition = object.status.conditions.get(ConditionType::SupportedVersion)?;
        assert_eq!(condition.observed_generation, Some(3));
        Some((condition.verdict, condition.reason, condition.message.clone()))
    }

    #[test]
    fn a_class_says_whether_the_definitions_are_known() {
        let class =
            |version: &str| judged(StatusKind::GatewayClass, &Definitions::Version(Some(version.to_owned()))).unwrap();
        for known in ["v1.5.1", "v1.6.3", "v1.6.0-rc.1"] {
            assert_eq!(class(known), (Verdict::True, Reason::SupportedVersion, String::new()));
        }
        for unknown in ["v1.4.1", "v1.60.0", "v2.0.0", "1.6.3", ""] {
            let (verdict, reason, message) = class(unknown);
            assert_eq!((verdict, reason), (Verdict::False, Reason::UnsupportedVersion), "{unknown}");
            assert!(message.contains(&format!("are {unknown}, and known are v1.5.x and v1.6.x")), "{message}");
        }
        let (verdict, _, message) = judged(StatusKind::GatewayClass, &Definitions::Version(None)).unwrap();
        assert!(verdict == Verdict::False && message.contains("are without a version"), "{message}");
        for unknown in [Definitions::NotYet, Definitions::Unknown] {
            assert_eq!(judged(StatusKind::GatewayClass, &unknown), None);
        }
        assert_eq!(judged(StatusKind::Gateway, &Definitions::Version(None)), None);
    }
}
