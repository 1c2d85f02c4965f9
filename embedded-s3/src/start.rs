//! Start and stop.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::Config;
use crate::auth::{Key, SignedOnly};
use crate::blob::{Blobs, sync_dir};
use crate::cors::Cors;
use crate::places::Places;
use crate::range;
use crate::rows::{self, OpenError, Rows, now_ms};
use crate::serve::{Service, Tasks, XML_MAX_BYTES, accept};
use crate::store::Store;

/// Why the store did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Config(String),
    #[error("another process uses the store in {}", .0.display())]
    InUse(PathBuf),
    #[error("cannot use {}", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    #[error("{} holds blobs, but metadata.db, which describes them, is missing or empty; restore metadata.db, or move the blobs away", .0.display())]
    MetadataLost(PathBuf),
    #[error("cannot open the metadata: {0}")]
    Metadata(String),
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        Self::Metadata(error.to_string())
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Metadata(error.to_string())
    }
}

/// A running endpoint. Dropping it stops accepting connections and leaves the open ones to the runtime;
/// [`Server::shutdown`] waits for them.
pub struct Server {
    addr: SocketAddr,
    own_addr: SocketAddr,
    stop: DropGuard,
    kill: CancellationToken,
    running: TaskTracker,
    store: Store,
}

/// Opens the store, removes the blobs that a process left behind when it died, and listens.
///
/// # Errors
/// A folder that is in use, unreadable, or has lost its metadata; a port that is taken; an empty root or key, or an
/// invalid bucket name.
pub async fn start(config: Config) -> Result<Server, Error> {
    for (name, value) in [("access_key_id", &config.access_key_id), ("secret_access_key", &config.secret_access_key)] {
        if value.is_empty() {
            return Err(Error::Config(format!("{name} of the embedded store must not be empty")));
        }
    }
    if let Some(name) = config.buckets.iter().find(|name| !s3s::path::check_bucket_name(name)) {
        return Err(Error::Config(format!("{name:?} is not a valid S3 bucket name")));
    }
    let root = config.root.clone();
    let Folder { lock, blobs, has_blobs, has_metadata } = spawn_blocking(move || open_folder(&root))
        .await
        .map_err(|error| Error::Folder(config.root.clone(), io::Error::other(error)))??;
    let blobs = Arc::new(blobs);
    let rows = Rows::open(&config.root.join("metadata.db"), !has_blobs).await.map_err(|error| match error {
        OpenError::Lost => Error::MetadataLost(config.root.clone()),
        error => error.into(),
    })?;
    sync_dir(&config.root).map_err(|error| Error::Folder(config.root.clone(), error))?;
    if has_metadata {
        sweep(&rows, &blobs).await.map_err(|error| match error {
            SweepError::Sql(error) => error.into(),
            SweepError::Io(error) => Error::Folder(config.root.join("blobs"), error),
        })?;
    }
    let cors = Cors::default();
    let mut tx = rows.write().await?;
    for name in &config.buckets {
        rows::bucket::insert(&mut tx, name, now_ms()).await?;
    }
    for bucket in rows::bucket::all(&mut tx).await? {
        cors.set(&bucket.name, bucket.cors);
    }
    tx.commit().await?;

    let failed = |error| Error::Listen(config.listen, error);
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let loopback: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    let failed = |error| Error::Listen(loopback[0], error);
    let own_listener = TcpListener::bind(&loopback[..]).await.map_err(failed)?;
    let own_addr = own_listener.local_addr().map_err(failed)?;
    let store = Store::new(lock, rows, blobs, cors, config.region);
    let mut builder = S3ServiceBuilder::new(store.clone());
    let mut s3_config = S3Config::default();
    s3_config.xml_max_body_size = XML_MAX_BYTES;
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(s3_config))));
    builder.set_route(range::Unread { unsigned: S3ServiceBuilder::new(store.clone()).build() });
    builder.set_auth(Key { id: config.access_key_id, secret: config.secret_access_key.into() });
    builder.set_access(SignedOnly);
    let limits = config.limits;
    let service = Arc::new(Service { s3: builder.build(), store: store.clone(), limits });
    let tasks = Tasks::new();
    let places = Places::new(limits.connections_max, limits.connections_per_peer_max);
    tasks.running.spawn(accept(listener, places, Arc::clone(&service), tasks.clone()));
    let own_places = Places::new(limits.connections_max, limits.connections_max);
    tasks.running.spawn(accept(own_listener, own_places, service, tasks.clone()));
    tracing::info!(%addr, root = %config.root.display(), "the embedded store is listening");
    let Tasks { stop, kill, running, .. } = tasks;
    Ok(Server { addr, own_addr, stop: stop.drop_guard(), kill, running, store })
}

impl Server {
    /// Returns the address that the store listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the address for the process around the store: a free port of the loopback interface. It has as many places
    /// as [`Self::addr`] and no limit per peer. Clients of [`Self::addr`] do not take its places.
    pub fn own_addr(&self) -> SocketAddr {
        self.own_addr
    }

    /// Stops accepting, waits up to `grace` for running requests, cuts the remaining connections, and closes the store.
    /// Waits for commits in progress even after `grace`.
    pub async fn shutdown(self, grace: Duration) {
        drop(self.stop);
        self.running.close();
        if timeout(grace, self.running.wait()).await.is_err() {
            tracing::warn!(connections = self.running.len(), "cutting connections that did not finish in time");
            self.kill.cancel();
            self.running.wait().await;
        }
        self.store.close().await;
        tracing::info!(addr = %self.addr, "the embedded store has stopped");
    }
}

/// A store's folder, in the state in which it was found.
struct Folder {
    lock: File,
    blobs: Blobs,
    has_blobs: bool,
    /// Whether `metadata.db` exists and is not empty.
    has_metadata: bool,
}

/// Blocks.
fn open_folder(root: &Path) -> Result<Folder, Error> {
    let trouble = |error| Error::Folder(root.to_owned(), error);
    if root.as_os_str().is_empty() {
        return Err(Error::Config("the root of the embedded store must not be empty".to_owned()));
    }
    make_private(root).map_err(trouble)?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(root.join("lock")).map_err(trouble)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::InUse(root.to_owned())),
        Err(TryLockError::Error(error)) => return Err(trouble(error)),
    }
    let blobs = Blobs::open(root.join("blobs")).map_err(trouble)?;
    let has_blobs = !blobs.is_empty().map_err(trouble)?;
    let has_metadata = has_bytes(&root.join("metadata.db")).map_err(trouble)?;
    // Before SQLite opens it: beside an empty file it would delete the WAL, which may be all that is left.
    if has_blobs && !has_metadata {
        return Err(Error::MetadataLost(root.to_owned()));
    }
    Ok(Folder { lock, blobs, has_blobs, has_metadata })
}

fn has_bytes(file: &Path) -> io::Result<bool> {
    match fs::metadata(file) {
        Ok(metadata) => Ok(metadata.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Creates missing folders durably: a power cut must not remove a folder together with its contents.
fn make_private(root: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = root.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(root)?;
    for dir in missing {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How many names of blobs are compared at a time, plus at most those of one folder. Each takes about 30 bytes.
const SWEPT_AT_ONCE: u32 = 50_000;

/// Removes blobs that no row names. A process leaves them if it dies between writing a blob and the commit, or between the
/// commit and the unlink. A row without its blob is damage from outside; it is logged, not repaired.
async fn sweep(rows: &Rows, blobs: &Arc<Blobs>) -> Result<(), SweepError> {
    let (mut removed, mut missing, mut next) = (0, 0, Some(0));
    while let Some(first) = next {
        let (named, last) = rows::sweep::named(&mut *rows.read().await?, first, SWEPT_AT_ONCE).await?;
        let blobs = Arc::clone(blobs);
        let (litter, lost) = spawn_blocking(move || {
            let (mut removed, mut kept) = (0, 0);
            for shard in first..=last {
                let found = blobs.list(shard)?;
                let litter: Vec<_> = found.iter().copied().filter(|blob| !named.contains(blob)).collect();
                blobs.discard(&litter);
                removed += litter.len();
                kept += found.len() - litter.len();
            }
            io::Result::Ok((removed, named.len() - kept))
        })
        .await
        .map_err(io::Error::other)??;
        removed += litter;
        missing += lost;
        next = last.checked_add(1);
    }
    if removed > 0 {
        tracing::info!(removed, "removed blobs that no object and no part refers to");
    }
    if missing > 0 {
        tracing::error!(missing, "blobs of objects or parts are missing; reading these will fail");
    }
    Ok(())
}
