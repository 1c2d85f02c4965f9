//! All connections and transactions, on SQLite and on PostgreSQL.

mod conn;
mod postgres;

use std::collections::HashSet;
use std::hash::Hash;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use conn::{Begun, Places, Pool};
pub use conn::{Conn, InTransaction};
use embedded_s3::sqlite::{self, Trouble};
use entity::TenantId;
use futures_util::FutureExt;
use postgres::Planning;
pub use sea_orm::DbErr;
use sea_orm::sea_query::{Alias, Expr, InsertStatement, Query, SelectStatement, UnionType};
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DbBackend, EntityName as _, EntityTrait, Iterable as _, RuntimeErr, SqlErr,
    SqliteTransactionMode, SqlxSqliteConnector, Statement, TransactionOptions, TransactionTrait, TryGetable, Value,
};
use sqlx::postgres::PgListener;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Executor as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

use crate::error::{Error, Result};
use crate::settings;
use crate::turns::{ActiveTenants, FairQueue, PerParty};
use crate::yielding::Yielding;

/// Connections to a SQLite file for reads by key, and as many for searches. Readers do not wait for each other; more of
/// them would only cost memory.
const SQLITE_READERS: u32 = 3;

/// Steps of SQLite's virtual machine between two looks at the clock: some tens of microseconds.
const STEPS: i32 = 1_000;

/// How long a writer waits for earlier writers to one SQLite file.
const SQLITE_TURN: Duration = Duration::from_secs(30);

/// Rows that one transaction of a batch handles: many cost little more than one.
const AT_ONCE: usize = 32;
/// The same while other tenants are active, which wait for the transaction.
const AT_ONCE_BESIDE_OTHERS: usize = 4;

/// Maximum rest between two transactions of a batch: a transaction that took longer was waiting, not working.
const REST_MAX: Duration = Duration::from_millis(20);

/// A connection is tested before its use only if it was idle for this long: a test costs as much as a small statement, and
/// each statement would need one. A shorter outage may cost each pooled connection one request, which is told to retry.
const TEST_AFTER_IDLE: Duration = Duration::from_millis(500);

/// Pools of connections, kept apart so that large reads do not keep writers waiting. In each of them tenants take turns
/// ([`Conn::of`]).
#[derive(Clone, Debug)]
pub struct Database {
    reads: Conn,
    lookups: Conn,
    searches: Conn,
    counts: Conn,
    /// On SQLite one connection, because SQLite has one writer at a time. Waiting for the connection is fair and wakes at
    /// once, whereas SQLite's busy handler sleeps and retries; that handler is left for other processes on the same file.
    writes: Conn,
    active: ActiveTenants,
    notifier: Arc<CommitNotifier>,
    damage: Arc<OnceLock<Damage>>,
}

/// A write transaction. Dropped without [`Tx::commit`], it is rolled back.
#[derive(Debug)]
pub struct Tx {
    tx: InTransaction,
    places: Places,
    /// Notified after the commit.
    bell: OnceLock<Arc<Notify>>,
    /// The channel on which other processes are notified after the commit.
    channel: OnceLock<&'static str>,
    database: Database,
}

/// Damage to the database's own files: a statement has met a place in them that cannot be read. Remembered until a restart.
#[derive(Clone, Debug)]
pub struct Damage {
    pub since: DateTime<Utc>,
    pub cause: String,
}

/// Passes commits that must be announced to other processes on to this process's follower.
#[derive(Debug, Default)]
struct CommitNotifier {
    bell: Notify,
    is_followed: AtomicBool,
}

/// Learns of this process's commits, and must announce them to other processes, until it is dropped. See
/// [`Database::follow`].
#[derive(Debug)]
pub struct Follower(Arc<CommitNotifier>);

/// The notifications of other processes on a PostgreSQL channel. Only a hint: what is sent while the connection is down is
/// lost.
#[derive(Debug)]
pub struct Listener(PgListener);

/// A transaction whose reads all see one moment.
#[derive(Debug)]
pub struct Snapshot(InTransaction, #[allow(dead_code, reason = "held until it is dropped")] Places);

impl Snapshot {
    pub fn conn(&self) -> &InTransaction {
        &self.0
    }
}

impl Database {
    /// Opens the pools; applies no migration.
    ///
    /// # Errors
    /// There is neither a URL nor a file; the URL is invalid; no connection was made within `connect_timeout_secs`.
    pub async fn connect(settings: &settings::Database, file: Option<&Path>) -> Result<Self, DbErr> {
        let acquire = Duration::from_secs(settings.acquire_timeout_secs);
        let connect = Duration::from_secs(settings.connect_timeout_secs);
        let url = match (&settings.url, file) {
            (Some(url), _) => url.expose(),
            (None, Some(file)) => return Self::sqlite(SqliteConnectOptions::new().filename(file), acquire).await,
            (None, None) => return Err(DbErr::Custom("there is neither a database URL nor a data folder".to_owned())),
        };
        let server = postgres::Server::new(url, settings).map_err(start_error)?;
        // States, users and batches are skewed: a plan for any values reads a whole batch to find one of its files. Reads
        // by key are planned once: planning them each time takes as long as running them.
        let third = settings.max_connections / 3;
        let most = settings.max_connections - 2 * third;
        let (reads, searches) = (server.pool(third, Planning::Once), server.pool(third, Planning::Anew));
        let writes = server.pool(most, Planning::Once);
        timeout(connect, writes.connect())
            .await
            .map_err(|_| DbErr::Custom("the database did not answer in time".to_owned()))??;
        let [reads, searches, writes] = [reads, searches, writes].map(Pool::Postgres);
        Ok(Self::of_pools(
            ActiveTenants::default(),
            (reads, third),
            (searches, third),
            acquire,
            (writes, most),
            acquire,
        ))
    }

    async fn sqlite(options: SqliteConnectOptions, acquire: Duration) -> Result<Self, DbErr> {
        let options = options
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: an acknowledged commit survives a power cut, not only a crash of this process.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let pool =
            |most: u32, wait: Duration| tested(SqlitePoolOptions::new()).max_connections(most).acquire_timeout(wait);
        let writes = pool(1, SQLITE_TURN).connect_with(options.clone()).await.map_err(start_error)?;
        let reads = pool(SQLITE_READERS, acquire).connect_lazy_with(options.clone());
        let active = ActiveTenants::default();
        let searches = pool(SQLITE_READERS, acquire).after_connect({
            let active = active.clone();
            move |connection, _| {
                let mut yielding = Yielding::new(&active);
                Box::pin(async move {
                    let goes_on = move || {
                        yielding.give_way();
                        true
                    };
                    connection.lock_handle().await?.set_progress_handler(STEPS, goes_on);
                    Ok(())
                })
            }
        });
        let searches = searches.connect_lazy_with(options);
        let [reads, searches, writes] =
            [reads, searches, writes].map(SqlxSqliteConnector::from_sqlx_sqlite_pool).map(Pool::Sqlite);
        let readers = SQLITE_READERS;
        Ok(Self::of_pools(active, (reads, readers), (searches, readers), acquire, (writes, 1), SQLITE_TURN))
    }

    /// Takes each pool with the number of its connections, and how long a reader and a writer wait for their turns.
    fn of_pools(
        active: ActiveTenants,
        (reads, most_reads): (Pool, u32),
        (searches, most_searches): (Pool, u32),
        reader_waits: Duration,
        (writes, most_writes): (Pool, u32),
        writer_waits: Duration,
    ) -> Self {
        let [reading, searching, writing] = [most_reads, most_searches, most_writes].map(|most| most as usize);
        // A read by key is short, and the next one has its turn soon. A search may take long: no tenant has all connections
        // for itself, and counts, which take longest, leave one to the searches.
        let turns = |places, alone, beside, wait| FairQueue::new(places, PerParty { alone, beside }, &active, wait);
        let reads = Conn::new(reads, turns(reading, reading, reading / 2, reader_waits));
        let planned_anew = Conn::new(searches, turns(searching, searching, searching, reader_waits));
        let (lookups, searching) = match planned_anew.pool() {
            Pool::Sqlite(_) => (reads.clone(), searching),
            // All searches together leave a connection to the lookups.
            Pool::Postgres(_) => (planned_anew.clone(), (searching - 1).max(1)),
        };
        let searches = planned_anew.behind(turns(searching, searching - 1, searching / 2, reader_waits));
        let counting = (searching - 1).max(1);
        Self {
            reads,
            lookups,
            counts: searches.behind(turns(counting, counting / 2, 1, reader_waits)),
            searches,
            // A writer that waits for locks or for a processor holds its connection for longer than its statements take.
            writes: Conn::new(writes, turns(writing, writing - writing / 4, writing / 2, writer_waits)),
            active,
            notifier: Arc::default(),
            damage: Arc::default(),
        }
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// As [`migration::run`].
    pub async fn migrate(&self) -> Result<(), DbErr> {
        migration::run(&self.writes.bare()).await
    }

    /// Compares the schema with this program's; changes nothing.
    ///
    /// # Errors
    /// As [`migration::schema`].
    pub async fn schema(&self) -> Result<migration::Schema, DbErr> {
        migration::schema(&self.reads.bare()).await
    }

    /// Remembers an error that only a damaged file causes, for operators to find. Ignores all other errors.
    pub fn note_damage(&self, cause: &DbErr, now: DateTime<Utc>) {
        if is_damaged(cause) {
            self.damage.get_or_init(|| {
                error!(error = %cause, "the database is damaged: stop the server, and restore it from a backup");
                Damage { since: now, cause: cause.to_string() }
            });
        }
    }

    /// Returns the first damage that was met since this process started; `None` if there was none.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.get()
    }

    /// Returns which tenants of this process have used the database lately.
    pub(crate) fn active(&self) -> &ActiveTenants {
        &self.active
    }

    /// Returns how many files of a batch its next transaction should handle.
    pub(crate) fn at_once(&self, tenant: TenantId) -> usize {
        if self.active.is_beside(Some(tenant)) { AT_ONCE_BESIDE_OTHERS } else { AT_ONCE }
    }

    /// Rests between two transactions of a batch, for as long as the last one took but at most 20 ms, if other tenants are
    /// active. So a batch leaves them half of what it uses, and not only of the database: processors, disks, the store.
    pub(crate) async fn rest(&self, tenant: TenantId, took: Duration) {
        if self.active.is_beside(Some(tenant)) {
            sleep(took.min(REST_MAX)).await;
        }
    }

    /// For reads by a key.
    pub fn conn(&self) -> &Conn {
        &self.reads
    }

    /// For reads by a key for which a plan for any values is wrong: references, of which one batch has many. These never
    /// wait for searches.
    pub fn lookup_conn(&self) -> &Conn {
        &self.lookups
    }

    /// For all other reads, each planned for its own values. No tenant has all of these connections at a time if there are
    /// two or more.
    pub fn search_conn(&self) -> &Conn {
        &self.searches
    }

    /// For reads of as many rows as a tenant has: sums, and the events that a reader missed. They share the connections of
    /// the searches and leave one of them free; a tenant has at most half of the rest at a time.
    pub fn count_conn(&self) -> &Conn {
        &self.counts
    }

    /// For single statements that write, each in a transaction of its own; [`Database::begin`] and a commit would cost two
    /// more round trips.
    pub fn write_conn(&self) -> &Conn {
        &self.writes
    }

    /// Begins a write transaction of the server's own. On SQLite it is IMMEDIATE, because a deferred one that becomes a
    /// writer later fails under load instead of waiting.
    pub async fn begin(&self) -> Result<Tx> {
        self.begin_on(&self.writes).await
    }

    /// Begins a write transaction for a tenant, once it is the tenant's turn.
    pub async fn begin_for(&self, tenant: TenantId) -> Result<Tx> {
        self.begin_on(&self.writes.of(tenant)).await
    }

    async fn begin_on(&self, conn: &Conn) -> Result<Tx> {
        let places = conn.enter().await.map_err(db_error)?;
        let begun = match conn.pool() {
            Pool::Sqlite(pool) => {
                let mode = Some(SqliteTransactionMode::Immediate);
                let options = TransactionOptions { sqlite_transaction_mode: mode, ..TransactionOptions::default() };
                pool.begin_with_options(options).await.map(Begun::Sqlite)
            }
            Pool::Postgres(pool) => pool.begin().await.map(Begun::Postgres),
        };
        let tx = InTransaction(begun.map_err(db_error)?);
        Ok(Tx { tx, places, bell: OnceLock::new(), channel: OnceLock::new(), database: self.clone() })
    }

    /// Begins a transaction for reads only, each of which sees the database as it was at the first read. Waits for no
    /// writer and keeps none waiting. Ends when it is dropped.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let places = self.searches.enter().await.map_err(db_error)?;
        let begun = match self.searches.pool() {
            // A deferred transaction of SQLite is a snapshot by itself.
            Pool::Sqlite(pool) => pool.begin().await.map(Begun::Sqlite),
            Pool::Postgres(pool) => pool.snapshot().await.map(Begun::Postgres),
        };
        Ok(Snapshot(InTransaction(begun.map_err(db_error)?), places))
    }

    /// From here on the follower announces this process's commits to other processes, many at once: a NOTIFY in each
    /// transaction would make them commit one after the other. Without a follower, as in a command, each commit is
    /// announced by itself, after it. There may be only one follower at a time.
    pub fn follow(&self) -> Follower {
        self.notifier.is_followed.store(true, Ordering::SeqCst);
        Follower(Arc::clone(&self.notifier))
    }

    /// Notifies other processes that listen to this channel, in a transaction of its own. Does nothing on SQLite.
    pub async fn announce(&self, channel: &str) -> Result<()> {
        if self.writes.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        self.writes.execute_unprepared(&format!("NOTIFY {channel}")).await.map(drop).map_err(db_error)
    }

    /// Listens to other processes, on a connection outside of the pool; `None` on SQLite, which has no notifications.
    pub async fn listen(&self, channel: &str) -> Result<Option<Listener>> {
        let Pool::Postgres(pool) = self.writes.pool() else { return Ok(None) };
        let own = pool.for_listener();
        let mut listener = PgListener::connect_with(&own).await.map_err(listen_error)?;
        // The caller must learn that the connection broke, to look for what it missed.
        listener.eager_reconnect(false);
        let listening = timeout(own.options().get_acquire_timeout(), listener.listen(channel)).await;
        listening.unwrap_or_else(|_| Err(postgres::silence())).map_err(listen_error)?;
        Ok(Some(Listener(listener)))
    }

    /// Announces a commit to other processes. If that fails, the commit still stands: they find it at their next poll.
    pub(crate) async fn notify(&self, channel: &str) {
        if self.notifier.is_followed.load(Ordering::SeqCst) {
            self.notifier.bell.notify_one();
        } else if let Err(error) = self.announce(channel).await {
            debug!(%error, channel, "other processes were not notified of a commit");
        }
    }

    pub async fn close(self) -> Result<()> {
        for conn in [self.reads, self.searches, self.writes] {
            match conn.pool() {
                Pool::Sqlite(pool) => pool.close_by_ref().await.map_err(db_error)?,
                Pool::Postgres(pool) => pool.close().await,
            }
        }
        Ok(())
    }
}

impl Tx {
    pub fn conn(&self) -> &InTransaction {
        &self.tx
    }

    pub async fn commit(self) -> Result<()> {
        self.tx.commit().await.map_err(db_error)?;
        // The notification takes a turn of its own.
        drop(self.places);
        if let Some(bell) = self.bell.get() {
            bell.notify_one();
        }
        if let Some(channel) = self.channel.get() {
            self.database.notify(channel).await;
        }
        Ok(())
    }

    /// After the commit, notifies other processes that listen to the channel.
    pub fn notify_after(&self, channel: &'static str) {
        self.channel.get_or_init(|| channel);
    }

    /// After the commit, wakes a task that waits for this bell: before it, there is nothing for the task to see.
    pub fn wake_after(&self, bell: &Arc<Notify>) {
        self.bell.get_or_init(|| Arc::clone(bell));
    }

    /// Rolls back now; a transaction that is only dropped does so a moment later. Cannot fail: uncommitted changes are lost
    /// in any case, and a connection that does not confirm the rollback is closed instead of reused.
    pub async fn rollback(self) {
        if let Err(error) = self.tx.rollback().await {
            debug!(%error, "the rollback of a transaction failed; closing its connection");
        }
    }
}

impl Follower {
    /// Waits until something that must be announced to other processes has been committed since the last call. Several
    /// commits count as one.
    pub async fn committed(&self) {
        self.0.bell.notified().await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.is_followed.store(false, Ordering::SeqCst);
    }
}

impl Listener {
    /// Waits for a notification; all that have arrived by then count as one.
    ///
    /// # Errors
    /// The connection broke; listen anew.
    pub async fn heard(&mut self) -> Result<()> {
        self.word().await?;
        while let Some(word) = self.word().now_or_never() {
            word?;
        }
        Ok(())
    }

    async fn word(&mut self) -> Result<()> {
        match self.0.try_recv().await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(listen_error(sqlx::Error::WorkerCrashed)),
            Err(error) => Err(listen_error(error)),
        }
    }

    /// Tests whether the server still answers on this connection. A connection that was dropped on the way is as quiet as
    /// an idle one.
    ///
    /// # Errors
    /// There was no answer within `patience`; listen anew.
    pub async fn answers(&mut self, patience: Duration) -> Result<()> {
        let asked = timeout(patience, self.0.execute("SELECT 1")).await;
        asked.unwrap_or_else(|_| Err(postgres::silence())).map(drop).map_err(listen_error)
    }
}

fn listen_error(error: sqlx::Error) -> Error {
    Error::DbUnavailable(start_error(error))
}

/// Makes a pool hand out only connections that are outside of a transaction, and test those that were idle.
///
/// On a full disk and on an I/O error SQLite rolls back by itself, which sqlx's count of open transactions does not
/// notice: the ROLLBACK after it fails, and the next user would work inside a transaction that nobody commits.
fn tested(options: SqlitePoolOptions) -> SqlitePoolOptions {
    options.test_before_acquire(false).before_acquire(|connection, metadata| {
        Box::pin(async move {
            if connection.is_in_transaction() {
                warn!("closing a connection to the database whose transaction is in an unknown state");
                return Ok(false);
            }
            if metadata.idle_for >= TEST_AFTER_IDLE {
                connection.ping().await?;
            }
            Ok(true)
        })
    })
}

fn start_error(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)))
}

/// Returns a VALUES list for a statement, and appends its values to those already bound. PostgreSQL and SQLite name its
/// columns `column1`, `column2`.
///
/// Repeats the last row until the number of rows is a power of two, so that few different statements are prepared. A join
/// with the list must tolerate that.
pub(crate) fn values<const N: usize>(rows: impl IntoIterator<Item = [Value; N]>, bound: &mut Vec<Value>) -> String {
    let mut rows: Vec<_> = rows.into_iter().collect();
    if let Some(last) = rows.last().cloned() {
        rows.resize(rows.len().next_power_of_two(), last);
    }
    let mut list = "VALUES ".to_owned();
    for (number, row) in rows.into_iter().enumerate() {
        let places: Vec<_> = (1..=N).map(|place| format!("${}", bound.len() + place)).collect();
        list.push_str(if number > 0 { ", (" } else { "(" });
        list.push_str(&places.join(", "));
        list.push(')');
        bound.extend(row);
    }
    list
}

/// Takes a piece of up to `most` items from the front of a list. Its length is a power of two, so that few different
/// statements are prepared. `None` if nothing is left.
pub(crate) fn piece<T>(all: &mut Vec<T>, most: usize) -> Option<Vec<T>> {
    let log = all.len().min(most).checked_ilog2()?;
    let rest = all.split_off(1 << log);
    Some(std::mem::replace(all, rest))
}

/// Returns an INSERT that takes effect only if `when`, another part of the same statement, has a row; for PostgreSQL.
pub(crate) fn insert_where<A: ActiveModelTrait>(rows: impl IntoIterator<Item = A>, when: &Alias) -> InsertStatement {
    let columns: Vec<_> = <A::Entity as EntityTrait>::Column::iter().collect();
    let mut selected: Option<SelectStatement> = None;
    for row in rows {
        let value = |column: &_| Expr::from(row.get(*column).into_value().expect("each column of a new row is set"));
        let values = columns.iter().map(value);
        let select = Query::select().exprs(values).from(when.clone()).to_owned();
        selected = Some(match selected {
            None => select,
            Some(mut earlier) => earlier.union(UnionType::All, select).to_owned(),
        });
    }
    let mut insert = Query::insert();
    insert.into_table(A::Entity::default().table_ref()).columns(columns);
    if let Some(selected) = selected {
        insert.select_from(selected).expect("as many values as columns");
    }
    insert
}

/// Runs a statement that returns ids.
pub(crate) async fn ids<T: TryGetable + Eq + Hash>(tx: &Tx, sql: String, bound: Vec<Value>) -> Result<HashSet<T>> {
    let statement = Statement::from_sql_and_values(tx.conn().get_database_backend(), sql, bound);
    let rows = tx.conn().query_all_raw(statement).await.map_err(db_error)?;
    rows.iter().map(|row| row.try_get_by_index(0).map_err(db_error)).collect()
}

/// Returns whether a statement failed because a unique index already holds the same key.
pub fn is_unique_violation(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

/// Sorts a database error: the database is unavailable (try again), or it refused a statement (a bug of ours).
pub fn db_error(error: DbErr) -> Error {
    let unavailable = match &error {
        DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => is_outage(cause),
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => !is_damaged(&error),
        _ => false,
    };
    if unavailable { Error::DbUnavailable(error) } else { Error::Db(error) }
}

/// Returns whether the database's own files are damaged: its content is unreliable, and waiting does not help.
pub fn is_damaged(error: &DbErr) -> bool {
    let cause = match error {
        DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause))
        | DbErr::Conn(RuntimeErr::SqlxError(cause)) => cause,
        _ => return false,
    };
    let code = cause.as_database_error().and_then(|refused| refused.code());
    // PostgreSQL: data_corrupted, index_corrupted.
    sqlite::trouble(cause) == Some(Trouble::Corrupt) || matches!(code.as_deref(), Some("XX001" | "XX002"))
}

fn is_outage(error: &sqlx::Error) -> bool {
    let Some(refused) = error.as_database_error() else {
        return matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
        );
    };
    if let Some(trouble) = sqlite::trouble(error) {
        return match trouble {
            Trouble::Locked | Trouble::Full | Trouble::ReadOnly | Trouble::Io => true,
            Trouble::Corrupt => false,
        };
    }
    let code = refused.code().unwrap_or_default();
    // PostgreSQL, appendix A: connection exceptions, transaction rollback (serialization, deadlock), insufficient
    // resources, operator intervention (shutdown, timeout), system errors; a lock not acquired in time, a transaction that
    // took too long, and a server that accepts no writes, such as during a failover.
    ["08", "40", "53", "57", "58", "55P03", "25P03", "25P04", "25006"].iter().any(|class| code.starts_with(class))
}
