//! Sizes are what clients say: sums of them are told even where they are more than a number of the database can hold.

use chrono::NaiveDate;
use quaymaster::error::Error;
use quaymaster::input::{Reference, Text as _};
use quaymaster::session;
use quaymaster::tenant::{self, usage};

use crate::kit::TestDb;
use crate::kit::lives::World;

on_both!(sums_stop_at_the_largest_number, no_share_of_the_usage_overflows);

const HUGE: i64 = i64::MAX / 3 * 2;

/// Reaches past the rule that a session's size stays.
async fn make_huge(world: &World) {
    let off = match world.db.backend() {
        sea_orm::DbBackend::Postgres => "ALTER TABLE upload_session DISABLE TRIGGER ALL",
        _ => "DROP TRIGGER upload_session_fixed",
    };
    world.db.execute(off, []).await.unwrap();
    for table in ["upload_session", "asset"] {
        world.db.execute(&format!("UPDATE {table} SET file_size = $1"), [HUGE.into()]).await.unwrap();
    }
    let batch = "UPDATE upload_session SET batch_reference = 'batch'";
    world.db.execute(batch, []).await.unwrap();
}

async fn sums_stop_at_the_largest_number(db: TestDb) {
    let world = World::begin(db).await;
    for _ in 0..3 {
        world.completed().await;
    }
    world.uploading().await;
    world.db.execute("DELETE FROM tenant_usage", []).await.unwrap();
    make_huge(&world).await;
    let batch = session::batch(&world.engine, &world.ann, &Reference::parse("batch").unwrap()).await.unwrap();
    assert_eq!((batch.sessions, batch.bytes), (4, i64::MAX));

    let today = world.engine.clock.now().date_naive();
    let yesterday: NaiveDate = today.pred_opt().unwrap();
    let days = usage::daily(&world.engine, world.ann.tenant, Some(yesterday), Some(today)).await.unwrap();
    let sum = days.values().map(|day| i128::from(day.bytes_completed)).sum::<i128>();
    assert_eq!(sum, i128::from(i64::MAX), "{days:?}");
    assert_eq!(days.values().map(|day| day.completed).sum::<i64>(), 3);

    let insert =
        "INSERT INTO tenant_usage (tenant_id, stripe, live_sessions, bytes, limited) VALUES ($1, $2, 1, $3, $4)";
    for stripe in 0..3 {
        let row = [world.ann.tenant.0.into(), stripe.into(), HUGE.into(), false.into()];
        world.db.execute(insert, row).await.unwrap();
    }
    let standing = tenant::standing(&world.engine, world.ann.tenant).await.unwrap();
    assert_eq!((standing.usage.live_sessions, standing.usage.bytes), (3, i64::MAX));
    // A row may be below zero.
    let row = [world.ann.tenant.0.into(), 3.into(), (-HUGE).into(), false.into()];
    world.db.execute(insert, row).await.unwrap();
    let row = [world.ann.tenant.0.into(), 4.into(), (-HUGE - 5).into(), false.into()];
    world.db.execute(insert, row).await.unwrap();
    assert_eq!(tenant::standing(&world.engine, world.ann.tenant).await.unwrap().usage.bytes, HUGE - 5);
}

async fn no_share_of_the_usage_overflows(db: TestDb) {
    let world = World::begin(db).await;
    world.uploading().await;
    let fill = "INSERT INTO tenant_usage (tenant_id, stripe, live_sessions, bytes, limited) VALUES ($1, $2, 1, $3, $4)
        ON CONFLICT (tenant_id, stripe) DO UPDATE SET bytes = excluded.bytes";
    for stripe in 0..16 {
        let row = [world.ann.tenant.0.into(), stripe.into(), (i64::MAX - 3).into(), false.into()];
        world.db.execute(fill, row).await.unwrap();
    }
    let new = crate::kit::lives::new("note.txt", 7);
    let refused = session::initiate(&world.engine, &world.ann, new).await;
    assert!(matches!(refused, Err(Error::QuotaExceeded { .. })));
}
