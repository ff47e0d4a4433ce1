//! The parents of a route: which of them are ours to answer for, and the listeners that the route attaches to there.

use gateway_api::apis::{experimental::httproutes::HttpRouteParentRefs, standard::tlsroutes::TlsRouteParentRefs};

use crate::objects::{GATEWAY_GROUP, Gateway, Key, Kind, ListenerSet, Meta, Shown, gateway_of, plain};
use crate::status::{Finding, ObjectRef, Origin, Reason, Severity};

use super::attach::{self, Attachment, Route};
use super::refs::{GATEWAY, GroupKind, LISTENER_SET, Reference, SERVICE};
use super::view::View;

/// A parentRef of any kind of route.
#[derive(Debug, Clone, Copy)]
pub struct ParentRef<'a> {
    pub group: Option<&'a str>,
    pub kind: Option<&'a str>,
    pub namespace: Option<&'a str>,
    pub name: &'a str,
    pub section: Option<&'a str>,
    pub port: Option<i32>,
}

#[derive(Debug)]
pub struct Parents {
    /// Those that are for us to answer, by their places in the object. Those of other controllers are not.
    pub ours: Box<[usize]>,
    pub attachments: Box<[Attachment]>,
}

/// Whose parents they are.
#[derive(Debug, Clone, Copy)]
pub struct Child<'a> {
    pub meta: &'a Meta,
    pub kind: GroupKind,
    pub route: Route<'a>,
}

/// What became of one parentRef.
enum Found {
    Attached(Vec<Attachment>),
    /// It is ours, and the route does not attach there.
    Refused,
    /// It is for nobody.
    NotActedOn,
    /// Another controller answers for it.
    Foreign,
}

/// None: the route does not concern us, because its Gateways are of other controllers.
pub fn parents<'a>(
    view: View<'_>,
    child: Child<'_>,
    references: impl IntoIterator<Item = ParentRef<'a>>,
    findings: &mut Vec<Finding>,
) -> Option<Parents> {
    let mut attachments: Vec<Attachment> = Vec::new();
    let mut ours: Vec<usize> = Vec::new();
    let mut foreign = false;
    let mut count = 0;
    for (index, parent) in references.into_iter().enumerate() {
        count += 1;
        match parent.find(view, child, &format!("spec.parentRefs[{index}]"), findings) {
            Found::NotActedOn => {}
            Found::Foreign => foreign = true,
            Found::Refused => ours.push(index),
            Found::Attached(found) => {
                ours.push(index);
                for attachment in found {
                    if !attachments.contains(&attachment) {
                        attachments.push(attachment);
                    }
                }
            }
        }
    }
    if count == 0 {
        findings.push(child.meta.finding(
            Severity::Warning,
            Reason::NoMatchingParent,
            "spec.parentRefs",
            "the route has no parent and is not served",
            "parentRefs: [{name: the Gateway}]",
        ));
    }
    (!foreign || !ours.is_empty()).then(|| Parents { ours: ours.into(), attachments: attachments.into() })
}

// === impl ParentRef ===

impl ParentRef<'_> {
    /// The Gateway or ListenerSet, of a route of this namespace.
    pub fn key(&self, namespace: &str) -> Key {
        Key::new(self.namespace.unwrap_or(namespace), self.name)
    }

    pub fn is_listener_set(&self) -> bool {
        (self.group.unwrap_or(GATEWAY_GROUP), self.kind.unwrap_or(Gateway::NAME)) == LISTENER_SET
    }

    fn find(&self, view: View<'_>, child: Child<'_>, field: &str, findings: &mut Vec<Finding>) -> Found {
        let (group, kind) = (self.group.unwrap_or(GATEWAY_GROUP), self.kind.unwrap_or(Gateway::NAME));
        // The mesh answers for the routes of its Services (GEP-1324), of which we keep some.
        if (group, kind) == SERVICE && view.mesh().is_some() {
            return Found::Foreign;
        }
        if (group, kind) != GATEWAY && (group, kind) != LISTENER_SET {
            findings.push(child.meta.finding(
                Severity::Warning,
                Reason::NotActedOn,
                field,
                format_args!("a parent of kind {} has no effect here", Shown(kind)),
                "kind: Gateway",
            ));
            return Found::NotActedOn;
        }
        let namespace = self.namespace.unwrap_or(child.meta.namespace());
        let own = Key::new(namespace, self.name);
        let (gateway, set) = if (group, kind) == GATEWAY {
            (own, None)
        } else {
            let Some(set) = view.object::<ListenerSet>(namespace, self.name) else {
                return self.not_ours::<ListenerSet>(view, child, (LISTENER_SET, namespace, field), findings);
            };
            (gateway_of(set), Some(own))
        };
        let Some(gateway) = view.listeners(&gateway) else {
            if set.is_some() {
                return Found::Foreign;
            }
            return self.not_ours::<Gateway>(view, child, (GATEWAY, namespace, field), findings);
        };
        let parent = attach::Parent { set: set.as_ref(), section: self.section, port: self.port };
        match attach::attach(view, &child.route, &parent, gateway) {
            Ok(found) => Found::Attached(found),
            Err(refusal) => {
                findings.push(child.meta.finding(Severity::Error, refusal.reason(), field, &refusal, refusal.hint()));
                Found::Refused
            }
        }
    }

    /// The parent is not one of ours.
    fn not_ours<T: Kind>(
        &self,
        view: View<'_>,
        child: Child<'_>,
        (to_kind, namespace, field): (GroupKind, &str, &str),
        findings: &mut Vec<Finding>,
    ) -> Found {
        if view.object::<T>(namespace, self.name).is_some() {
            return Found::Foreign;
        }
        let reference =
            Reference { from: child.meta, from_kind: child.kind, to_kind, namespace, name: self.name, field };
        let finding = reference.not_found::<T>(Reason::NoMatchingParent, view);
        // In a cluster a parent that is not there may be anybody's, and so the route is not ours to answer for.
        if child.meta.file().is_none() && !view.is_refused(&Origin::new(T::NAME, namespace, self.name)) {
            let message = format!("Tollgate serves no {}", reference.target());
            findings.push(Finding { severity: Severity::Warning, message, ..finding });
            Found::Foreign
        } else {
            findings.push(finding);
            Found::Refused
        }
    }

    /// As the object has it.
    pub fn shown(&self) -> ObjectRef {
        ObjectRef {
            group: self.group.map(str::to_owned),
            kind: self.kind.map(str::to_owned),
            namespace: self.namespace.map(plain),
            name: plain(self.name),
            section_name: self.section.map(plain),
            port: self.port,
        }
    }
}

macro_rules! parent_refs {
    ($($wire:ty),*) => {
        $(impl<'a> From<&'a $wire> for ParentRef<'a> {
            fn from(wire: &'a $wire) -> Self {
                Self {
                    group: wire.group.as_deref(),
                    kind: wire.kind.as_deref(),
                    namespace: wire.namespace.as_deref(),
                    name: &wire.name,
                    section: wire.section_name.as_deref(),
                    port: wire.port,
                }
            }
        })*
    };
}

parent_refs!(HttpRouteParentRefs, TlsRouteParentRefs);
