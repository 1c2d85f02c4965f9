use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::rows;
use crate::database::is_damaged;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::storage;

/// How long a result is reused for all callers: health checks need no token.
const KEPT: Duration = Duration::from_secs(3);
/// How long the database may take for its write. On SQLite the write waits its turn among those of the requests.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether database and store do what a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub database: Health,
    pub store: Health,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Well,
    /// No answer, no write or no space. This may pass.
    Unavailable,
    /// The check meets a damaged place in the database's own files. This does not pass.
    Damaged,
}

impl Readiness {
    pub fn is_ready(self) -> bool {
        self.database == Health::Well && self.store == Health::Well
    }
}

/// The last result and its time. At most one check runs at a time.
#[derive(Debug, Default)]
pub struct ReadinessCache(Mutex<Option<(Instant, Readiness)>>);

/// Tries what a request needs: a write to the database, and a write to the embedded store. Any other store, where a write
/// may cost money, must only answer. Takes about three seconds at most; the result may be as old.
pub async fn ready(engine: &Engine, cache: &ReadinessCache) -> Readiness {
    let mut last = cache.0.lock().await;
    if let Some((_, found)) = last.filter(|(at, _)| at.elapsed() < KEPT) {
        return found;
    }
    let (database, store) = tokio::join!(database(engine), store(engine));
    if let Err(Error::Db(cause)) = &database {
        engine.db.note_damage(cause, engine.clock.now());
    }
    let found = Readiness { database: database_health(&database), store: health(&store) };
    let before = last.map(|(_, found)| found);
    // The start and the end of an outage are logged once each.
    if before.unwrap_or(found) != found || (before.is_none() && !found.is_ready()) {
        match (&database, &store) {
            (Ok(()), Ok(())) => info!("the database and the store are ready again"),
            (Err(error), _) => warn!(%error, "the database is not ready"),
            (Ok(()), Err(error)) => warn!(%error, "the store is not ready"),
        }
    }
    *last = Some((Instant::now(), found));
    found
}

async fn database(engine: &Engine) -> Result<()> {
    let look = async {
        // Creates the row on the first call; the write updates it.
        super::id(engine).await?;
        rows::try_write(&engine.db, engine.clock.now()).await
    };
    match timeout(DATABASE_TIMEOUT, look).await {
        Ok(done) => done,
        Err(_) => Err(Error::silent_database()),
    }
}

async fn store(engine: &Engine) -> Result<(), storage::Error> {
    let bucket = engine.storage.bucket();
    if engine.settings.storage.bucket.is_some() {
        return engine.storage.ready(bucket).await;
    }
    engine.storage.try_write(bucket).await
}

/// Judged by this check alone: a damaged page that one tenant's request has met must not take the server away from all
/// others.
fn database_health(found: &Result<()>) -> Health {
    match found {
        Err(Error::Db(cause)) if is_damaged(cause) => Health::Damaged,
        _ => health(found),
    }
}

fn health<E>(found: &Result<(), E>) -> Health {
    if found.is_ok() { Health::Well } else { Health::Unavailable }
}
