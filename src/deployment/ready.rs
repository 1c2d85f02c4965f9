use std::sync::OnceLock;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::rows;
use crate::database::{DbErr, is_damaged};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::storage;

/// What was found is not looked for again for so long, whoever asks: health checks need no token.
const KEPT: Duration = Duration::from_secs(3);
/// How long the database may take for its write. A writer of SQLite waits its turn among those of the requests.
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
    /// No answer, no write, no space: it may pass.
    Unavailable,
    /// What is tried meets a damaged place in the database's own files. It does not pass.
    Damaged,
}

impl Readiness {
    pub fn is_ready(self) -> bool {
        self.database == Health::Well && self.store == Health::Well
    }
}

/// What was found last, and when; at most one look at a time.
#[derive(Debug, Default)]
pub struct LastLook {
    found: Mutex<Option<(Instant, Readiness)>>,
    damage: OnceLock<Damage>,
}

/// The database's own files are damaged: somebody has met a place in them that cannot be read. Remembered until a restart.
#[derive(Clone, Debug)]
pub struct Damage {
    pub since: DateTime<Utc>,
    pub cause: String,
}

impl LastLook {
    /// What is known of the damage of the database's file; `None` where nobody has met any since this process began.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.get()
    }
}

/// Remembers an error that only a damaged file gives, for operators to find; any other is none of its business.
pub fn heed(engine: &Engine, cause: &DbErr) {
    if is_damaged(cause) {
        engine.looked.damage.get_or_init(|| {
            error!(error = %cause, "the database is damaged: stop the server, and restore it from a backup");
            Damage { since: engine.clock.now(), cause: cause.to_string() }
        });
    }
}

/// Tries what a request needs: a write in the database, and one in the embedded store; of any other store, where a write
/// may cost, an answer. Within about three seconds; an answer may be as old.
pub async fn ready(engine: &Engine) -> Readiness {
    let mut last = engine.looked.found.lock().await;
    if let Some((_, found)) = last.filter(|(at, _)| at.elapsed() < KEPT) {
        return found;
    }
    let (database, store) = tokio::join!(database(engine), store(engine));
    if let Err(Error::Db(cause)) = &database {
        heed(engine, cause);
    }
    let found = Readiness { database: database_health(&database), store: health(&store) };
    let before = last.map(|(_, found)| found);
    // An outage is told once, and its end.
    if before.unwrap_or(found) != found || (before.is_none() && !found.is_ready()) {
        match (&database, &store) {
            (Ok(()), Ok(())) => info!("database and store do what a request needs again"),
            (Err(error), _) => warn!(%error, "the database does not do what a request needs"),
            (Ok(()), Err(error)) => warn!(%error, "the store does not do what a request needs"),
        }
    }
    *last = Some((Instant::now(), found));
    found
}

async fn database(engine: &Engine) -> Result<()> {
    let look = async {
        // The row is there from the first time on that somebody asks for it.
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

/// By the probe alone: a damaged page that one tenant's request has met must not take the server from all the others.
fn database_health(found: &Result<()>) -> Health {
    match found {
        Err(Error::Db(cause)) if is_damaged(cause) => Health::Damaged,
        _ => health(found),
    }
}

fn health<E>(found: &Result<(), E>) -> Health {
    if found.is_ok() { Health::Well } else { Health::Unavailable }
}
