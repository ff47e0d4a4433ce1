//! Versions that do not go together: Istio's agents and their istiod, our proxies and our control plane, and this command.

use super::{Found, FoundPod, Remark};

/// How far an agent may be behind its istiod, in minor versions (Istio's supported releases: "Control plane/data plane skew").
const BEHIND: u32 = 2;

/// What the tag of an image says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

/// A control plane: istiod or our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundControlPlane {
    /// For example `istio-system/istiod`.
    pub name: String,
    /// The revision of Istio that it is. Ours has none.
    pub revision: Option<String>,
    /// None: its tag is no version.
    pub version: Option<Version>,
}

pub fn of_versions(found: &Found) -> Vec<Remark> {
    let of_command = found.control_planes.iter().filter_map(|control_plane| of_command(found, control_plane));
    let mut remarks: Vec<Remark> = of_command.collect();
    for gateway in &found.gateways {
        let about = format!("Gateway {}", gateway.key);
        remarks.extend(gateway.pods.iter().filter_map(|pod| of_agent(found, &about, pod)));
        remarks.extend(gateway.pods.iter().filter_map(|pod| of_proxy(found, &about, pod)));
    }
    for filter in &found.filters {
        let about = format!("EnvoyFilter {}", filter.key);
        remarks.extend(filter.pods.iter().filter_map(|pod| of_agent(found, &about, pod)));
    }
    remarks
}

fn of_command(found: &Found, control_plane: &FoundControlPlane) -> Option<Remark> {
    let (ours, theirs) = (found.version?, control_plane.version?);
    (ours != theirs).then(|| {
        let about = format!("control plane {}", control_plane.name);
        let message = format!("it is of version {theirs}, and this command is of {ours}");
        Remark::warning(&about, &message, "look with the command of its own version")
    })
}

fn of_agent(found: &Found, about: &str, pod: &FoundPod) -> Option<Remark> {
    let (name, agent) = (&pod.name, pod.agent?);
    // Whoever cannot see istiod, such as one of another cluster, is told nothing.
    let istiod = match &pod.revision {
        Some(revision) => match found.istiods.iter().find(|istiod| istiod.revision.as_ref() == Some(revision)) {
            None if !found.istiods.is_empty() => {
                let message = format!("Pod {name} has an agent of Istio's revision {revision}, and no istiod is of it");
                return Some(Remark::warning(about, &message, ANEW));
            }
            istiod => istiod?,
        },
        None => found.istiods.first()?,
    };
    let (is, version) = (&istiod.name, istiod.version?);
    let skew = match () {
        () if (agent.major, agent.minor) > (version.major, version.minor) => "is newer",
        () if agent.major < version.major || agent.minor + BEHIND < version.minor => {
            "is more than two minor versions behind"
        }
        () => return None,
    };
    let message = format!("Pod {name} has Istio's agent {agent}, which {skew}: {is} is {version}");
    Some(Remark::warning(about, &message, ANEW))
}

const ANEW: &str = "kubectl rollout restart gives its Pods the agent of the injector";

fn of_proxy(found: &Found, about: &str, pod: &FoundPod) -> Option<Remark> {
    let proxy = pod.proxy?;
    let versions: Option<Vec<Version>> =
        found.control_planes.iter().map(|control_plane| control_plane.version).collect();
    // One that cannot be told may be its own.
    let versions = versions.filter(|versions| !versions.is_empty() && !versions.contains(&proxy))?;
    let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
    let message =
        format!("Pod {} is a proxy of version {proxy}, and the control plane is {}", pod.name, versions.join(", "));
    Some(Remark::warning(
        about,
        &message,
        "proxies.image of the chart has no tag of its own where both are to be the same",
    ))
}

// === impl Version ===

impl Version {
    /// Of `registry:5000/name:1.2.3-variant@sha256:...`. Without a patch, as in builds before a release, it is 0.
    pub fn of_image(image: &str) -> Option<Self> {
        let last = image.rsplit('/').next()?;
        let tagged = last.split('@').next()?;
        Self::of_tag(tagged.split_once(':')?.1)
    }

    pub fn of_tag(tag: &str) -> Option<Self> {
        let number = |text: &str| {
            let end = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
            text.get(..end)?.parse().ok()
        };
        let mut parts = tag.strip_prefix('v').unwrap_or(tag).split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = number(parts.next()?)?;
        Some(Self { major, minor, patch: parts.next().and_then(number).unwrap_or_default() })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_says_the_version() {
        for (image, version) in [
            ("docker.io/istio/proxyv2:1.31.1", (1, 31, 1)),
            ("host:5000/proxyv2:1.31.1-distroless@sha256:00", (1, 31, 1)),
            ("pilot:v1.2", (1, 2, 0)),
            ("pilot:1.32-alpha.0f3c", (1, 32, 0)),
        ] {
            let found = Version::of_image(image).map(|found| (found.major, found.minor, found.patch));
            assert_eq!(found, Some(version), "{image}");
        }
        for image in
            ["", "pilot", "pilot:latest", "host:5000/pilot", "pilot@sha256:1.2", "pilot:1", "pilot:1.x", "a:x1.2"]
        {
            assert_eq!(Version::of_image(image), None, "{image}");
        }
    }
}
