//! The idle connections of one pool.
//!
//! sqlx has a pool too, but it pings each connection that comes back: one more round trip for each statement, as long as a
//! small statement itself. Here the caller gives a connection back at once, because it knows that everything begun on the
//! connection has ended. The connection is pinged only after it was idle.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::super::TEST_AFTER_IDLE;
use super::{PING, prepare};

/// Age after which a connection is replaced: the state that the server keeps for it only grows.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// A connection that was not needed for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);
/// Pause between two attempts to connect to a server that is starting; doubled with each, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long to wait for all connections to be given back after the last request.
const CLOSE: Duration = Duration::from_secs(5);

/// Up to `most` connections at a time, each made when it is needed.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) options: PgConnectOptions,
    /// The statements that set up each connection.
    pub(super) session: String,
    most: u32,
    places: Arc<Semaphore>,
    /// The connection that came back last is used next. `None` once the pool is closed.
    idle: Mutex<Option<VecDeque<Idle>>>,
    /// How long to wait for a place and a connection that answers.
    pub(super) wait: Duration,
    /// The runtime on which connections are made: its threads receive their data, however busy the calling threads are.
    pub(super) home: Handle,
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    opened: Instant,
    since: Instant,
}

/// A connection and its place in the pool. If it is dropped, it is closed at once.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) connection: PgConnection,
    opened: Instant,
    place: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, session: String, most: u32, wait: Duration) -> Self {
        Self {
            options,
            session,
            most,
            places: Arc::new(Semaphore::new(most as usize)),
            idle: Mutex::new(Some(VecDeque::new())),
            wait,
            home: Handle::current(),
        }
    }

    /// # Errors
    /// There was no connection in time, the server refuses, or the pool is closed.
    pub(super) async fn take(&self) -> Result<Held, DbErr> {
        timeout(self.wait, self.next()).await.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))?
    }

    async fn next(&self) -> Result<Held, DbErr> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        let idle = self.idle().as_mut().ok_or_else(closed)?.pop_back();
        if let Some(Idle { mut connection, opened, since }) = idle
            && (since.elapsed() < TEST_AFTER_IDLE || matches!(timeout(PING, connection.ping()).await, Ok(Ok(()))))
        {
            return Ok(Held { connection, opened, place });
        }
        let opening = AbortOnDropHandle::new(self.home.spawn(open(self.options.clone(), self.session.clone())));
        // Without a panic, the task ends early only with the process's own runtime.
        let opened = opening.await.map_err(|ended| match ended.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => closed(),
        })?;
        let connection = opened.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())))?;
        Ok(Held { connection, opened: Instant::now(), place })
    }

    /// Takes a connection back, on which nothing may be under way and no transaction may be open.
    pub(super) fn give_back(&self, held: Held) {
        let Held { connection, opened, place } = held;
        let mut idle = self.idle();
        let Some(kept) = idle.as_mut().filter(|_| opened.elapsed() < LIFETIME) else {
            self.end(connection, Some(place));
            return;
        };
        let now = Instant::now();
        if let Some(needless) = kept.pop_front_if(|first| now.duration_since(first.since) > IDLE_MAX) {
            self.end(needless.connection, None);
        }
        kept.push_back(Idle { connection, opened, since: now });
        // In this order: the next holder of the place must find the connection.
        drop(idle);
        drop(place);
    }

    /// Waits for connections in use, for at most 5 s: those not given back by then are left to the operating system.
    pub(super) async fn close(&self) {
        let idle = self.idle().take().unwrap_or_default();
        let closed = timeout(CLOSE, async {
            for Idle { connection, .. } in idle {
                goodbye(connection).await;
            }
            self.places.acquire_many(self.most).await.map(drop)
        });
        if closed.await.is_err() {
            debug!("a connection to the database was still in use at the end");
        }
        self.places.close();
    }

    fn end(&self, connection: PgConnection, place: Option<OwnedSemaphorePermit>) {
        drop(self.home.spawn(async move {
            goodbye(connection).await;
            drop(place);
        }));
    }

    fn idle(&self) -> MutexGuard<'_, Option<VecDeque<Idle>>> {
        // Nothing panics while the lock is held, and each change is complete.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects, and retries while the server may be starting.
async fn open(options: PgConnectOptions, session: String) -> Result<PgConnection, sqlx::Error> {
    let pauses = ExponentialBuilder::default().with_min_delay(PAUSE).with_max_delay(PAUSE_MAX).without_max_times();
    let mut connection = (|| options.connect()).retry(pauses).when(may_be_starting).await?;
    prepare(&mut connection, &session).await?;
    Ok(connection)
}

fn may_be_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        // PostgreSQL, appendix A: too_many_connections, until the server has noticed that others are closed, and
        // cannot_connect_now.
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("53300" | "57P03")),
        _ => false,
    }
}

async fn goodbye(connection: PgConnection) {
    // The server closes it in any case.
    drop(timeout(PING, connection.close()).await);
}

fn closed() -> DbErr {
    DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)
}
