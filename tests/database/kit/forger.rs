//! Somebody who owns the database and has not the server's key.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, Value};

use super::TestDb;

/// A connection for which triggers and foreign keys do not count, as for somebody who owns the database.
pub async fn forger(db: &TestDb) -> DatabaseConnection {
    let conn = db.one_connection().await;
    if db.backend() == DbBackend::Postgres {
        conn.execute_unprepared("SET session_replication_role = replica").await.unwrap();
        return conn;
    }
    conn.execute_unprepared("PRAGMA foreign_keys = OFF").await.unwrap();
    for trigger in db.texts("SELECT name FROM sqlite_master WHERE type = 'trigger'").await {
        conn.execute_unprepared(&format!("DROP TRIGGER {trigger}")).await.unwrap();
    }
    conn
}

/// Forges something; it must have changed something.
pub async fn forge(db: &DatabaseConnection, sql: &str, values: impl IntoIterator<Item = Value>) {
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let changed = db.execute_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected();
    assert!(changed > 0, "{sql} changes nothing");
}
