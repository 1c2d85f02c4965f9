//! The schema goes up, down and up again, whoever else is at it.

use std::time::{Duration, Instant};

use migration::{Schema, rollback, run};
use sea_orm::DbBackend;

use crate::kit::TestDb;

on_both!(
    goes_up_down_and_up_again,
    many_migrators_at_once,
    nothing_pending_costs_little,
    a_failure_leaves_nothing_half_done
);

/// Everything that a schema consists of, as text to compare.
async fn schema(db: &TestDb) -> Vec<String> {
    let sql = if db.backend() == DbBackend::Sqlite {
        "SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY 1"
    } else {
        "SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable
         FROM information_schema.columns WHERE table_schema = 'public'
         UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
         UNION ALL SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
         UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
         UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
         ORDER BY 1"
    };
    db.texts(sql).await
}

async fn goes_up_down_and_up_again(db: TestDb) {
    assert_eq!(schema(&db).await, Vec::<String>::new());

    assert_eq!(migration::schema(&db.pool).await.unwrap(), Schema::None);
    assert_eq!(schema(&db).await, Vec::<String>::new(), "a look makes nothing");
    run(&db.pool).await.unwrap();
    assert_eq!(migration::schema(&db.pool).await.unwrap(), Schema::Current);
    let first = schema(&db).await;
    assert!(first.iter().any(|line| line.contains("upload_session_arrows")), "{first:#?}");

    rollback(&db.pool).await.unwrap();
    assert_eq!(schema(&db).await, Vec::<String>::new());

    run(&db.pool).await.unwrap();
    assert_eq!(schema(&db).await, first);

    let last = "DELETE FROM seaql_migrations WHERE version = (SELECT max(version) FROM seaql_migrations)";
    db.execute(last, []).await.unwrap();
    assert_eq!(migration::schema(&db.pool).await.unwrap(), Schema::Old);
}

async fn many_migrators_at_once(db: TestDb) {
    let mut migrators = Vec::new();
    for _ in 0..4 {
        let pool = db.another_pool().await;
        migrators.push(tokio::spawn(async move { run(&pool).await }));
    }
    for migrator in migrators {
        migrator.await.unwrap().unwrap();
    }
    let mut applied = db.texts("SELECT version FROM seaql_migrations ORDER BY 1").await;
    let all = applied.len();
    applied.dedup();
    assert_eq!(applied.len(), all, "one was applied twice");
    assert_eq!(migration::schema(&db.pool).await.unwrap(), Schema::Current);
}

async fn nothing_pending_costs_little(db: TestDb) {
    let db = db.migrated().await;
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        run(&db.pool).await.unwrap();
        fastest = fastest.min(start.elapsed());
    }
    // A fifth of what a start may take until the server is ready.
    assert!(fastest < Duration::from_millis(30), "{fastest:?}");
}

async fn a_failure_leaves_nothing_half_done(db: TestDb) {
    // The fourth migration cannot make its table, when three have been applied.
    db.execute("CREATE TABLE asset (id integer)", []).await.unwrap();
    let before = schema(&db).await;

    run(&db.pool).await.unwrap_err();
    let applied = schema(&db).await;
    match db.backend() {
        // What was applied before is there as a whole.
        DbBackend::Postgres => assert!(applied.iter().any(|line| line.contains("upload_event_position"))),
        _ => assert_eq!(applied, before),
    }
    assert!(!applied.iter().any(|line| line.contains("asset_arrows")), "{applied:#?}");

    db.execute("DROP TABLE asset", []).await.unwrap();
    run(&db.pool).await.unwrap();
}
