//! Starts a server from its settings, and stops it.

use std::io;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join;
use migration::Schema;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::address::{ListenError, http_url, resolve};
use crate::clock::Clock;
use crate::data_dir::{self, AUDIT_KEY, DataDir, JWT_SECRET, STORE_ACCESS_KEY_ID, STORE_SECRET_ACCESS_KEY, SecretFile};
use crate::database::{Database, DbErr};
use crate::engine::Engine;
use crate::error::with_causes;
use crate::http::{self, ServerHandle};
use crate::jobs::{self, Workers};
use crate::keys::Keys;
use crate::schedule::{self, Schedule};
use crate::settings::{self, Provider, Secret, Settings};
use crate::storage::Storage;
use crate::threads::{Threads, ThreadsError};
use crate::{feed, session, tenant, work};

/// Why the server, or a command that opens the same files, could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "there is no deployment in {0}: make one with `quaymaster serve` or `quaymaster tenant create`, or set \
         QUAYMASTER_DATA_DIR (embedded.data_dir) or DATABASE_URL (database.url) to an existing one"
    )]
    NoDeployment(String),
    #[error("the database's schema is of an older version; start `quaymaster serve` to bring it up to date")]
    OldSchema,
    #[error("the data folder cannot be used")]
    DataDir(#[from] data_dir::Error),
    #[error("the embedded store did not start")]
    EmbeddedStore(#[from] embedded_s3::Error),
    #[error("the database cannot be opened")]
    Database(#[source] DbErr),
    #[error("the database's schema could not be brought up to date")]
    Migration(#[source] DbErr),
    #[error("the store's settings cannot be used")]
    Storage(#[from] crate::storage::StartError),
    #[error("a bucket of the embedded store could not be made ready")]
    Bucket(#[source] crate::storage::Error),
    #[error("the tenants' buckets could not be read")]
    Buckets(#[source] crate::error::Error),
    #[error("the feed of events could not be read")]
    Feed(#[source] crate::error::Error),
    #[error(transparent)]
    Web(#[from] http::StartError),
    #[error("the timetable did not start")]
    Schedule(#[from] schedule::StartError),
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// A running server.
pub struct Running {
    pub addr: SocketAddr,
    pub engine: Engine,
    server: ServerHandle,
    serving: JoinHandle<io::Result<()>>,
    feed: Feed,
    store: Option<Store>,
    schedule: Schedule,
    workers: Option<Background>,
    grace: Duration,
}

/// The workers that run the jobs, and their threads.
struct Background(Workers, #[allow(dead_code, reason = "held until it is dropped")] Threads);

/// The embedded store, and its threads.
struct Store(embedded_s3::Server, #[allow(dead_code, reason = "held until it is dropped")] Threads);

/// The task that puts events in order and notifies live readers.
struct Feed {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Feed {
    async fn start(engine: &Engine) -> Result<Self, Error> {
        feed::begin(engine).await.map_err(Error::Feed)?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(feed::run(engine.clone(), stop.clone()));
        Ok(Self { stop, task })
    }

    /// Also ends all streams and long polls, so that nothing waits for them.
    async fn stop(self) {
        self.stop.cancel();
        if let Err(panic) = self.task.await {
            tracing::error!(error = %panic, "the feed of events failed");
        }
    }
}

/// Starts everything: the embedded store if it is used, the database with its migrations, the timetable, the web door, and
/// the work in the background.
///
/// # Errors
/// See [`Error`]. Everything that had started is stopped again.
pub async fn start(mut settings: Settings, clock: Clock) -> Result<Running, Error> {
    let dir = prepare(&mut settings, Missing::Make)?;
    if let Some(dir) = &dir {
        dir.release_reserve();
    }
    let store = match &dir {
        Some(dir) if settings.storage.bucket.is_none() => Some(start_store(&mut settings, dir).await?),
        _ => None,
    };
    let grace = Duration::from_secs(settings.server.shutdown_grace_secs);
    let own_addr = store.as_ref().map(|Store(server, _)| server.own_addr());
    let engine = Box::pin(connect(settings, dir.as_ref(), own_addr, Missing::Make, clock)).await?;
    if store.is_some() {
        tenant::prepare_bucket(&engine, engine.storage.bucket()).await.map_err(Error::Bucket)?;
        for bucket in tenant::buckets(&engine).await.map_err(Error::Buckets)? {
            tenant::prepare_bucket(&engine, &bucket).await.map_err(Error::Bucket)?;
        }
    }
    if let Some(dir) = &dir {
        dir.keep_reserve();
    }
    session::mark_buckets(&engine).await;
    let background = engine.settings.jobs.enabled.then(|| threads("background", &engine.settings)).transpose()?;
    let schedule = schedule::start(&engine).await?;
    let feed = Feed::start(&engine).await?;
    let (addr, serving, server) = match http::serve(&engine).await {
        Ok(serving) => serving,
        Err(error) => {
            schedule.stop().await;
            feed.stop().await;
            return Err(error.into());
        }
    };
    let workers = background.map(|threads| {
        let workers = {
            let _on_its_own_threads = threads.handle().enter();
            jobs::start(&engine, work::job)
        };
        Background(workers, threads)
    });
    Ok(Running { addr, engine, server, serving, feed, store, schedule, workers, grace })
}

/// What to do if a part of the deployment is missing: a folder, a secret, a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Make,
    /// For commands that look at a deployment, or work on it. They never make one: an empty one beside the real one would
    /// tell them that all is well.
    Refuse,
}

/// Opens the database and the store of an existing deployment without serving, for commands that work beside a running
/// server. Makes nothing, and applies no migration.
///
/// # Errors
/// [`Error::NoDeployment`], [`Error::OldSchema`]; otherwise see [`Error`].
pub async fn open(settings: Settings) -> Result<Engine, Error> {
    open_or(settings, Missing::Refuse).await
}

/// Like [`open`], but makes what is missing, as the start of a server does.
///
/// # Errors
/// See [`Error`].
pub async fn make(settings: Settings) -> Result<Engine, Error> {
    open_or(settings, Missing::Make).await
}

async fn open_or(mut settings: Settings, missing: Missing) -> Result<Engine, Error> {
    let dir = prepare(&mut settings, missing)?;
    Box::pin(connect(settings, dir.as_ref(), None, missing, Clock::default())).await
}

/// Returns the audit keys of this deployment, from its settings or its data folder. Opens nothing else, and makes nothing.
///
/// # Errors
/// [`Error::NoDeployment`], [`Error::DataDir`].
pub fn keys(settings: &Settings) -> Result<Keys, Error> {
    let key = match &settings.audit.key {
        Some(key) => key.clone(),
        None => audit_key(&open_dir(settings)?, Missing::Refuse)?,
    };
    Ok(Keys::new(key.expose()))
}

impl Running {
    /// Waits until the server ends by itself, which it only does on a failure.
    pub async fn failed(&mut self) -> io::Error {
        match (&mut self.serving).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => io::Error::other("the server stopped"),
            Err(panic) => io::Error::other(panic),
        }
    }

    /// Stops accepting, lets running requests and jobs finish within `server.shutdown_grace_secs`, then closes the store
    /// and the database.
    pub async fn stop(self) {
        let begun = Instant::now();
        self.feed.stop().await;
        self.schedule.stop().await;
        let requests = async {
            if tokio::time::timeout(self.grace, self.server.stop(true)).await.is_err() {
                self.server.stop(false).await;
            }
        };
        let jobs = async {
            if let Some(Background(workers, _threads)) = self.workers {
                workers.stop(self.grace).await;
            }
        };
        join(requests, jobs).await;
        if let Some(Store(store, _threads)) = self.store {
            store.shutdown(self.grace.saturating_sub(begun.elapsed())).await;
        }
        if let Err(error) = self.engine.db.close().await {
            tracing::warn!(error = with_causes(&error), "the database was not closed cleanly");
        }
    }
}

/// Fills in the settings that the embedded default keeps in the data folder; `None` if nothing is embedded.
fn prepare(settings: &mut Settings, missing: Missing) -> Result<Option<DataDir>, Error> {
    let (own_database, own_store) = (settings.database.url.is_none(), settings.storage.bucket.is_none());
    if !own_database && !own_store {
        return Ok(None);
    }
    let dir = match missing {
        Missing::Make => DataDir::make(&settings.embedded.data_dir)?,
        Missing::Refuse => open_dir(settings)?,
    };
    if settings.audit.key.is_none() {
        settings.audit.key = Some(audit_key(&dir, missing)?);
    }
    if !settings.auth.has_key() {
        settings.auth.jwt_secret = match missing {
            Missing::Make => Some(Secret::new(dir.secret_or_new(&JWT_SECRET)?)),
            // It may be missing: only a command that makes tokens needs it.
            Missing::Refuse => dir.secret(&JWT_SECRET)?.map(Secret::new),
        };
    }
    if own_store {
        point_at_embedded_store(settings, &dir, missing)?;
    }
    if missing == Missing::Make {
        if own_database {
            dir.make_database_file()?;
        }
        if own_store {
            dir.make_store()?;
        }
    }
    Ok(Some(dir))
}

fn open_dir(settings: &Settings) -> Result<DataDir, Error> {
    let dir = DataDir::open(&settings.embedded.data_dir);
    let there = dir.filter(|dir| settings.database.url.is_some() || dir.has_database());
    there.ok_or_else(|| no_deployment(settings))
}

fn no_deployment(settings: &Settings) -> Error {
    Error::NoDeployment(match settings.database.url {
        Some(_) => "the database".to_owned(),
        None => settings.embedded.data_dir.display().to_string(),
    })
}

/// Returns the audit key. If there is a database, no new key is made: a history begun with one key cannot be continued with
/// another.
fn audit_key(dir: &DataDir, missing: Missing) -> Result<Secret, data_dir::Error> {
    let key = match dir.secret(&AUDIT_KEY)? {
        Some(key) => key,
        None if dir.has_database() => return Err(data_dir::Error::AuditKeyLost(dir.path_of(&AUDIT_KEY))),
        None => kept(dir, &AUDIT_KEY, missing)?,
    };
    Ok(Secret::new(key))
}

fn kept(dir: &DataDir, secret: &SecretFile, missing: Missing) -> Result<String, data_dir::Error> {
    match missing {
        Missing::Make => dir.secret_or_new(secret),
        Missing::Refuse => dir.secret(secret)?.ok_or_else(|| data_dir::Error::Missing(dir.path_of(secret))),
    }
}

fn point_at_embedded_store(settings: &mut Settings, dir: &DataDir, missing: Missing) -> Result<(), data_dir::Error> {
    let embedded = &mut settings.embedded;
    if embedded.access_key_id.is_none() || embedded.secret_access_key.is_none() {
        embedded.access_key_id = Some(kept(dir, &STORE_ACCESS_KEY_ID, missing)?);
        embedded.secret_access_key = Some(Secret::new(kept(dir, &STORE_SECRET_ACCESS_KEY, missing)?));
    }
    Ok(())
}

/// Creates half as many threads as serve connections.
fn threads(name: &str, settings: &Settings) -> Result<Threads, Error> {
    Ok(Threads::new(name, settings.server.worker_threads() / 2)?)
}

async fn start_store(settings: &mut Settings, dir: &DataDir) -> Result<Store, Error> {
    let threads = threads("store", settings)?;
    let embedded = &settings.embedded;
    let listen = resolve(&embedded.host, embedded.port).await?;
    let config = embedded_s3::Config {
        root: dir.store(),
        listen,
        region: settings.storage.region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
        access_key_id: embedded.access_key_id.clone().unwrap_or_default(),
        secret_access_key: embedded.secret_access_key.as_ref().map(|s| s.expose().to_owned()).unwrap_or_default(),
        buckets: vec![embedded.bucket.clone()],
        limits: embedded_s3::Limits {
            connections_max: embedded.max_connections,
            connections_per_peer_max: embedded.max_connections_per_address,
            rate_min: embedded.min_bytes_per_second,
            ..embedded_s3::Limits::default()
        },
    };
    let server = match threads.handle().spawn(embedded_s3::start(config)).await {
        Ok(started) => started?,
        Err(panic) => resume_unwind(panic.into_panic()),
    };
    // For port 0 the system has chosen a free one.
    settings.embedded.port = server.addr().port();
    Ok(Store(server, threads))
}

/// `own_addr` is where the embedded store of this process listens for the server's own calls. A command has none, and calls
/// the store of the running server.
async fn connect(
    settings: Settings,
    dir: Option<&DataDir>,
    own_addr: Option<SocketAddr>,
    missing: Missing,
    clock: Clock,
) -> Result<Engine, Error> {
    let file = dir.map(DataDir::database_file);
    let db = Database::connect(&settings.database, file.as_deref()).await.map_err(Error::Database)?;
    match missing {
        Missing::Make => db.migrate().await.map_err(Error::Migration)?,
        Missing::Refuse => match db.schema().await.map_err(Error::Database)? {
            Schema::Current => {}
            Schema::Old => return Err(Error::OldSchema),
            Schema::None => return Err(no_deployment(&settings)),
        },
    }
    let storage = Storage::connect(&store_settings(&settings, own_addr)).await?;
    Ok(Engine::new(db, storage, clock, Arc::new(settings)))
}

/// Returns the settings of the store in use: the outside one, or the embedded one, which is called like any other.
fn store_settings(settings: &Settings, own_addr: Option<SocketAddr>) -> settings::Storage {
    if settings.storage.bucket.is_some() {
        return settings.storage.clone();
    }
    let embedded = &settings.embedded;
    let endpoint = http_url(&embedded.host, embedded.port);
    settings::Storage {
        provider: Some(Provider::Embedded),
        bucket: Some(embedded.bucket.clone()),
        endpoint: Some(own_addr.map_or_else(|| endpoint.clone(), |addr| format!("http://{addr}"))),
        public_endpoint: Some(embedded.public_url.clone().unwrap_or(endpoint)),
        access_key_id: embedded.access_key_id.clone(),
        secret_access_key: embedded.secret_access_key.clone(),
        session_token: None,
        path_style: Some(true),
        ..settings.storage.clone()
    }
}
