//! The audit: whoever reaches past the program and changes what was recorded is found, on both databases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use entity::upload_event::{self, Column};
use entity::upload_session::Status;
use entity::{upload_session, upload_tombstone};
use quaymaster::audit::{Scope, VerifyReport, verify};
use quaymaster::caller::Actor;
use quaymaster::engine::Engine;
use quaymaster::feed::sequence;
use quaymaster::pass::{Options, Report, Run};
use quaymaster::session::{self, Session};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, Value,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::kit::TestDb;
use crate::kit::forger::{forge, forger};
use crate::kit::lives::{World, complete, uploading, user};
use crate::kit::rows::{moment, text};

on_both!(
    what_nobody_touched_has_no_finding,
    traffic_is_no_finding,
    no_column_of_an_event_can_be_changed,
    no_event_can_be_removed_added_or_swapped,
    no_session_can_be_rolled_back_or_removed,
    the_sessions_own_columns_are_held_to_its_events,
    the_asset_is_what_was_completed,
    a_tombstone_stands_for_what_was_deleted,
    another_key_finds_everything,
);

async fn audit(world: &World) -> VerifyReport {
    verify(&world.engine, &Scope::default(), |_| {}).await.unwrap()
}

async fn audit_one(world: &World, session: &Session) -> VerifyReport {
    let scope = Scope { tenant: Some(session.tenant_id), session: Some(session.id) };
    verify(&world.engine, &scope, |_| {}).await.unwrap()
}

async fn place_all(world: &World) {
    while sequence(&world.engine).await.unwrap() > 0 {}
}

/// Adds to what the tenant is said to hold.
async fn hold(forger: &DatabaseConnection, live_sessions: i64, bytes: i64) {
    let sql = "UPDATE tenant_usage SET live_sessions = live_sessions + $1, bytes = bytes + $2
        WHERE stripe = (SELECT min(stripe) FROM tenant_usage)";
    forge(forger, sql, [live_sessions.into(), bytes.into()]).await;
}

async fn events(world: &World, session: &Session) -> Vec<upload_event::Model> {
    upload_event::Entity::find()
        .filter(Column::UploadSessionId.eq(session.id))
        .order_by_asc(Column::Seq)
        .all(world.engine.db.conn())
        .await
        .unwrap()
}

async fn what_nobody_touched_has_no_finding(db: TestDb) {
    let world = World::begin(db).await;
    assert!(audit(&world).await.is_clean());
    world.completed().await;
    world.failed().await;
    world.uploading().await;
    world.multipart().await;
    let globex = user(&world.engine, "globex").await;
    let theirs = uploading(&world.engine, &globex).await;
    // Before any event has its place, in between, and after.
    assert!(audit(&world).await.is_clean());
    place_all(&world).await;
    world.completed().await;
    let report = audit(&world).await;
    assert_eq!((report.found, &report.findings[..]), (0, &[][..]), "{report:#?}");
    assert_eq!((report.sessions, report.events, report.positions), (6, 16, Some(13)));

    let tenants = verify(&world.engine, &Scope { tenant: Some(globex.tenant), session: None }, |_| {}).await.unwrap();
    assert_eq!((tenants.sessions, tenants.events, tenants.positions, tenants.found), (1, 2, None, 0));
    assert_eq!(audit_one(&world, &theirs).await.sessions, 1);
}

async fn traffic_is_no_finding(db: TestDb) {
    let world = Arc::new(World::begin(db).await);
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let (world, done) = (Arc::clone(&world), Arc::clone(&done));
        tasks.push(tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let session = uploading(&world.engine, &world.ann).await;
                complete(&world.engine, &session).await;
                sequence(&world.engine).await.unwrap();
            }
        }));
    }
    let mut events = 0;
    for _ in 0..30 {
        let report = audit(&world).await;
        assert!(report.is_clean(), "{report:#?}");
        assert!(report.events >= events, "each look is of a later moment");
        events = report.events;
    }
    done.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    assert!(events > 0 && audit(&world).await.is_clean());
}

async fn no_column_of_an_event_can_be_changed(db: TestDb) {
    let world = World::begin(db).await;
    let elsewhere = user(&world.engine, "globex").await.tenant;
    let forger = forger(&world.db).await;
    let columns: &[(&str, Value)] = &[
        ("tenant_id", elsewhere.0.into()),
        ("upload_session_id", Uuid::now_v7().into()),
        ("seq", 30.into()),
        ("at", moment().into()),
        ("event", text("retry")),
        ("from_status", text("FAILED")),
        ("to_status", text("FAILED")),
        ("actor", text("eve")),
        ("actor_kind", text("command")),
        ("reason", text("operator")),
        ("details", json!({"etag": "forged", "file_name": "forged"}).into()),
        ("mac", vec![7_u8; 32].into()),
        ("position", 1_000_000_i64.into()),
    ];
    let known = entity_columns();
    assert_eq!(columns.iter().map(|(name, _)| *name).collect::<Vec<_>>(), known, "every column of the table");
    let mut forged = 0;
    for (column, value) in columns {
        for seq in 1..=3 {
            let session = world.completed().await;
            place_all(&world).await;
            assert!(audit_one(&world, &session).await.is_clean());
            let places = if *column == "position" { i64::from(seq) } else { 0 };
            let value = match value {
                Value::BigInt(Some(place)) => Value::BigInt(Some(place + places + 10 * forged)),
                value => value.clone(),
            };
            let sql = format!("UPDATE upload_event SET {column} = $1 WHERE upload_session_id = $2 AND seq = $3");
            forge(&forger, &sql, [value, session.id.0.into(), seq.into()]).await;
            let report = audit_one(&world, &session).await;
            assert!(!report.is_clean(), "{column} of event {seq} was changed, and nobody has noticed");
            assert!(report.findings.iter().all(|finding| finding.upload_session_id == Some(session.id)));
            forged += 1;
        }
    }
    assert_eq!(forged, 39);
    // Of each, all that one audit can tell; events that were moved away are also found where they are now.
    let all = audit(&world).await;
    assert!(all.found >= 39, "{all:#?}");
    assert!(all.findings.iter().any(|finding| finding.what == "the event has no session"));
}

/// In the order of the table.
fn entity_columns() -> Vec<&'static str> {
    use sea_orm::{IdenStatic, Iterable};
    Column::iter().map(|column| column.as_str()).collect()
}

async fn no_event_can_be_removed_added_or_swapped(db: TestDb) {
    let world = World::begin(db).await;
    let forger = forger(&world.db).await;
    let of_session = "upload_session_id = $1 AND seq =";

    for seq in 1..=3 {
        let session = world.completed().await;
        place_all(&world).await;
        forge(&forger, &format!("DELETE FROM upload_event WHERE {of_session} {seq}"), [session.id.0.into()]).await;
        assert!(!audit_one(&world, &session).await.is_clean(), "event {seq} was deleted");

        // And the rest moved up, so that no number is missing.
        for later in seq + 1..=3 {
            let sql = format!("UPDATE upload_event SET seq = {} WHERE {of_session} {later}", later - 1);
            forge(&forger, &sql, [session.id.0.into()]).await;
        }
        forge(&forger, "UPDATE upload_session SET event_seq = 2, version = 2 WHERE id = $1", [session.id.0.into()])
            .await;
        assert!(!audit_one(&world, &session).await.is_clean(), "event {seq} was deleted and its place filled");
    }

    for seq in 1..=4 {
        let session = world.completed().await;
        place_all(&world).await;
        for later in (seq..=3).rev() {
            let sql = format!("UPDATE upload_event SET seq = {} WHERE {of_session} {later}", later + 1);
            forge(&forger, &sql, [session.id.0.into()]).await;
        }
        // A copy of a true event, MAC and all.
        let true_one = events(&world, &session).await.remove(0);
        let copy = upload_event::Model { seq, position: None, ..true_one };
        upload_event::Entity::insert(copy.into_active_model()).exec_without_returning(&forger).await.unwrap();
        forge(&forger, "UPDATE upload_session SET event_seq = 4 WHERE id = $1", [session.id.0.into()]).await;
        assert!(!audit_one(&world, &session).await.is_clean(), "an event was inserted as number {seq}");
    }

    for (one, other) in [(1, 2), (2, 3), (1, 3)] {
        let session = world.completed().await;
        place_all(&world).await;
        for (from, to) in [(one, 99), (other, one), (99, other)] {
            let sql = format!("UPDATE upload_event SET seq = {to} WHERE {of_session} {from}");
            forge(&forger, &sql, [session.id.0.into()]).await;
        }
        assert!(!audit_one(&world, &session).await.is_clean(), "events {one} and {other} were swapped");
    }

    // Between two sessions that lived alike.
    let (one, other) = (world.completed().await, world.completed().await);
    place_all(&world).await;
    for (from, to) in [(one.id.0, Uuid::nil()), (other.id.0, one.id.0), (Uuid::nil(), other.id.0)] {
        let sql = "UPDATE upload_event SET upload_session_id = $2 WHERE upload_session_id = $1 AND seq = 2";
        forge(&forger, sql, [from.into(), to.into()]).await;
    }
    assert!(!audit_one(&world, &one).await.is_clean() && !audit_one(&world, &other).await.is_clean());

    // Places: taken away, and swapped.
    let session = world.completed().await;
    place_all(&world).await;
    let clear = "UPDATE upload_event SET position = NULL WHERE upload_session_id = $1";
    forge(&forger, &format!("{clear} AND seq = 2"), [session.id.0.into()]).await;
    assert!(!audit_one(&world, &session).await.is_clean(), "a place was taken away");
    let session = world.completed().await;
    place_all(&world).await;
    let places = events(&world, &session).await;
    forge(&forger, clear, [session.id.0.into()]).await;
    for (seq, place) in [(1, places[1].position), (2, places[0].position), (3, places[2].position)] {
        let sql = format!("UPDATE upload_event SET position = $2 WHERE {of_session} {seq}");
        forge(&forger, &sql, [session.id.0.into(), place.into()]).await;
    }
    assert!(!audit_one(&world, &session).await.is_clean(), "two places were swapped");
}

async fn no_session_can_be_rolled_back_or_removed(db: TestDb) {
    let world = World::begin(db).await;
    let forger = forger(&world.db).await;
    // Somebody who kept the row as it was when it was UPLOADING puts it back, with its true head of then, and removes
    // what came after: nothing of the session itself is wrong.
    let before = world.uploading().await;
    let session = complete(&world.engine, &before).await;
    world.completed().await;
    place_all(&world).await;
    assert!(audit(&world).await.is_clean());
    let id = || [Value::from(session.id.0)];
    forge(&forger, "DELETE FROM asset WHERE upload_session_id = $1", id()).await;
    forge(&forger, "DELETE FROM upload_event WHERE upload_session_id = $1 AND seq = 3", id()).await;
    forge(
        &forger,
        "UPDATE upload_session SET status = 'UPLOADING', version = 2, event_seq = 2, completed_at = NULL, chain_head = $2
         WHERE id = $1",
        [session.id.0.into(), before.chain_head.clone().into()],
    )
    .await;
    hold(&forger, 1, 0).await;
    assert!(audit_one(&world, &session).await.is_clean(), "alone it cannot be told");
    let report = audit(&world).await;
    assert_eq!(report.found, 1, "{report:#?}");
    assert!(report.findings[0].what.starts_with("no event has the place"), "{report:#?}");

    // Without the old head it does not even need the order: the heads of before are nowhere to be had.
    let session = world.completed().await;
    place_all(&world).await;
    let kept = events(&world, &session).await;
    forge(&forger, "DELETE FROM asset WHERE upload_session_id = $1", [session.id.0.into()]).await;
    forge(&forger, "DELETE FROM upload_event WHERE upload_session_id = $1 AND seq = 3", [session.id.0.into()]).await;
    forge(
        &forger,
        "UPDATE upload_session SET status = 'UPLOADING', version = 2, event_seq = 2, completed_at = NULL, chain_head = $2
         WHERE id = $1",
        [session.id.0.into(), kept[1].mac.clone().into()],
    )
    .await;
    assert!(!audit_one(&world, &session).await.is_clean());

    // A whole session, with all that belongs to it: the last one too.
    for _ in 0..2 {
        world.completed().await;
        place_all(&world).await;
        let found = audit(&world).await.found;
        let session = world.completed().await;
        place_all(&world).await;
        for table in
            ["asset WHERE upload_session_id", "upload_event WHERE upload_session_id", "upload_session WHERE id"]
        {
            forge(&forger, &format!("DELETE FROM {table} = $1"), [session.id.0.into()]).await;
        }
        let report = audit(&world).await;
        assert_eq!(report.found, found + 1, "{report:#?}");
        assert!(report.findings.iter().any(|finding| finding.what.starts_with("no event has a place from")));
    }
    // The feed put back, too, so that nobody misses the places.
    let last = entity::feed::Entity::find_by_id(1).one(world.engine.db.conn()).await.unwrap().unwrap().last_position;
    for moved in [last - 20, last + 1] {
        let before = audit(&world).await;
        forge(&forger, "UPDATE feed SET last_position = $1", [moved.into()]).await;
        let report = audit(&world).await;
        assert_ne!(report.findings, before.findings, "the feed was set from {last} to {moved}");
        forge(&forger, "UPDATE feed SET last_position = $1", [last.into()]).await;
    }
}

async fn the_sessions_own_columns_are_held_to_its_events(db: TestDb) {
    let world = World::begin(db).await;
    let forger = forger(&world.db).await;
    let changes: &[(&str, Value)] = &[
        ("file_name", text("forged.txt")),
        ("file_size", 8_i64.into()),
        ("mime_type", text("text/html")),
        ("checksum_sha256", text(&"cd".repeat(32))),
        ("created_by", text("eve")),
        ("client_reference", text("another")),
        ("batch_reference", text("another")),
        ("created_at", moment().into()),
        ("failed_at", moment().into()),
        ("failure_reason", text("expired")),
        ("version", 2.into()),
        ("storage_cleared_at", moment().into()),
        ("clear_failed_at", moment().into()),
        ("event_seq", 9.into()),
        ("chain_head", vec![7_u8; 32].into()),
    ];
    for (column, value) in changes {
        let session = world.failed().await;
        forge(
            &forger,
            &format!("UPDATE upload_session SET {column} = $1 WHERE id = $2"),
            [value.clone(), session.id.0.into()],
        )
        .await;
        let report = audit_one(&world, &session).await;
        assert!(!report.is_clean(), "{column} was changed, and nobody has noticed");
    }
    let session = world.failed().await;
    let sql = "UPDATE upload_session SET status = 'CANCELLED', cancelled_at = failed_at, failed_at = NULL,
        failure_reason = NULL WHERE id = $1";
    forge(&forger, sql, [session.id.0.into()]).await;
    assert!(!audit_one(&world, &session).await.is_clean(), "the status was changed");
    let session = world.multipart().await;
    forge(&forger, "UPDATE upload_session SET multipart_upload_id = 'x' WHERE id = $1", [session.id.0.into()]).await;
    assert!(!audit_one(&world, &session).await.is_clean(), "the upload was exchanged");
}

async fn the_asset_is_what_was_completed(db: TestDb) {
    let world = World::begin(db).await;
    let forger = forger(&world.db).await;
    for change in [
        "UPDATE asset SET etag = 'forged'",
        "UPDATE asset SET file_size = 8",
        "UPDATE asset SET created_by = 'eve'",
        "UPDATE asset SET checksum_sha256 = 'x'",
        "UPDATE asset SET checksum_verified = NOT checksum_verified",
        "UPDATE asset SET mime_type = 'text/html'",
        "UPDATE asset SET bucket = 'forged'",
        "UPDATE asset SET object_key = 'forged'",
        "UPDATE asset SET status = 'READY', ready_at = created_at",
        "UPDATE asset SET status = 'FAILED', failure = 'forged'",
        "DELETE FROM asset",
    ] {
        let session = world.completed().await;
        forge(&forger, &format!("{change} WHERE upload_session_id = $1"), [session.id.0.into()]).await;
        assert!(!audit_one(&world, &session).await.is_clean(), "{change}");
    }
}

/// The tombstone of a FAILED session, as the server makes it when it deletes the session.
async fn raise(world: &World, forger: &DatabaseConnection, session: &Session, deleted_at: DateTime<Utc>) {
    let places: Vec<_> = events(world, session).await.iter().map(|event| event.position.unwrap()).collect();
    let mut row = upload_tombstone::Model {
        tenant_id: session.tenant_id,
        upload_session_id: session.id,
        status: Status::Failed,
        event_seq: session.event_seq,
        chain_head: session.chain_head.clone(),
        positions: json!(places),
        deleted_at,
        mac: vec![],
    };
    row.mac = world.engine.keys.tombstone(&row);
    upload_tombstone::Entity::insert(row.into_active_model()).exec_without_returning(forger).await.unwrap();
}

/// What goes as the tombstone comes.
async fn remove(forger: &DatabaseConnection, session: &Session) {
    upload_event::Entity::delete_many().filter(Column::UploadSessionId.eq(session.id)).exec(forger).await.unwrap();
    upload_session::Entity::delete_by_id((session.tenant_id, session.id)).exec(forger).await.unwrap();
    hold(forger, 0, -session.file_size).await;
}

async fn clean_up(engine: &Engine) -> Report {
    let run = Run::new(Options::default(), Actor::System, Duration::from_secs(60), CancellationToken::new());
    session::cleanup(engine, &run).await.unwrap()
}

/// Only PostgreSQL has two writers at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_prunes_of_one_block_keep_the_places_of_both() {
    let mut world = World::begin(TestDb::postgres().await).await;
    let mut settings = (*world.engine.settings).clone();
    // One tombstone for each of them.
    settings.lifecycle.batch_rows = 1;
    let tombstone_secs = i64::try_from(settings.lifecycle.tombstone_secs).unwrap();
    world.engine.settings = Arc::new(settings);
    let other = Engine { settings: Arc::clone(&world.engine.settings), ..world.db.engine().await };
    let forger = forger(&world.db).await;
    let sessions = [world.failed().await, world.failed().await];
    place_all(&world).await;
    let long_ago = world.engine.clock.now() - TimeDelta::seconds(tombstone_secs) - TimeDelta::hours(1);
    for session in &sessions {
        raise(&world, &forger, session, long_ago).await;
        remove(&forger, session).await;
    }
    assert!(audit(&world).await.is_clean());

    // Rows can be locked and none inserted, until both have looked at what is there.
    let holder = world.db.one_connection().await;
    holder.execute_unprepared("BEGIN; LOCK TABLE pruned_places IN SHARE MODE").await.unwrap();
    let (one, two, ()) = tokio::join!(clean_up(&world.engine), clean_up(&other), async {
        let waiting = "SELECT CAST(count(*) AS text) FROM pg_locks JOIN pg_database ON pg_database.oid = database
            WHERE NOT granted AND datname = current_database()";
        let deadline = Instant::now() + Duration::from_secs(30);
        while world.db.texts(waiting).await != ["2"] {
            assert!(Instant::now() < deadline, "not both of them wait");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        holder.execute_unprepared("COMMIT").await.unwrap();
    });
    assert_eq!((one.done, two.done), (1, 1), "{one:?} {two:?}");
    let report = audit(&world).await;
    assert!(report.is_clean() && report.tombstones == 0, "{report:#?}");
}

async fn a_tombstone_stands_for_what_was_deleted(db: TestDb) {
    let world = World::begin(db).await;
    let forger = forger(&world.db).await;
    let session = world.failed().await;
    world.completed().await;
    place_all(&world).await;
    raise(&world, &forger, &session, world.engine.clock.now()).await;
    // Both are there: its places are taken twice.
    assert!(!audit(&world).await.is_clean());
    remove(&forger, &session).await;
    let report = audit(&world).await;
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.sessions, report.tombstones), (1, 1));
    assert_eq!(audit_one(&world, &session).await.tombstones, 1);

    let changes: &[(&str, Value)] = &[
        ("upload_session_id", Uuid::now_v7().into()),
        ("tenant_id", user(&world.engine, "globex").await.tenant.0.into()),
        ("status", text("CANCELLED")),
        ("event_seq", 4.into()),
        ("chain_head", vec![7_u8; 32].into()),
        ("positions", json!([1]).into()),
        ("deleted_at", moment().into()),
        ("mac", vec![7_u8; 32].into()),
    ];
    let kept = upload_tombstone::Entity::find().one(&forger).await.unwrap().unwrap();
    for (column, value) in changes {
        forge(&forger, &format!("UPDATE upload_tombstone SET {column} = $1"), [value.clone()]).await;
        assert!(!audit(&world).await.is_clean(), "{column} was changed, and nobody has noticed");
        forge(&forger, "DELETE FROM upload_tombstone", []).await;
        assert!(!audit(&world).await.is_clean(), "without a tombstone a session is missing");
        let row = kept.clone().into_active_model();
        upload_tombstone::Entity::insert(row).exec_without_returning(&forger).await.unwrap();
        assert!(audit(&world).await.is_clean());
    }
}

async fn another_key_finds_everything(db: TestDb) {
    let world = World::begin(db).await;
    for _ in 0..3 {
        world.completed().await;
    }
    let mut other = world.engine.clone();
    other.keys = quaymaster::keys::Keys::new("some other key, long enough for the purpose");
    let report = verify(&other, &Scope::default(), |_| {}).await.unwrap();
    assert_eq!(report.found, 4, "{report:#?}");
    let (action, events) = report.findings.split_last().unwrap();
    assert!(events.iter().all(|finding| finding.seq == Some(1)), "{report:#?}");
    assert!(action.what.starts_with("action 1 "), "{report:#?}");
}

/// A transaction that lasts has the database keep all that is changed until its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_transaction_lasts_as_long_as_an_audit() {
    let world = World::begin(TestDb::postgres().await).await;
    for tenant in ["globex", "initech"] {
        let caller = user(&world.engine, tenant).await;
        complete(&world.engine, &uploading(&world.engine, &caller).await).await;
    }
    world.completed().await;
    let open = "SELECT CAST(pid AS text) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'quaymaster' AND xact_start IS NOT NULL";
    let mut slices = 0;
    let look = |_: &VerifyReport| {
        slices += 1;
        let wait = async {
            let deadline = Instant::now() + Duration::from_secs(20);
            while !world.db.texts(open).await.is_empty() {
                assert!(Instant::now() < deadline, "a transaction is open between two slices");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(wait));
    };
    assert!(verify(&world.engine, &Scope::default(), look).await.unwrap().is_clean());
    assert_eq!(slices, 3);
}
