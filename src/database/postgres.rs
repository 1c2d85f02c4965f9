//! Connections to PostgreSQL, on which every wait has a limit.
//!
//! A connection may fall silent without closing: after a power cut, in a NAT that forgot it, behind a load balancer that
//! was replaced. And a future that is dropped in the middle of a statement leaves a connection in an unknown state: sqlx
//! puts it back into its pool after a ping without a timeout, and after a BEGIN even in the middle of a transaction that
//! nobody ends. So each step has a limit here, and a connection goes back only if everything begun on it has ended. Any
//! other connection is closed at once, and its place in the pool is free.

mod connections;

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::sea_query::Values;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, SqlxPostgresConnector,
    Statement,
};
use sea_query_sqlx::SqlxValues;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor as _, Postgres};
use tokio::sync::Mutex;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tracing::debug;

use connections::{Connections, Held};

use crate::settings;

/// How long a connection has to answer a ping.
const PING: Duration = Duration::from_secs(2);
/// The server itself ends a statement after `statement_timeout_secs`; it has this much longer to report that.
const GRACE: Duration = Duration::from_secs(2);
/// How long the server lets a transaction stay idle. Ours wait for nothing but the database. So an idle one belongs to a
/// process that is frozen or gone, and others wait for the rows that it has locked.
const IDLE_TRANSACTION: Duration = Duration::from_secs(5);
/// How long a statement waits for a lock. Shorter than [`IDLE_TRANSACTION`]: otherwise, if transactions of a frozen process
/// wait for each other, the next one would get the lock, and would keep others waiting for as long again.
const LOCK: Duration = Duration::from_secs(4);
/// Lets the server notice a process that is gone without closing: on idle connections within some 25 s, on those that wait
/// for the delivery of an answer within 15 s. A statement whose process has closed its connection ends within 2 s.
const ENDS_OF_LINES: &str = "
    SET tcp_keepalives_idle = '10s';
    SET tcp_keepalives_interval = '5s';
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '15s';
    SET client_connection_check_interval = '2s'";

/// How the statements of a pool are planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planning {
    /// Once, for any values.
    Once,
    /// Each time, for the given values.
    Anew,
}

/// What all pools to one database have in common.
#[derive(Clone, Debug)]
pub(super) struct Server {
    options: PgConnectOptions,
    statement: Duration,
    acquire: Duration,
}

impl Server {
    /// Makes no connection.
    ///
    /// # Errors
    /// The URL is invalid.
    pub(super) fn new(url: &str, settings: &settings::Database) -> Result<Self, sqlx::Error> {
        Ok(Self {
            options: PgConnectOptions::from_str(url)?.application_name("quaymaster"),
            statement: Duration::from_secs(settings.statement_timeout_secs),
            acquire: Duration::from_secs(settings.acquire_timeout_secs),
        })
    }

    /// Returns a pool that connects when the first statement comes.
    pub(super) fn pool(&self, most: u32, planning: Planning) -> Pool {
        let connections = Connections::new(self.options.clone(), self.session(planning), most, self.acquire);
        Pool { connections: Arc::new(connections), limit: self.statement + GRACE }
    }

    fn session(&self, planning: Planning) -> String {
        let mut session = format!(
            "SET statement_timeout = '{}s'; SET lock_timeout = '{}s'; {}",
            self.statement.as_secs(),
            LOCK.as_secs(),
            end_of_idle_transactions()
        );
        if planning == Planning::Anew {
            session.push_str("; SET plan_cache_mode = force_custom_plan");
        }
        session
    }
}

fn end_of_idle_transactions() -> String {
    format!("SET idle_in_transaction_session_timeout = '{}s'", IDLE_TRANSACTION.as_secs())
}

/// Sets up a session, by statements and not by startup parameters, which connection poolers such as PgBouncer refuse.
async fn prepare(connection: &mut PgConnection, session: &str) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(session.to_owned()))).await?;
    // Not every system has each of these settings. Without them, the limits on our side still hold.
    match connection.execute(sqlx::raw_sql(ENDS_OF_LINES)).await {
        Err(error) if error.as_database_error().is_some() => {
            debug!(%error, "the server does not support the detection of dead connections");
            Ok(())
        }
        outcome => outcome.map(|_| ()),
    }
}

/// A pool of connections to PostgreSQL.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    connections: Arc<Connections>,
    /// Time limit of a statement, and of begin and commit.
    limit: Duration,
}

impl Pool {
    /// Connects once, to test whether the database answers.
    pub(super) async fn connect(&self) -> Result<(), DbErr> {
        self.lend().await.map(drop)
    }

    /// Returns a connection like the pool's, outside of it and without the limits that steps have here.
    pub(super) fn bare(&self) -> DatabaseConnection {
        SqlxPostgresConnector::from_sqlx_postgres_pool(self.beside(self.connections.session.clone()))
    }

    /// Returns a connection outside of the pool for a listener: its statements may wait for ever.
    pub(super) fn for_listener(&self) -> PgPool {
        self.beside(end_of_idle_transactions())
    }

    fn beside(&self, session: String) -> PgPool {
        let one = PgPoolOptions::new().max_connections(1).acquire_timeout(self.connections.wait);
        let one = one.after_connect(move |connection, _| {
            let session = session.clone();
            Box::pin(async move { prepare(connection, &session).await })
        });
        one.connect_lazy_with(self.connections.options.clone())
    }

    pub(super) async fn begin(&self) -> Result<Transaction, DbErr> {
        self.begin_with("BEGIN").await
    }

    /// Begins a transaction whose reads all see one moment. It may stay idle: nobody waits for it.
    pub(super) async fn snapshot(&self) -> Result<Transaction, DbErr> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL idle_in_transaction_session_timeout = 0";
        self.begin_with(begin).await
    }

    async fn begin_with(&self, statement: &'static str) -> Result<Transaction, DbErr> {
        let mut lent = self.lend().await?;
        // Before the step: of several statements in one, BEGIN may succeed and a later one fail. Then the connection must
        // be rolled back before its next use.
        lent.is_in_transaction = true;
        lent.step(statement).await?;
        Ok(Transaction(Mutex::new(lent)))
    }

    pub(super) async fn close(&self) {
        self.connections.close().await;
    }

    async fn lend(&self) -> Result<Lent, DbErr> {
        Ok(Lent {
            held: Some(self.connections.take().await?),
            connections: Arc::clone(&self.connections),
            limit: self.limit,
            is_under_way: false,
            is_in_transaction: false,
            has_failed: false,
        })
    }
}

/// A connection taken from its pool.
#[derive(Debug)]
struct Lent {
    /// `Some` until this is dropped.
    held: Option<Held>,
    connections: Arc<Connections>,
    limit: Duration,
    /// Something begun on the connection has not ended.
    is_under_way: bool,
    is_in_transaction: bool,
    /// A statement of the transaction has failed: PostgreSQL would answer its COMMIT with a ROLLBACK, without an error.
    has_failed: bool,
}

impl Lent {
    /// Returns the connection for one step, whose outcome must go to [`Lent::settle`]. A step that is dropped before has no
    /// outcome.
    fn take_up(&mut self) -> Result<&mut PgConnection, DbErr> {
        if self.is_under_way {
            // No further step after a timeout: the connection may still deliver the answer to the last one.
            return Err(query_error(silence()));
        }
        self.is_under_way = true;
        self.held.as_mut().map(|held| &mut held.connection).ok_or_else(|| query_error(sqlx::Error::WorkerCrashed))
    }

    fn settle<T>(&mut self, outcome: Result<Result<T, sqlx::Error>, Elapsed>) -> Result<T, sqlx::Error> {
        let outcome = outcome.unwrap_or_else(|_| Err(silence()));
        // An error reported by the server is an orderly end of the step.
        self.is_under_way = outcome.as_ref().is_err_and(|error| error.as_database_error().is_none());
        self.has_failed |= self.is_in_transaction && outcome.is_err();
        outcome
    }

    /// Runs a step of a transaction, which is not kept prepared.
    async fn step(&mut self, sql: &'static str) -> Result<(), DbErr> {
        let done = timeout(self.limit, self.take_up()?.execute(sql)).await;
        self.settle(done).map(drop).map_err(query_error)
    }

    async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        let done = timeout(self.limit, query(statement).execute(self.take_up()?)).await;
        self.settle(done).map(Into::into).map_err(exec_error)
    }

    async fn execute_unprepared(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        let done = timeout(self.limit, self.take_up()?.execute(AssertSqlSafe(sql))).await;
        self.settle(done).map(Into::into).map_err(exec_error)
    }

    async fn query_one(&mut self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let row = timeout(self.limit, query(statement).fetch_optional(self.take_up()?)).await;
        self.settle(row).map(|row| row.map(Into::into)).map_err(query_error)
    }

    async fn query_all(&mut self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let rows = timeout(self.limit, query(statement).fetch_all(self.take_up()?)).await;
        self.settle(rows).map(|rows| rows.into_iter().map(Into::into).collect()).map_err(query_error)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        match self.held.take() {
            // Closes it at once. A graceful close would be one more step to wait for.
            held if self.is_under_way => drop(held),
            Some(held) if self.is_in_transaction => {
                drop(self.connections.home.spawn(roll_back(held, Arc::clone(&self.connections))));
            }
            Some(held) => self.connections.give_back(held),
            None => {}
        }
    }
}

/// Rolls back and gives the connection back. If the connection does not answer in time, dropping it closes it.
async fn roll_back(mut held: Held, connections: Arc<Connections>) {
    if matches!(timeout(PING, held.connection.execute("ROLLBACK")).await, Ok(Ok(_))) {
        connections.give_back(held);
    }
}

/// A transaction on PostgreSQL. If it is dropped, it is rolled back a moment later.
#[derive(Debug)]
pub(super) struct Transaction(Mutex<Lent>);

impl Transaction {
    /// # Errors
    /// Also if an earlier statement failed and its error was ignored: then nothing is committed.
    pub(super) async fn commit(mut self) -> Result<(), DbErr> {
        if self.0.get_mut().has_failed {
            return Err(DbErr::Custom("a statement of the transaction has failed: it cannot be committed".to_owned()));
        }
        self.end("COMMIT").await
    }

    pub(super) async fn rollback(self) -> Result<(), DbErr> {
        self.end("ROLLBACK").await
    }

    async fn end(self, statement: &'static str) -> Result<(), DbErr> {
        let mut lent = self.0.into_inner();
        lent.step(statement).await?;
        lent.is_in_transaction = false;
        Ok(())
    }
}

#[async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.0.lock().await.execute(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.0.lock().await.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.0.lock().await.query_one(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.0.lock().await.query_all(statement).await
    }
}

#[async_trait]
impl ConnectionTrait for Pool {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.lend().await?.execute(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.lend().await?.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.lend().await?.query_one(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.lend().await?.query_all(statement).await
    }
}

/// Returns a query that is kept prepared on the connection, as in sea-orm.
fn query(statement: Statement) -> sqlx::query::Query<'static, Postgres, SqlxValues> {
    let values = statement.values.unwrap_or_else(|| Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql), SqlxValues(values))
}

/// The error for an answer that did not come in time.
pub(super) fn silence() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database did not answer in time"))
}

fn exec_error(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(error.into()))
}

fn query_error(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}
