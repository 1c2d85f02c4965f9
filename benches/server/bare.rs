//! The databases alone: how many commits, of one INSERT each, they process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, SqlitePool};
use tokio::sync::Mutex;

use crate::kit::from_backends;
use crate::load::{Times, keep_asking};

/// About the size of a session's row.
const ROW: &str = "................................................................................................\
                   ................................................................................................\
                   ................................................................................................\
                   ................................................................................................\
                   ................................................................................................";

#[derive(Clone)]
pub enum Bare {
    /// SQLite allows one writer at a time; waiting for this mutex is faster than SQLite's own waiting.
    Sqlite(SqlitePool, Arc<Mutex<()>>),
    Postgres(PgPool),
}

impl Bare {
    /// Opens a file in `dir` as the server opens its own.
    pub async fn sqlite(dir: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(dir.join("bare.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        sqlx::query("CREATE TABLE bare (id BLOB PRIMARY KEY, body TEXT NOT NULL)").execute(&pool).await.unwrap();
        Self::Sqlite(pool, Arc::default())
    }

    pub async fn postgres(connections: u32) -> Self {
        let pool = PgPoolOptions::new().max_connections(connections);
        let pool = pool.connect(&from_backends("QUAYMASTER_TEST_POSTGRES")).await.unwrap();
        let create = "CREATE TABLE IF NOT EXISTS bare (id uuid PRIMARY KEY, body text NOT NULL)";
        sqlx::query(create).execute(&pool).await.unwrap();
        Self::Postgres(pool)
    }

    /// Commits one INSERT.
    pub async fn commit(&self) {
        let id = uuid::Uuid::now_v7();
        match self {
            Self::Sqlite(pool, turn) => {
                let _turn = turn.lock().await;
                let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
                let insert = sqlx::query("INSERT INTO bare VALUES (?, ?)").bind(id).bind(ROW);
                insert.execute(&mut *tx).await.unwrap();
                tx.commit().await.unwrap();
            }
            Self::Postgres(pool) => {
                let insert = sqlx::query("INSERT INTO bare VALUES ($1, $2)").bind(id).bind(ROW);
                insert.execute(pool).await.unwrap();
            }
        }
    }

    pub async fn commits(&self, tasks: usize, lasting: Duration) -> Times {
        let bare = self.clone();
        keep_asking(tasks, lasting, move |_| {
            let bare = bare.clone();
            async move { bare.commit().await }
        })
        .await
    }
}
