//! The words that the stories are written in: an app with a database and a bucket of its own, its actors, the faults
//! that a story orders, and the check that nothing is left over at its end.

mod actor;
mod backends;
mod disk;
mod leaks;
mod lies;
mod log;
mod passes;
mod proxy;
mod reply;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures_util::FutureExt;
use quaymaster::clock::Clock;
use tempfile::TempDir;

pub use actor::{Actor, Tenant, Upload};
pub use backends::{Database, OWNER, Pair, Skipped, Store};
pub use disk::{Calls, Disk, Errno};
pub use lies::{Lie, sha256};
pub use proxy::{Fault, Op};
pub use quaymaster::caller::Actor as By;
pub use reply::Reply;
pub use server::free_port;

use server::Server;

pub const KIB: u64 = 1024;
pub const MIB: u64 = 1024 * KIB;
/// What the stories' server cuts files into: the least that S3 allows.
pub const CHUNK: u64 = 5 * MIB;

pub const JWT_SECRET: &str = "a secret of the tests, long enough for HS256";
pub const AUDIT_KEY: &str = "a key of the tests, long enough for an audit";

/// Makes each of these functions two tests: `name::embedded` and `name::postgres`. One that is not listed is dead
/// code, which the lints refuse.
macro_rules! stories {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn embedded() {
                crate::kit::tell(crate::kit::Pair::Embedded, super::$name);
            }
            #[test]
            fn postgres() {
                crate::kit::tell(crate::kit::Pair::Postgres, super::$name);
            }
        }
    )+};
}
pub(crate) use stories;

/// An operator as the record names them, for what is done past the door.
pub fn by_operator(name: &str) -> By {
    By::Operator(name.to_owned())
}

/// Runs one story on a new app, checks what it leaves behind, and takes everything down again.
pub fn tell<F: Future<Output = ()>>(pair: Pair, story: impl FnOnce(TestApp) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let app = TestApp::start(pair).await;
        let outcome = AssertUnwindSafe(async {
            story(app.clone()).await;
            leaks::check(&app).await;
        })
        .catch_unwind()
        .await;
        app.take_down().await;
        match outcome.map_err(|panic| panic.downcast::<Skipped>()) {
            Ok(()) => {}
            #[allow(clippy::print_stderr, reason = "cargo test shows it beside the story's name")]
            Err(Ok(skipped)) => eprintln!("skipped: {}", skipped.0),
            Err(Err(panic)) => std::panic::resume_unwind(panic),
        }
    });
}

/// A tenant's id, and its brands' by slug.
type TenantIds = (uuid::Uuid, BTreeMap<String, uuid::Uuid>);

/// A running server with its back ends; clones are the same one.
#[derive(Clone)]
pub struct TestApp(Arc<App>);

pub struct App {
    pub pair: Pair,
    pub clock: Clock,
    pub store: Store,
    pub database: Database,
    pub http: reqwest::Client,
    pub folder: TempDir,
    tenants: OnceLock<BTreeMap<&'static str, TenantIds>>,
    env: Mutex<BTreeMap<String, String>>,
    server: tokio::sync::Mutex<Option<Server>>,
    base: Mutex<String>,
    leftovers: AtomicBool,
    program: AtomicBool,
    breaks: AtomicBool,
    /// Begins the id of every request of this story.
    story: String,
    requests: AtomicU32,
    /// Ids of the requests that were answered by a 5xx, as the story wanted it.
    outages: Mutex<BTreeSet<String>>,
}

impl Deref for TestApp {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}

impl TestApp {
    async fn start(pair: Pair) -> Self {
        log::listen();
        let folder = tempfile::tempdir().unwrap();
        let database = Database::start(pair, folder.path()).await;
        let store = Store::start(pair, folder.path()).await;
        let mut env: BTreeMap<String, String> = [
            (database.env.0, database.env.1.as_str()),
            ("JWT_SECRET", JWT_SECRET),
            ("AUDIT_KEY", AUDIT_KEY),
            ("QUAYMASTER_SERVER__WORKERS", "1"),
            ("QUAYMASTER_UPLOADS__DEFAULT__CHUNK_BYTES", "5242880"),
            // A story that waits for a time-out waits for these.
            ("QUAYMASTER_STORAGE__CONNECT_TIMEOUT_SECS", "1"),
            ("QUAYMASTER_STORAGE__READ_TIMEOUT_SECS", "1"),
            ("QUAYMASTER_STORAGE__ATTEMPT_TIMEOUT_SECS", "2"),
            ("QUAYMASTER_STORAGE__MAX_ATTEMPTS", "2"),
            ("QUAYMASTER_DATABASE__CONNECT_TIMEOUT_SECS", "2"),
            ("QUAYMASTER_DATABASE__ACQUIRE_TIMEOUT_SECS", "2"),
            ("QUAYMASTER_LOG__LEVEL", "warn"),
            // Nothing happens in the background that the story does not ask for.
            ("QUAYMASTER_JOBS__ENABLED", "false"),
            ("QUAYMASTER_SCHEDULE__DETECT_ABANDONED", "never"),
            ("QUAYMASTER_SCHEDULE__CLEANUP", "never"),
            ("QUAYMASTER_SCHEDULE__ORPHANS", "never"),
            ("QUAYMASTER_SCHEDULE__RECONCILE", "never"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        env.extend(store.env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        // The server closes what lies idle for 5 s, maybe just as a request is sent on it.
        let http = reqwest::Client::builder().no_proxy().pool_idle_timeout(Duration::from_secs(2)).build().unwrap();
        let app = Self(Arc::new(App {
            pair,
            clock: Clock::default(),
            store,
            database,
            http,
            folder,
            tenants: OnceLock::new(),
            env: Mutex::new(env),
            server: tokio::sync::Mutex::default(),
            base: Mutex::default(),
            leftovers: AtomicBool::new(false),
            program: AtomicBool::new(false),
            breaks: AtomicBool::new(false),
            story: format!("story-{}", uuid::Uuid::new_v4().simple()),
            requests: AtomicU32::new(0),
            outages: Mutex::default(),
        }));
        app.start_server().await;
        let acme = app.create_tenant("acme", &["main", "second"]).await;
        let globex = app.create_tenant("globex", &["main"]).await;
        app.tenants.set([("acme", acme), ("globex", globex)].into()).expect("the tenants are made once");
        app
    }

    /// `acme`, with the brands `main` and `second`, or `globex`, with `main`.
    #[track_caller]
    pub fn tenant(&self, slug: &str) -> Tenant {
        let tenants = self.tenants.get().expect("the tenants are made before the story begins");
        let (id, brands) = tenants[slug].clone();
        Tenant { app: self.clone(), id, brands }
    }

    /// Somebody of no tenant, with the permission `operator`.
    pub fn operator(&self, name: &str) -> Actor {
        let claims = serde_json::json!({"sub": name, "brand_ids": [], "permissions": ["operator"]});
        Actor { app: self.clone(), tenant: self.tenant("acme"), claims }
    }

    pub async fn send(
        &self,
        method: reqwest::Method,
        path: &str,
        with: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Reply {
        let id = format!("{}-{:06}", self.story, self.requests.fetch_add(1, Ordering::Relaxed));
        let request = self.http.request(method.clone(), self.url(path)).header("X-Request-Id", &id);
        let response = with(request).send().await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
        let reply = Reply::read(format!("{method} {path}"), response).await;
        // Nothing that a client sends may end in a bug's answer, whatever the story is about.
        assert!(reply.status != 500 || self.breaks.load(Ordering::Relaxed), "{reply}");
        assert_eq!(reply.header("x-request-id"), id, "{reply}");
        if reply.status >= 500 {
            self.outages.lock().unwrap().insert(id);
        }
        reply
    }

    /// What the server warned of in requests that it did answer well. Something failed there that nobody was told of.
    fn unexplained_log_lines(&self) -> Vec<String> {
        let outages = self.outages.lock().unwrap();
        let lines = log::take(&self.story).into_iter();
        lines.filter(|(id, _)| !outages.contains(id)).map(|(id, line)| format!("{id}: {line}")).collect()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.lock().unwrap())
    }

    /// Time goes by here and in the store: what it holds is older by so much.
    pub fn advance_with_the_store(&self, by: TimeDelta) {
        self.store.faults().age(by);
        self.clock.advance(by);
    }

    /// What the server, or a command beside it, is set with.
    pub fn env(&self) -> BTreeMap<String, String> {
        self.env.lock().unwrap().clone()
    }

    pub fn advance(&self, by: TimeDelta) {
        self.clock.advance(by);
    }

    /// This story makes the immediate cleanup of a cancelled or failed session fail: its bytes may stay behind.
    pub fn expect_leftovers(&self) {
        self.leftovers.store(true, Ordering::Relaxed);
    }

    /// This story breaks the database from within, which no outage does: 500 may be answered.
    pub fn expect_bugs(&self) {
        self.breaks.store(true, Ordering::Relaxed);
    }

    /// What `/readyz` says once it answers this status: what it has found may be a few seconds old.
    pub async fn readiness(&self, status: u16) -> serde_json::Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let reply = self.send(reqwest::Method::GET, "/readyz", |request| request).await;
            if reply.status == status {
                return serde_json::from_slice(&reply.body).unwrap();
            }
            assert!(Instant::now() < deadline, "{reply}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub fn may_leave_bytes(&self) -> bool {
        self.leftovers.load(Ordering::Relaxed)
    }

    /// Stops the server in good order and starts it again on the same back ends, with other settings.
    pub async fn restart_with(&self, settings: &[(&str, &str)]) {
        self.stop_server().await;
        let changed = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.env.lock().unwrap().extend(changed);
        self.start_server().await;
    }

    /// For what is started from now on.
    pub fn set(&self, name: &str, value: &str) {
        self.env.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    async fn take_down(&self) {
        self.store.heal();
        self.database.heal().await;
        self.stop_server().await;
        self.store.remove().await;
        self.database.remove().await;
    }
}
