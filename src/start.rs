//! From settings to a running server, and back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::data_dir::{DataDir, random_hex};
use crate::database::{Database, DbErr};
use crate::engine::Engine;
use crate::event::{self, Keys};
use crate::http::{self, ServerHandle};
use crate::jobs::{self, Workers};
use crate::schedule::{self, Schedule};
use crate::settings::{self, Provider, Secret, Settings};
use crate::storage::Storage;
use crate::{deployment, tenant};

/// Why the server, or a command that opens the same files, could not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the data folder cannot be used: {0}")]
    DataDir(#[source] io::Error),
    #[error("the embedded store did not start: {0}")]
    EmbeddedStore(#[from] embedded_s3::Error),
    #[error("the database cannot be opened: {0}")]
    Database(#[source] DbErr),
    #[error("the database's schema could not be brought up to date: {0}")]
    Migration(#[source] DbErr),
    #[error("the store's settings cannot be used: {0}")]
    Storage(#[from] crate::storage::StartError),
    #[error("a bucket of the embedded store could not be made ready: {0}")]
    Bucket(#[source] crate::storage::Error),
    #[error("the tenants' buckets could not be read: {0}")]
    Buckets(#[source] crate::error::Error),
    #[error("the feed of events could not be read: {0}")]
    Feed(#[source] crate::error::Error),
    #[error("the tokens' settings cannot be used: {0}")]
    Auth(#[from] http::auth::StartError),
    #[error("the timetable did not start: {0}")]
    Schedule(#[from] schedule::StartError),
    #[error("cannot listen on {0}: {1}")]
    Listen(String, #[source] io::Error),
}

/// A server that answers.
pub struct Running {
    pub addr: SocketAddr,
    pub engine: Engine,
    server: ServerHandle,
    serving: JoinHandle<io::Result<()>>,
    feed: Feed,
    store: Option<embedded_s3::Server>,
    schedule: Schedule,
    workers: Option<Workers>,
    grace: Duration,
}

/// The task that puts events in order and tells live readers.
struct Feed {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Feed {
    async fn start(engine: &Engine) -> Result<Self, Error> {
        event::begin(engine).await.map_err(Error::Feed)?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(event::run(engine.clone(), stop.clone()));
        Ok(Self { stop, task })
    }

    /// Ends all streams and long polls too, so that nobody waits for them.
    async fn stop(self) {
        self.stop.cancel();
        if let Err(panic) = self.task.await {
            tracing::error!(error = %panic, "the feed of events ended badly");
        }
    }
}

/// Starts everything: the embedded store where it is used, the database with its migrations, the timetable, the door, and
/// work in the background.
///
/// # Errors
/// See [`Error`]. What had started is stopped again.
pub async fn start(mut settings: Settings, clock: Clock) -> Result<Running, Error> {
    let dir = prepare(&mut settings)?;
    if let Some(dir) = &dir {
        dir.release_reserve();
    }
    let store = match &dir {
        Some(dir) if settings.storage.bucket.is_none() => Some(start_store(&mut settings, dir).await?),
        _ => None,
    };
    let grace = Duration::from_secs(settings.server.shutdown_grace_secs);
    let own_addr = store.as_ref().map(embedded_s3::Server::own_addr);
    let engine = connect(settings, dir.as_ref(), own_addr, clock).await?;
    if store.is_some() {
        prepare_bucket(&engine, engine.storage.bucket()).await?;
        for bucket in tenant::buckets(&engine).await.map_err(Error::Buckets)? {
            prepare_bucket(&engine, &bucket).await?;
        }
    }
    if let Some(dir) = &dir {
        dir.keep_reserve();
    }
    deployment::mark(&engine).await;
    let schedule = schedule::start(&engine).await?;
    let feed = Feed::start(&engine).await?;
    let (addr, serving, server) = match http::serve(&engine).await {
        Ok(serving) => serving,
        Err(error) => {
            schedule.stop().await;
            feed.stop().await;
            return Err(error);
        }
    };
    let workers = engine.settings.jobs.enabled.then(|| jobs::start(&engine));
    Ok(Running { addr, engine, server, serving, feed, store, schedule, workers, grace })
}

/// Makes a bucket of the embedded store ready for browsers: it is there, and the pages of `cors.allowed_origins` may send
/// to it. A bucket of any other store is its owner's to set up.
///
/// # Errors
/// The store does not answer.
pub async fn prepare_bucket(engine: &Engine, bucket: &str) -> Result<(), Error> {
    make_ready(engine, bucket).await.map_err(Error::Bucket)
}

/// Makes the bucket of one tenant ready where the store is embedded; any other store's buckets are their owner's.
///
/// # Errors
/// The store's; the next start of the server does it too.
pub async fn prepare_own_bucket(engine: &Engine, bucket: &str) -> Result<(), crate::storage::Error> {
    if engine.settings.storage.bucket.is_some() {
        return Ok(());
    }
    make_ready(engine, bucket).await
}

async fn make_ready(engine: &Engine, bucket: &str) -> Result<(), crate::storage::Error> {
    engine.storage.create_bucket(bucket).await?;
    engine.storage.set_cors(bucket, &engine.settings.cors.allowed_origins).await
}

/// Opens database and store without serving, as the commands do that work beside a running server.
///
/// # Errors
/// See [`Error`].
pub async fn open(mut settings: Settings) -> Result<Engine, Error> {
    let dir = prepare(&mut settings)?;
    connect(settings, dir.as_ref(), None, Clock::default()).await
}

/// The keys of this deployment's record, from its settings or its data folder; opens nothing else.
///
/// # Errors
/// [`Error::DataDir`].
pub fn keys(mut settings: Settings) -> Result<Keys, Error> {
    prepare(&mut settings)?;
    Ok(Keys::new(settings.audit.key.as_ref().map(Secret::expose).unwrap_or_default()))
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

    /// Stops accepting, lets requests and jobs that run finish within `server.shutdown_grace_secs`, then closes the store
    /// and the database.
    pub async fn stop(self) {
        self.feed.stop().await;
        self.schedule.stop().await;
        let requests = async {
            if tokio::time::timeout(self.grace, self.server.stop(true)).await.is_err() {
                self.server.stop(false).await;
            }
        };
        let jobs = async {
            if let Some(workers) = self.workers {
                workers.stop(self.grace).await;
            }
        };
        join(requests, jobs).await;
        if let Some(store) = self.store {
            store.shutdown(self.grace).await;
        }
        if let Err(error) = self.engine.db.close().await {
            tracing::warn!(%error, "the database was not closed cleanly");
        }
    }
}

/// Fills in what the embedded default makes by itself, from the data folder; `None` where nothing is embedded.
fn prepare(settings: &mut Settings) -> Result<Option<DataDir>, Error> {
    if settings.database.url.is_some() && settings.storage.bucket.is_some() {
        return Ok(None);
    }
    let dir = DataDir::open(&settings.embedded.data_dir).map_err(Error::DataDir)?;
    if !settings.auth.has_key() {
        let secret = dir.secret("jwt-secret", || random_hex(32)).map_err(Error::DataDir)?;
        settings.auth.jwt_secret = Some(Secret::new(secret));
    }
    if settings.audit.key.is_none() {
        let key = dir.secret("audit-key", || random_hex(32)).map_err(Error::DataDir)?;
        settings.audit.key = Some(Secret::new(key));
    }
    if settings.storage.bucket.is_none() {
        point_at_embedded_store(settings, &dir)?;
    }
    Ok(Some(dir))
}

fn point_at_embedded_store(settings: &mut Settings, dir: &DataDir) -> Result<(), Error> {
    let embedded = &mut settings.embedded;
    let (id, secret) = match (&embedded.access_key_id, &embedded.secret_access_key) {
        (Some(id), Some(secret)) => (id.clone(), secret.clone()),
        _ => (
            dir.secret("store-access-key-id", || format!("QM{}", random_hex(9).to_uppercase()))
                .map_err(Error::DataDir)?,
            Secret::new(dir.secret("store-secret-access-key", || random_hex(32)).map_err(Error::DataDir)?),
        ),
    };
    embedded.access_key_id = Some(id);
    embedded.secret_access_key = Some(secret);
    Ok(())
}

async fn start_store(settings: &mut Settings, dir: &DataDir) -> Result<embedded_s3::Server, Error> {
    let embedded = &settings.embedded;
    let listen = resolve(&embedded.host, embedded.port).await?;
    let server = embedded_s3::start(embedded_s3::Config {
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
    })
    .await?;
    // Port 0 took a free one.
    settings.embedded.port = server.addr().port();
    Ok(server)
}

/// `own_addr` is where the embedded store of this process listens for it; a command asks the one of the server.
async fn connect(
    settings: Settings,
    dir: Option<&DataDir>,
    own_addr: Option<SocketAddr>,
    clock: Clock,
) -> Result<Engine, Error> {
    let file = dir.map(DataDir::database_file);
    let db = Database::connect(&settings.database, file.as_deref()).await.map_err(Error::Database)?;
    db.migrate().await.map_err(Error::Migration)?;
    let storage = Storage::connect(&store_settings(&settings, own_addr)).await?;
    Ok(Engine::new(db, storage, clock, Arc::new(settings)))
}

/// The settings of the store in use: the outside one's, or those of the one in this process, which is reached like any.
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

/// The URL under which this machine itself reaches what listens on `host` and `port`.
pub(crate) fn http_url(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => format!("http://{}:{port}", Ipv4Addr::LOCALHOST),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => format!("http://[{}]:{port}", Ipv6Addr::LOCALHOST),
        Ok(IpAddr::V6(ip)) => format!("http://[{ip}]:{port}"),
        _ => format!("http://{host}:{port}"),
    }
}

pub(crate) async fn resolve(host: &str, port: u16) -> Result<SocketAddr, Error> {
    let failed = |error| Error::Listen(format!("{host}:{port}"), error);
    let found = tokio::net::lookup_host((host, port)).await.map_err(failed)?.next();
    found.ok_or_else(|| failed(io::Error::other("the name has no address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_where_this_machine_reaches_itself() {
        for (host, url) in [
            ("127.0.0.1", "http://127.0.0.1:80"),
            ("0.0.0.0", "http://127.0.0.1:80"),
            ("::", "http://[::1]:80"),
            ("::1", "http://[::1]:80"),
            ("fd00::7", "http://[fd00::7]:80"),
            ("store.internal", "http://store.internal:80"),
        ] {
            assert_eq!(http_url(host, 80), url);
        }
    }
}
