//! The ledger as a whole: the wire, the thread, the file.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tollgate_core::ir::{Limit, Mode, OnEarlyEnd, OnLedgerUnavailable, Schema, ScopePart, Thresholds, Window};
use tollgate_core::ledger::{Changes, Configured, Now, Records, Thing};
use tollgate_core::objects::Key;
use tollgate_core::status::{Origin, date_of};
use tollgate_proto::v1::{self, SyncRequest, ledger_client::LedgerClient};
use tonic::transport::{Channel, Server};

use super::embedded::clock::{Clock, SystemClock};
use super::embedded::disk::Disk;
use super::embedded::file::{File, Redb};
use super::embedded::tables::META;
use super::query::{Page, UsageQuery};
use super::*;
use crate::identity::Identity;

pub(crate) const TTL: Duration = Duration::from_secs(30);

pub(crate) fn limit(tokens: u64, scope: Vec<ScopePart>) -> Limit {
    Limit {
        origin: Origin::new("TokenPolicy", "default", "per-consumer"),
        id: "default/per-consumer/daily".into(),
        policy: "per-consumer".into(),
        name: "daily".into(),
        tokens,
        window: Window::Fixed(Duration::from_secs(86_400)),
        scope,
        count: v1::CountWeights::default(),
        mode: Mode::Enforce,
        on_ledger_unavailable: OnLedgerUnavailable::Deny,
        on_early_end: OnEarlyEnd::Estimate,
        warn_at: Thresholds::default(),
    }
}

pub(crate) fn consumer_limit(tokens: u64) -> Limit {
    limit(tokens, vec![ScopePart::Consumer])
}

/// The Envoy of the tests serves these limits, all consumers and the route of the tests.
pub(crate) const US: Identity = Identity::AllGateways;

pub(crate) fn configured(limits: Vec<Limit>) -> Configured {
    let consumers = ["app", "team/app", "other", "research-app", "support-bot"];
    let served = consumers.map(Thing::consumer).into_iter().chain([Thing::route("chat")]);
    let served = served.chain(limits.iter().map(|limit| Thing::limit(&limit.id))).collect();
    let schemas = Arc::new([("runner".to_owned(), Schema::OpenAI)].into());
    Configured { limits, served: [(US.to_string(), vec![served])].into(), schemas }
}

pub(crate) fn limits(limits: Vec<Limit>) -> watch::Receiver<Arc<Configured>> {
    watch::channel(Arc::new(configured(limits))).1
}

pub(crate) fn bucket() -> v1::Bucket {
    v1::Bucket { limit: "default/per-consumer/daily".into(), scope: vec!["app".into()] }
}

pub(crate) fn request(worker: u64, sequence: u64) -> SyncRequest {
    SyncRequest { proxy: "envoy".into(), epoch: 1, worker, sequence, ..SyncRequest::default() }
}

pub(crate) fn want(wish: u64, least: u64) -> Vec<v1::Want> {
    vec![v1::Want { bucket: Some(bucket()), wish, least }]
}

pub(crate) fn used(consumer: &str, model: &str, tokens: u64) -> v1::Usage {
    v1::Usage {
        ended_at: Timestamp::now().as_millisecond(),
        consumer: consumer.into(),
        route: "chat".into(),
        model: model.into(),
        backend: "runner-a".into(),
        input_tokens: tokens,
        output_tokens: 1,
        requests: 1,
        ..v1::Usage::default()
    }
}

/// Serves until the test ends.
pub(crate) async fn serve<L: Ledger + Clone + 'static>(ledger: &L) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let introduce = |mut request: tonic::Request<()>| {
        request.extensions_mut().insert(crate::identity::Caller::Proxy(US));
        Ok(request)
    };
    let service = tonic::service::interceptor::InterceptedService::new(service(Arc::new(ledger.clone())), introduce);
    let server = Server::builder().add_service(service);
    tokio::spawn(async move { server.serve_with_incoming(incoming).await });
    address
}

/// A call of the Envoy of the tests.
pub(crate) async fn sync(ledger: &dyn Ledger, request: SyncRequest) -> Result<SyncResponse, SyncError> {
    ledger.sync(&US.to_string(), request).await
}

pub(crate) async fn connect(address: &str) -> Result<LedgerClient<Channel>, tonic::transport::Error> {
    let endpoint = tonic::transport::Endpoint::from_shared(address.to_owned())?;
    Ok(LedgerClient::new(endpoint.connect().await?))
}

async fn client(address: &str) -> LedgerClient<Channel> {
    connect(address).await.unwrap()
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
struct FakeClock(Mutex<Now>);

impl FakeClock {
    fn new() -> Arc<Self> {
        let wall = "2026-11-22T12:00:00Z".parse().unwrap();
        Arc::new(Self(Mutex::new(Now { wall, steady: Duration::from_secs(5) })))
    }

    fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap();
        now.wall += by;
        now.steady += by;
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap()
    }
}

/// A disk that can be full.
#[derive(Debug)]
struct Breakable {
    store: Redb,
    broken: Arc<AtomicBool>,
}

impl Disk for Breakable {
    fn load(&mut self) -> Result<Records, StoreError> {
        if self.broken.load(Ordering::SeqCst) { Err(full()) } else { self.store.load() }
    }

    fn commit(&mut self, changes: &Changes) -> Result<(), StoreError> {
        if self.broken.load(Ordering::SeqCst) { Err(full()) } else { self.store.commit(changes) }
    }

    fn file(&self) -> Arc<File> {
        self.store.file()
    }
}

fn full() -> StoreError {
    StoreError::Full { path: "ledger.redb".into() }
}

#[tokio::test]
async fn many_clients_cannot_overdraw_a_budget_and_every_token_is_in_the_books() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Embedded::open(dir.path(), limits(vec![consumer_limit(1000)]), TTL, Metrics::new()).unwrap();
    let address = serve(&ledger).await;
    spend_all([address.clone(), address], &ledger).await;
}

/// Many clients of these two addresses spend a budget of 1000 tokens to its end.
pub(super) async fn spend_all(addresses: [String; 2], ledger: &dyn Ledger) {
    let worker = |worker| {
        let [even, odd] = addresses.clone();
        let address = if worker % 2 == 0 { even } else { odd };
        tokio::spawn(async move {
            let mut client = client(&address).await;
            let (mut sequence, mut spent) = (0, 0);
            loop {
                sequence += 1;
                let wants = SyncRequest { wants: want(30, 10), ..request(worker, sequence) };
                let grant = until_answered(&mut client, &wants).await.grants.remove(0);
                if grant.granted == 0 {
                    return spent;
                }
                sequence += 1;
                spent += grant.granted;
                let settlements = vec![v1::Settlement {
                    bucket: Some(bucket()),
                    window_start: grant.window_start,
                    from_lease: grant.granted,
                    charged: grant.granted,
                    released: 0,
                }];
                let usage = vec![used("app", "smol", grant.granted)];
                let report = SyncRequest { settlements, usage, ..request(worker, sequence) };
                until_answered(&mut client, &report).await;
            }
        })
    };
    // All of them begin before the first is waited for.
    let workers: Vec<_> = (0..16).map(worker).collect();
    let mut spent = 0;
    for worker in workers {
        spent += worker.await.unwrap();
    }
    assert_eq!(spent, 1000);
    let budget = ledger.budgets(Page::default()).await.unwrap().rows.remove(0);
    assert_eq!((budget.spent, budget.leased, budget.tokens), (1000, 0, 1000));
    let rows = ledger.usage(UsageQuery::default()).await.unwrap().rows;
    assert_eq!(
        (rows.len(), rows[0].totals.input_tokens, rows[0].totals.output_tokens),
        (1, 1000, rows[0].totals.requests)
    );
}

/// A filter sends a call again that the ledger could not take now.
async fn until_answered(client: &mut LedgerClient<Channel>, call: &SyncRequest) -> SyncResponse {
    loop {
        match client.sync(call.clone()).await {
            Ok(answer) => return answer.into_inner(),
            Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status}"),
        }
    }
}

#[tokio::test]
async fn the_wire_says_what_is_wrong_with_a_call() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Embedded::open(dir.path(), limits(vec![consumer_limit(1000)]), TTL, Metrics::new()).unwrap();
    let mut client = client(&serve(&ledger).await).await;
    let status = client.sync(request(1, 0)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    client.sync(SyncRequest { wants: want(1, 1), ..request(1, 5) }).await.unwrap();
    let status = client.sync(request(1, 4)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    let huge = vec![used(&"x".repeat(MAX_CALL_BYTES), "smol", 1)];
    let status = client.sync(SyncRequest { usage: huge, ..request(1, 6) }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange);
    ledger.close().await;
    let status = client.sync(request(1, 6)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn time_ends_leases_and_windows() {
    let dir = tempfile::tempdir().unwrap();
    let clock = FakeClock::new();
    let store = Box::new(Redb::new(dir.path()).unwrap());
    let limits = limits(vec![consumer_limit(1000), Limit { id: "x".into(), ..limit(50, vec![]) }]);
    let ledger = Embedded::start(store, clock.clone(), limits, TTL, Metrics::new()).unwrap();
    sync(&ledger, SyncRequest { wants: want(100, 100), ..request(1, 1) }).await.unwrap();
    let rows = ledger.budgets(Page::default()).await.unwrap().rows;
    assert_eq!((rows[0].spent, rows[0].leased, rows[0].window_start.as_str()), (0, 100, "2026-11-22T00:00:00Z"));
    assert_eq!(rows[0].scope, [("Consumer".to_owned(), "app".to_owned())].into());
    assert_eq!((rows[1].spent, rows[1].tokens, rows[1].scope.len()), (0, 50, 0), "one for all is there from the start");
    clock.advance(TTL);
    // The writer's thread looks at the clock by itself.
    let mut spent = 0;
    for _ in 0..2400 {
        spent = ledger.budgets(Page::default()).await.unwrap().rows[0].spent;
        if spent > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(spent, 100);
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(ledger.budgets(Page::default()).await.unwrap().rows.len(), 1, "a new day");
}

#[tokio::test]
async fn a_full_disk_refuses_calls_and_nothing_half_done_stays() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let store = Box::new(Breakable { store: Redb::new(dir.path()).unwrap(), broken: Arc::clone(&broken) });
    let ledger =
        Embedded::start(store, Arc::new(SystemClock::new()), limits(vec![consumer_limit(1000)]), TTL, Metrics::new())
            .unwrap();
    sync(&ledger, SyncRequest { wants: want(100, 100), ..request(1, 1) }).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    let call = SyncRequest { wants: want(50, 50), usage: vec![used("app", "smol", 7)], ..request(1, 2) };
    for _ in 0..2 {
        let error = sync(&ledger, call.clone()).await.unwrap_err();
        assert!(matches!(&error, SyncError::Store(store) if matches!(**store, StoreError::Full { .. })), "{error}");
    }
    assert_eq!(ledger.budgets(Page::default()).await.unwrap().rows[0].leased, 100);
    broken.store(false, Ordering::SeqCst);
    let answer = loop {
        match sync(&ledger, call.clone()).await {
            Ok(answer) => break answer,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert_eq!(answer.grants[0].granted, 50);
    assert_eq!(sync(&ledger, call).await.unwrap().grants[0].granted, 50);
    assert_eq!(ledger.budgets(Page::default()).await.unwrap().rows[0].leased, 150);
    assert_eq!(ledger.usage(UsageQuery::default()).await.unwrap().rows[0].totals.requests, 1);
}

#[tokio::test]
async fn a_changed_limit_is_followed_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, receiver) = watch::channel(Arc::new(configured(vec![consumer_limit(100)])));
    let ledger = Embedded::open(dir.path(), receiver, TTL, Metrics::new()).unwrap();
    let first = sync(&ledger, SyncRequest { wants: want(100, 100), ..request(1, 1) }).await.unwrap();
    assert_eq!((first.grants[0].granted, first.grants[0].remaining), (100, 0));
    sender.send(Arc::new(configured(vec![consumer_limit(130)]))).unwrap();
    let second = sync(&ledger, SyncRequest { wants: want(100, 100), ..request(1, 2) }).await.unwrap();
    assert_eq!(second.grants[0].granted, 30);
    assert_eq!(ledger.budgets(Page::default()).await.unwrap().rows[0].tokens, 130);
    sender.send(Arc::default()).unwrap();
    assert!(ledger.budgets(Page::default()).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn usage_is_filtered_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Embedded::open(dir.path(), limits(vec![]), TTL, Metrics::new()).unwrap();
    let ledger = open();
    let old = v1::Usage { ended_at: Timestamp::now().as_millisecond() - 7_200_000, ..used("app", "smol", 40) };
    let usage = vec![used("app", "smol", 10), used("app", "gpt", 20), used("team/app", "smol", 30), old];
    sync(&ledger, SyncRequest { usage, ..request(1, 1) }).await.unwrap();
    ledger.close().await;
    assert!(matches!(ledger.usage(UsageQuery::default()).await, Err(StoreError::Closed)));
    let ledger = open();
    let sum = async |consumer: Option<&str>, model: Option<&str>, since: Option<u64>| {
        let query = UsageQuery {
            consumer: consumer.map(str::to_owned),
            model: model.map(str::to_owned),
            since: since.map(Duration::from_secs),
            page: Page::default(),
        };
        ledger.usage(query).await.unwrap().rows.iter().map(|row| row.totals.input_tokens).sum::<u64>()
    };
    assert_eq!(sum(None, None, None).await, 100);
    assert_eq!(sum(Some("app"), None, None).await, 70);
    assert_eq!(sum(Some("default/app"), Some("smol"), None).await, 50);
    assert_eq!(sum(Some("team/app"), None, Some(3600)).await, 30);
    assert_eq!(sum(None, None, Some(3600)).await, 60);
    assert_eq!(sum(None, None, Some(u64::MAX)).await, 100);
    assert_eq!(sum(Some("nobody"), None, None).await, 0);
}

/// What a plot costs: `cargo test --release -p tollgate -- --ignored --nocapture a_plot_of_a_month`.
#[tokio::test]
#[ignore = "a measurement, of half a minute"]
async fn a_plot_of_a_month_reads_each_row() {
    use tollgate_core::ledger::series::{By, Step};
    const COMBINATIONS: usize = 20;
    let dir = tempfile::tempdir().unwrap();
    let ledger = Embedded::open(dir.path(), limits(vec![]), TTL, Metrics::new()).unwrap();
    let now = Timestamp::now().as_millisecond();
    let minutes: Vec<i64> = (0..30 * 24 * 60).collect();
    for (sequence, some) in (1..).zip(minutes.chunks(50)) {
        let usage = some.iter().flat_map(|minute| {
            (0..COMBINATIONS).map(move |number| v1::Usage {
                ended_at: now - minute * 60_000,
                backend: format!("runner-{number}"),
                ..used("app", "smol", 1)
            })
        });
        sync(&ledger, SyncRequest { usage: usage.collect(), ..request(1, sequence) }).await.unwrap();
    }
    for step in [Step::Day, Step::Hour] {
        let since = Some(Duration::from_secs(86_400) * if step == Step::Day { 30 } else { 1 });
        let query = SeriesQuery { by: By::Backend, step, consumer: None, model: None, since, most: 10 };
        let began = std::time::Instant::now();
        let series = ledger.series(query).await.unwrap();
        println!("{step:?}: {} series in {:?}", series.len(), began.elapsed());
    }
    let began = std::time::Instant::now();
    let query = UsageQuery { since: Some(Duration::from_secs(30 * 86_400)), ..UsageQuery::default() };
    println!("usage: {} rows in {:?}", ledger.usage(query).await.unwrap().rows.len(), began.elapsed());
}

#[tokio::test]
async fn a_settled_request_is_the_last_use_of_its_consumer() {
    let dir = tempfile::tempdir().unwrap();
    let open = |metrics: &Metrics| Embedded::open(dir.path(), limits(vec![]), TTL, metrics.clone()).unwrap();
    let metrics = Metrics::new();
    let ledger = open(&metrics);
    let now = Timestamp::now().as_millisecond();
    let earlier = v1::Usage { ended_at: now - 7_200_000, ..used("app", "gpt", 10) };
    let usage = vec![v1::Usage { ended_at: now, ..used("app", "smol", 10) }, earlier];
    sync(&ledger, SyncRequest { usage, ..request(1, 1) }).await.unwrap();
    let of = |metrics: &Metrics, name: &str| metrics.last_used().of(&Key::new("default", name));
    let minute = now.div_euclid(60_000) * 60;
    assert_eq!((of(&metrics, "app"), of(&metrics, "other")), (Some(minute), None));
    ledger.close().await;
    let metrics = Metrics::new();
    let _again = open(&metrics);
    assert_eq!((of(&metrics, "app"), of(&metrics, "other")), (Some(minute), None));
}

#[tokio::test]
async fn what_is_settled_today_is_spent_today_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let open = || Embedded::open(dir.path(), limits(vec![]), TTL, metrics.clone()).unwrap();
    let ledger = open();
    let now = Timestamp::now();
    let at = |ended_at, model| v1::Usage { ended_at, ..used("app", model, 10) };
    let today = now.as_millisecond();
    let usage = vec![at(today, "smol"), at(today, "gpt"), at(today - 2 * 86_400_000, "smol")];
    sync(&ledger, SyncRequest { usage, ..request(1, 1) }).await.unwrap();
    let of = |name: &str| {
        let spent = metrics.spent_today().of(&Key::new("default", name), date_of(now));
        spent.map(|spent| spent.tokens)
    };
    let one = used("app", "smol", 10);
    let both = 2 * (one.input_tokens + one.output_tokens);
    assert_eq!((of("app"), of("other")), (Some(both), None));
    ledger.close().await;
    // The same metrics, as where a replica leads once more.
    let _again = open();
    assert_eq!((of("app"), of("other")), (Some(both), None));
}

#[tokio::test]
async fn a_file_that_cannot_be_used_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let open = |dir: &Path| Embedded::open(dir, limits(vec![]), TTL, Metrics::new());
    let ledger = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Locked { .. })));
    ledger.close().await;
    let file = dir.path().join("ledger.redb");
    let sound = std::fs::read(&file).unwrap();
    let mut damaged = sound.clone();
    damaged[4096..].fill(0x5a);
    for bytes in [b"not a database, but long enough to be one".repeat(200), damaged, sound[..sound.len() / 2].to_vec()]
    {
        std::fs::write(&file, &bytes).unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert_eq!(std::fs::read(&file).unwrap().len(), bytes.len(), "it is left as it was");
    }
    std::fs::write(&file, &sound).unwrap();
    assert!(open(dir.path()).is_ok());
    assert!(matches!(open(Path::new("/proc/nowhere")), Err(StoreError::Unusable { .. })));
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    Embedded::open(dir.path(), limits(vec![]), TTL, Metrics::new()).unwrap().close().await;
    {
        let database = redb::Database::create(dir.path().join("ledger.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("schema", 99).unwrap();
        drop(meta);
        transaction.commit().unwrap();
    }
    let error = Embedded::open(dir.path(), limits(vec![]), TTL, Metrics::new()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
}

/// A file of schema 1, in which holders had no identity.
#[tokio::test]
async fn leases_of_an_older_file_are_charged_when_they_expire_and_can_be_settled_by_nobody() {
    use super::embedded::tables::{BUCKETS, before};
    let dir = tempfile::tempdir().unwrap();
    let (limit, scope, start) = ("default/per-consumer/daily", "[\"app\"]", 1_795_305_600);
    {
        let database = redb::Database::create(dir.path().join("ledger.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("schema", 1).unwrap();
        transaction.open_table(BUCKETS).unwrap().insert((limit, scope, start), (7, 100, start + 86_400)).unwrap();
        let lease = ("envoy", 1, limit, scope, start);
        transaction.open_table(before::LEASES).unwrap().insert(lease, (100, 0)).unwrap();
        transaction.open_table(before::HOLDERS).unwrap().insert(("envoy", 1), start).unwrap();
        transaction.open_table(before::WORKERS).unwrap().insert(("envoy", 1, 1), (9, [].as_slice())).unwrap();
        transaction.commit().unwrap();
    }
    let clock = FakeClock::new();
    clock.0.lock().unwrap().wall = Timestamp::from_second(start + 5).unwrap();
    let store = Box::new(Redb::new(dir.path()).unwrap());
    let ledger =
        Embedded::start(store, clock.clone(), limits(vec![consumer_limit(1000)]), TTL, Metrics::new()).unwrap();
    let settlements =
        vec![v1::Settlement { bucket: Some(bucket()), window_start: start, from_lease: 100, charged: 0, released: 0 }];
    sync(&ledger, SyncRequest { settlements, ..request(1, 10) }).await.unwrap();
    let budget = ledger.budgets(Page::default()).await.unwrap().rows.remove(0);
    assert_eq!((budget.spent, budget.leased), (7, 100));
    clock.advance(TTL);
    sync(&ledger, request(1, 11)).await.unwrap();
    let budget = ledger.budgets(Page::default()).await.unwrap().rows.remove(0);
    assert_eq!((budget.spent, budget.leased), (107, 0));
    ledger.close().await;
    Embedded::open(dir.path(), limits(vec![]), TTL, Metrics::new()).unwrap().close().await;
}

/// As when another replica leads: what this one knew is not to be taken for the present.
#[tokio::test]
async fn a_closed_ledger_is_not_writable_and_shows_no_budgets() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry, crate::report::Consumers::LeftOut);
    let shown = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines()
            .filter(|line| line.starts_with("budget_") || line.starts_with("ledger_writable"))
            .map(str::to_owned)
            .collect()
    };
    let ledger = Embedded::open(dir.path(), limits(vec![consumer_limit(1000)]), TTL, metrics.clone()).unwrap();
    let settlement =
        v1::Settlement { bucket: Some(bucket()), window_start: 0, from_lease: 0, charged: 850, released: 0 };
    sync(&ledger, SyncRequest { settlements: vec![settlement], ..request(1, 1) }).await.unwrap();
    let mut open: Vec<String> = shown();
    open.sort();
    let of = "{policy=\"default/per-consumer\",limit=\"daily\"";
    assert_eq!(
        open,
        [
            format!("budget_spent_ratio{of}}} 0.85"),
            format!("budget_thresholds_total{of},threshold=\"100\"}} 0"),
            format!("budget_thresholds_total{of},threshold=\"80\"}} 1"),
            "ledger_writable 1".to_owned(),
        ]
    );
    ledger.close().await;
    let closed: Vec<String> = shown();
    assert_eq!(closed, ["ledger_writable 0"]);
}
