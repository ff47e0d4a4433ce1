//! Which watches there are: one for each kind that the core reads, and for each namespace if some are named. Of Pods there is
//! one for each selection of them, and one of all that are in a mesh.

use std::collections::BTreeMap;

use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::{Api, Client};
use tollgate_core::mesh::TLS_MODE;
use tollgate_core::objects::{INFERENCE_GROUP, Needed, Place, SECURITY_GROUP, Selection, places};

use super::document::Document;
use super::trouble::Cause;

/// What one watch is of.
#[derive(Debug, Clone)]
pub struct Watched {
    pub kind: &'static str,
    /// The same kind in each version that can be read, the best one first.
    pub versions: Vec<ApiResource>,
    /// None: everywhere.
    pub namespace: Option<String>,
    /// Only objects that have all of these labels.
    pub selection: Option<Selection>,
    pub content: Content,
    /// Nobody can give us this kind where we may read single namespaces only. Without it, it is as in files.
    pub is_optional: bool,
}

/// How much of the objects is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    All,
    Metadata,
}

/// Those that are always there.
pub fn watched(namespaces: &[String]) -> Vec<Watched> {
    places().filter(|place| !Selection::is_kind(place.kind)).flat_map(|place| of_kind(place, namespaces)).collect()
}

/// The same, and the Pods of a mesh.
pub fn all(namespaces: &[String], mesh: bool) -> Vec<Watched> {
    let members = if mesh { members(namespaces) } else { Vec::new() };
    watched(namespaces).into_iter().chain(members).collect()
}

/// The Pods of a mesh.
pub fn members(namespaces: &[String]) -> Vec<Watched> {
    let (label, value) = TLS_MODE;
    let labels: BTreeMap<String, String> = [(label.to_owned(), value.to_owned())].into();
    let place = places().find(|place| Selection::is_kind(place.kind));
    let watched = place.into_iter().flat_map(|place| of_kind(place, namespaces));
    watched
        .map(|watched| {
            let namespace = watched.namespace.clone().unwrap_or_default();
            Watched { selection: Some(Selection { namespace, labels: labels.clone() }), ..watched }
        })
        .collect()
}

/// What a watch of these Pods is of.
pub fn watch_of(selection: &Selection) -> Option<Watched> {
    let place = places().find(|place| Selection::is_kind(place.kind))?;
    let watched = of_kind(place, std::slice::from_ref(&selection.namespace)).into_iter().next()?;
    Some(Watched { selection: Some(selection.clone()), ..watched })
}

fn of_kind(place: Place, namespaces: &[String]) -> Vec<Watched> {
    let Place { kind, group, versions, is_cluster_scoped } = place;
    let version = |version: &&str| {
        let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        // It is a plural already.
        if kind == "ProxyParameters" {
            resource.plural = kind.to_lowercase();
        }
        resource
    };
    let watched = Watched {
        kind,
        versions: versions.iter().map(version).collect(),
        namespace: None,
        selection: None,
        content: if Needed::is_kind(kind) { Content::Metadata } else { Content::All },
        is_optional: is_cluster_scoped && !namespaces.is_empty(),
    };
    if is_cluster_scoped || namespaces.is_empty() {
        return vec![watched];
    }
    namespaces.iter().map(|namespace| Watched { namespace: Some(namespace.clone()), ..watched.clone() }).collect()
}

// === impl Watched ===

impl Watched {
    /// Whether somebody is to be told that it cannot be read.
    pub fn is_missed(&self, cause: &Cause) -> bool {
        match cause {
            Cause::Denied(_) => !self.is_optional,
            // Few clusters have the Inference Extension, and a route to a pool that is not there says so itself. Without Istio
            // nobody can have written such an object.
            Cause::NotServed => {
                self.versions.iter().all(|version| ![INFERENCE_GROUP, SECURITY_GROUP].contains(&&*version.group))
            }
            Cause::Gap | Cause::Unknown | Cause::Unreachable | Cause::Other(_) => true,
        }
    }

    pub fn api(&self, client: &Client, resource: &ApiResource) -> Api<Document> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        }
    }

    /// The same for metadata alone.
    pub fn metadata_api(&self, client: &Client, resource: &ApiResource) -> Api<PartialObjectMeta<DynamicObject>> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        }
    }

    /// `httproutes.gateway.networking.k8s.io`, as rules of RBAC name it.
    pub fn resource(&self) -> String {
        self.versions.first().map_or_else(String::new, |resource| {
            if resource.group.is_empty() {
                resource.plural.clone()
            } else {
                format!("{}.{}", resource.plural, resource.group)
            }
        })
    }

    /// `in namespace a`, or nothing.
    pub fn place(&self) -> String {
        self.namespace.as_ref().map_or_else(String::new, |namespace| format!(" in namespace {namespace}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_rbac_name_the_kinds_like_this() {
        let names: Vec<String> = watched(&[]).iter().map(Watched::resource).collect();
        assert_eq!(
            names,
            [
                "gatewayclasses.gateway.networking.k8s.io",
                "gateways.gateway.networking.k8s.io",
                "listenersets.gateway.networking.k8s.io",
                "httproutes.gateway.networking.k8s.io",
                "grpcroutes.gateway.networking.k8s.io",
                "tlsroutes.gateway.networking.k8s.io",
                "backendtlspolicies.gateway.networking.k8s.io",
                "referencegrants.gateway.networking.k8s.io",
                "namespaces",
                "services",
                "endpointslices.discovery.k8s.io",
                "inferencepools.inference.networking.k8s.io",
                "secrets",
                "configmaps",
                "modelpools.tollgate.dev",
                "modelbackends.tollgate.dev",
                "consumers.tollgate.dev",
                "tokenpolicies.tollgate.dev",
                "proxyparameters.tollgate.dev",
                "requestauthentications.security.istio.io",
            ]
        );
    }

    #[test]
    fn pods_are_watched_where_and_as_they_are_selected() {
        let labels = [("app".to_owned(), "a".to_owned()), ("tier".to_owned(), String::new())].into();
        let watched = watch_of(&Selection { namespace: "n".to_owned(), labels }).unwrap();
        let selector = watched.selection.as_ref().map(ToString::to_string);
        assert_eq!((watched.resource().as_str(), watched.namespace.as_deref()), ("pods", Some("n")));
        assert_eq!((selector.as_deref(), watched.content), (Some("app=a,tier="), Content::All));
    }

    #[test]
    fn pods_of_a_mesh_are_watched_by_their_label() {
        let of = |namespaces: &[&str]| -> Vec<(Option<String>, String)> {
            let namespaces: Vec<String> = namespaces.iter().map(|name| (*name).to_owned()).collect();
            let all = members(&namespaces).into_iter();
            all.map(|watched| (watched.namespace, watched.selection.unwrap().to_string())).collect()
        };
        let label = "security.istio.io/tlsMode=istio".to_owned();
        assert_eq!(of(&[]), [(None, label.clone())]);
        assert_eq!(of(&["a", "b"]), [(Some("a".to_owned()), label.clone()), (Some("b".to_owned()), label)]);
    }

    #[test]
    fn a_namespace_has_watches_of_its_own() {
        let some = watched(&["a".to_owned(), "b".to_owned()]);
        let of = |kind: &str| -> Vec<Option<&str>> {
            some.iter().filter(|watched| watched.kind == kind).map(|watched| watched.namespace.as_deref()).collect()
        };
        assert_eq!(of("Secret"), [Some("a"), Some("b")]);
        assert_eq!(of("Namespace"), [None]);
        assert!(some.iter().all(|watched| watched.is_optional == watched.namespace.is_none()));
        assert!(watched(&[]).iter().all(|watched| !watched.is_optional));
    }
}
