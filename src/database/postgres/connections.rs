//! The connections of one pool that nobody works on.
//!
//! sqlx has a pool too, but that pings each connection that comes back: one more round trip for each statement, as long
//! as the statement itself where that is small. Here a connection goes back at once, by whoever knows that all which was
//! begun on it has come to its end, and is asked only after it has lain idle.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::super::TEST_AFTER_IDLE;
use super::{PING, prepare};

/// After so long a connection is replaced: what the server keeps for it only grows.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// One that was not needed for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);
/// Between two tries to connect to a server that is starting; doubled with each.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// For all connections to be given back, after the last request.
const CLOSE: Duration = Duration::from_secs(5);

/// At most so many at a time; connects when one is needed.
#[derive(Debug)]
pub(super) struct Connections {
    options: PgConnectOptions,
    /// What is set on each.
    session: String,
    most: u32,
    places: Arc<Semaphore>,
    /// The one that came back last is the next to be used. `None` once they are closed.
    idle: Mutex<Option<VecDeque<Idle>>>,
    /// For a place and a connection that answers.
    wait: Duration,
    /// Where connections are made: its threads hear what comes on them, however busy those are that asked.
    home: Handle,
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    opened: Instant,
    since: Instant,
}

/// A connection and its place among those that there may be. Dropped, it is closed at once.
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

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    pub(super) fn session(&self) -> &str {
        &self.session
    }

    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    pub(super) fn home(&self) -> &Handle {
        &self.home
    }

    /// # Errors
    /// There was none in time, the server refuses, or the connections are closed.
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
        // Without a panic it ends early only with the process's own runtime.
        let opened = opening.await.map_err(|ended| match ended.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => closed(),
        })?;
        let connection = opened.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())))?;
        Ok(Held { connection, opened: Instant::now(), place })
    }

    /// For one on which nothing is under way and no transaction open.
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
        // Whoever has the place next finds the connection.
        drop(idle);
        drop(place);
    }

    /// Waits for those that are in use, but not for long: what is not given back by then is left to the system.
    pub(super) async fn close(&self) {
        let idle = self.idle().take().unwrap_or_default();
        let closed = timeout(CLOSE, async {
            for Idle { connection, .. } in idle {
                goodbye(connection).await;
            }
            self.places.acquire_many(self.most).await.map(drop)
        });
        if closed.await.is_err() {
            debug!("a connection to the database was not given back before the end");
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
        // Nothing panics while it is held, and each change is whole.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects, once there is somebody who may yet be starting.
async fn open(options: PgConnectOptions, session: String) -> Result<PgConnection, sqlx::Error> {
    let mut pause = PAUSE;
    loop {
        match options.connect().await {
            Ok(mut connection) => {
                prepare(&mut connection, &session).await?;
                return Ok(connection);
            }
            Err(error) if may_be_starting(&error) => {}
            Err(error) => return Err(error),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn may_be_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        // PostgreSQL, appendix A: too_many_connections, as long as it has not noticed that others are closed, and
        // cannot_connect_now.
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("53300" | "57P03")),
        _ => false,
    }
}

async fn goodbye(connection: PgConnection) {
    // The server ends it in any case.
    drop(timeout(PING, connection.close()).await);
}

fn closed() -> DbErr {
    DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)
}
