//! What proxies say, told from one replica's board to another's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::{Stream, StreamExt as _};
use tollgate_core::snapshot::{Digest, ResourceType, Version};
use tollgate_core::status::Origin;
use tollgate_proto::replica as wire;
use tonic::Status;

use crate::identity::Identity;
use crate::report::board::{Board, Keys, Place, RefusedResource, Report, Taken, Teller};

/// What changes within this time is told together.
const TOGETHER: Duration = Duration::from_millis(20);
/// The most changes in one message. Most reports have some hundred bytes.
const CHUNK: usize = 500;
/// The most streams of proxies that one replica tells of: more than it has room for.
const MAX_REPORTS: usize = 50_000;

/// What makes resources: two replicas of one build make the same of the same objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build(Arc<str>);

// === impl Build ===

impl Build {
    /// `filter` is the SHA-256 of the filter.
    pub fn new(filter: &str) -> Self {
        Self(format!("{} {filter}", env!("CARGO_PKG_VERSION")).into())
    }
}

/// Tells what is on the board by these tellers, and every change of it, until nobody listens any more.
pub async fn tell(board: &Board, build: &Build, by: impl Fn(Teller) -> bool, listener: mpsc::Sender<wire::News>) {
    let mut reports = board.reports();
    let mut told: BTreeMap<u64, Report> = BTreeMap::new();
    // This much is told even if it is nothing.
    let mut changes = difference(&mut told, &reports.borrow_and_update(), &by);
    loop {
        loop {
            let rest = changes.split_off(changes.len().min(CHUNK));
            if listener.send(news(build, std::mem::replace(&mut changes, rest))).await.is_err() {
                return;
            }
            if changes.is_empty() {
                break;
            }
        }
        while changes.is_empty() {
            if reports.changed().await.is_err() {
                return;
            }
            sleep(TOGETHER).await;
            changes = difference(&mut told, &reports.borrow_and_update(), &by);
        }
    }
}

/// Puts what is told on the board for as long as it is told.
///
/// # Errors
/// As the stream says, or when it tells too much.
pub async fn hear(
    board: &Board,
    build: &Build,
    teller: Teller,
    mut stream: impl Stream<Item = Result<wire::News, Status>> + Unpin,
) -> Result<(), Status> {
    let mut places: BTreeMap<u64, Place> = BTreeMap::new();
    while let Some(news) = stream.next().await {
        let news = news?;
        let is_same_build = *news.build == *build.0;
        for change in news.changes {
            let Some(report) = change.report else {
                places.remove(&change.number);
                continue;
            };
            if places.len() >= MAX_REPORTS {
                return Err(Status::resource_exhausted("no replica has so many proxies"));
            }
            let Some(report) = report_of(report, teller, is_same_build) else {
                // Of a newer build, perhaps. It is as if that proxy were not there.
                places.remove(&change.number);
                continue;
            };
            places.entry(change.number).or_insert_with(|| board.place()).write(report);
        }
    }
    Ok(())
}

fn news(build: &Build, changes: Vec<wire::ReportChange>) -> wire::News {
    wire::News { build: build.0.to_string(), changes }
}

fn difference(
    told: &mut BTreeMap<u64, Report>,
    reports: &BTreeMap<u64, Report>,
    by: impl Fn(Teller) -> bool,
) -> Vec<wire::ReportChange> {
    let now: BTreeMap<u64, &Report> =
        reports.iter().filter(|(_, report)| by(report.told_by)).map(|(number, report)| (*number, report)).collect();
    let mut changes = Vec::new();
    told.retain(|number, _| {
        let stays = now.contains_key(number);
        if !stays {
            changes.push(wire::ReportChange { number: *number, report: None });
        }
        stays
    });
    for (number, report) in now {
        if told.get(&number) != Some(report) {
            changes.push(wire::ReportChange { number, report: Some(of_report(report)) });
            told.insert(number, report.clone());
        }
    }
    changes
}

fn of_report(report: &Report) -> wire::Report {
    let taken = report.taken.iter().filter_map(|(gateway, taken)| match taken {
        Taken::This(digest) => Some((gateway.clone(), digest.0)),
        // It cannot be said again what cannot be compared.
        Taken::TheirOwn => None,
    });
    let refused = report.refused.iter().map(|refused| wire::Refused {
        kind: refused.kind.type_url().to_owned(),
        name: refused.name.clone(),
        version: refused.version.to_string(),
        origin: refused.origin.as_ref().map(|origin| wire::Origin {
            kind: origin.kind.to_string(),
            namespace: origin.namespace.to_string(),
            name: origin.name.to_string(),
            section: origin.section.as_deref().unwrap_or_default().to_owned(),
        }),
        message: refused.message.clone(),
    });
    let keys = match report.keys {
        Keys::NotAsked => wire::Keys::NotAsked,
        Keys::Waiting => wire::Keys::Waiting,
        Keys::Taken => wire::Keys::Taken,
    };
    wire::Report {
        node: report.node.clone(),
        identity: report.identity.to_string(),
        taken: taken.collect(),
        keys: keys.into(),
        refused: refused.collect(),
    }
}

/// None: it makes no sense to us.
fn report_of(report: wire::Report, told_by: Teller, is_same_build: bool) -> Option<Report> {
    let keys = match report.keys() {
        wire::Keys::NotAsked => Keys::NotAsked,
        wire::Keys::Waiting => Keys::Waiting,
        wire::Keys::Taken => Keys::Taken,
    };
    let taken = |digest| if is_same_build { Taken::This(Digest(digest)) } else { Taken::TheirOwn };
    let refused = report.refused.into_iter().map(|refused| {
        let origin = refused.origin.map(|origin| {
            let whole = Origin::new(origin.kind, origin.namespace, origin.name);
            if origin.section.is_empty() { whole } else { whole.section(origin.section) }
        });
        Some(RefusedResource {
            kind: ResourceType::from_type_url(&refused.kind)?,
            name: refused.name,
            version: Version::parse(&refused.version)?,
            origin,
            message: refused.message,
        })
    });
    Some(Report {
        told_by,
        node: report.node,
        identity: Identity::of_replica(&report.identity).ok()?,
        taken: report.taken.into_iter().map(|(gateway, digest)| (gateway, taken(digest))).collect(),
        keys,
        refused: refused.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::time::timeout;
    use tokio_stream::wrappers::ReceiverStream;
    use tollgate_core::snapshot::Snapshot;

    use super::*;

    fn report(node: &str, told_by: Teller) -> Report {
        let refused = RefusedResource {
            kind: ResourceType::Listener,
            name: "default/llm/http".to_owned(),
            version: Version::of(b"x"),
            origin: Some(Origin::new("Gateway", "default", "llm").section("http")),
            message: "no".to_owned(),
        };
        Report {
            told_by,
            node: node.to_owned(),
            identity: Identity::of_gateway("default", "llm"),
            taken: [("default/llm".to_owned(), Taken::This(Snapshot::default().digest()))].into(),
            keys: Keys::Waiting,
            refused: vec![refused],
        }
    }

    /// Tells one board what is on the other one.
    fn link(from: &Board, to: &Board, builds: [&str; 2]) -> impl Future<Output = ()> + use<> {
        let (from, to, builds) = (from.clone(), to.clone(), builds.map(Build::new));
        async move {
            let (sender, receiver) = mpsc::channel(1);
            let stream = tokio_stream::StreamExt::map(ReceiverStream::new(receiver), Ok);
            tokio::join!(tell(&from, &builds[0], |teller| teller == Teller::Proxy, sender), async {
                hear(&to, &builds[1], Teller::Replica(7), stream).await.unwrap()
            },);
        }
    }

    async fn nodes(board: &Board, expected: &[&str]) {
        let is_it = |reports: &BTreeMap<u64, Report>| {
            let nodes: BTreeSet<&str> = reports.values().map(|report| report.node.as_str()).collect();
            nodes == expected.iter().copied().collect()
        };
        let mut reports = board.reports();
        let _found = timeout(Duration::from_secs(120), reports.wait_for(is_it)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_replica_hears_of_the_proxies_of_another_one_and_of_no_more() {
        let (one, other) = (Board::default(), Board::default());
        let first = one.place();
        first.write(report("first", Teller::Proxy));
        let third = one.place();
        third.write(report("third", Teller::Replica(3)));
        let link = tokio::spawn(link(&one, &other, ["f", "f"]));
        nodes(&other, &["first"]).await;
        let heard = other.reports().borrow().values().next().cloned().unwrap();
        assert_eq!(heard, report("first", Teller::Replica(7)));
        assert!(heard.has_taken("default/llm", &Snapshot::default()));

        let second = one.place();
        second.write(report("second", Teller::Proxy));
        nodes(&other, &["first", "second"]).await;
        drop(first);
        nodes(&other, &["second"]).await;
        link.abort();
        nodes(&other, &[]).await;
    }

    #[tokio::test]
    async fn what_another_build_makes_is_not_compared() {
        let (one, other) = (Board::default(), Board::default());
        let place = one.place();
        let unlike = Taken::This(Digest(!Snapshot::default().digest().0));
        let taken = [("default/llm".to_owned(), unlike)];
        place.write(Report { taken: taken.into(), ..report("first", Teller::Proxy) });
        let has_taken = async |builds| {
            let link = tokio::spawn(link(&one, &other, builds));
            nodes(&other, &["first"]).await;
            let taken =
                other.reports().borrow().values().all(|report| report.has_taken("default/llm", &Snapshot::default()));
            link.abort();
            nodes(&other, &[]).await;
            taken
        };
        assert!(!has_taken(["f", "f"]).await);
        assert!(has_taken(["f", "g"]).await);
    }

    #[tokio::test]
    async fn many_reports_arrive_in_several_messages() {
        let (one, other) = (Board::default(), Board::default());
        let names: Vec<String> = (0..CHUNK * 2 + 1).map(|number| number.to_string()).collect();
        let places: Vec<Place> = names.iter().map(|_| one.place()).collect();
        for (place, name) in places.iter().zip(&names) {
            place.write(report(name, Teller::Proxy));
        }
        let link = tokio::spawn(link(&one, &other, ["f", "f"]));
        nodes(&other, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        link.abort();
    }
}
