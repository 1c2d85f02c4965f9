//! What the bare database refuses, whatever program asks. Each case breaks one rule and must be told of that one.

use entity::{BrandId, asset, upload_event, upload_session};
use sea_orm::{ColumnTrait, DbBackend, DbErr, EntityTrait, IntoActiveModel, QueryFilter, Value};
use serde_json::json;
use uuid::Uuid;

use crate::kit::TestDb;
use crate::kit::rows::{ARROWS, Kind, NO_TEXT, NO_TIME, Place, Row, STATUSES, moment, state, text};

on_both!(
    only_the_arrows_change_a_state,
    a_session_starts_initiating,
    a_state_has_its_columns,
    a_session_is_well_formed,
    required_columns_are_required,
    versions_and_events_only_count_up,
    outcomes_stay,
    what_a_session_was_opened_with_stays,
    only_the_ended_are_cleared,
    only_the_ended_fail_to_clear,
    closed_lists_are_closed,
    foreign_brands_and_tenants_are_refused,
    an_asset_belongs_to_its_completed_session,
    references_are_taken_once_per_user_and_brand,
    slugs_are_taken_once,
    entities_come_back_as_they_went,
    times_compare_as_times,
);

/// The statement was refused by the rule of that name or message.
#[track_caller]
fn refused(result: Result<u64, DbErr>, by: &str) {
    match result {
        Ok(rows) => panic!("{rows} row(s) written, where {by:?} should have refused"),
        Err(error) => assert!(error.to_string().contains(by), "refused, but not by {by:?}: {error}"),
    }
}

async fn drop_trigger(db: &TestDb, name: &str, table: &str) {
    let on_table = if db.backend() == DbBackend::Postgres { format!("ON {table}") } else { String::new() };
    db.execute(&format!("DROP TRIGGER {name} {on_table}"), []).await.unwrap();
}

async fn only_the_arrows_change_a_state(db: TestDb) {
    let db = db.migrated().await;
    // Some wrong ways would also change an outcome. They have to be refused for the way alone.
    drop_trigger(&db, "upload_session_outcomes", "upload_session").await;
    let place = Place::create(&db).await;
    let mut moved = Vec::new();
    for kind in [Kind::Direct, Kind::Multipart] {
        for from in STATUSES {
            for to in STATUSES.into_iter().filter(|to| *to != from) {
                let id = place.stored(&db, kind, from).await.id("id");
                let version = match from {
                    "INITIATING" => 1,
                    "COMPLETED" => 3,
                    _ => 2,
                };
                let result = state(kind, to, version + 1).update_session(&db, id).await;
                if ARROWS.contains(&(from, to)) {
                    assert_eq!(result.unwrap(), 1, "{from} to {to}");
                    moved.push((from, to));
                } else {
                    refused(result, "does not change its state this way");
                }
            }
        }
    }
    assert_eq!(moved.len(), 2 * ARROWS.len());
}

async fn a_session_starts_initiating(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    for kind in [Kind::Direct, Kind::Multipart] {
        for status in STATUSES {
            let begun = place.session(kind);
            let row = state(kind, status, 1)
                .columns()
                .fold(begun, |row, column| row.with(column, state(kind, status, 1).get(column)));
            let result = row.insert(&db, "upload_session").await;
            if status == "INITIATING" {
                result.unwrap();
            } else {
                refused(result, "starts INITIATING");
            }
        }
    }
    let second = place.session(Kind::Direct).with("version", 2).with("event_seq", 2);
    refused(second.insert(&db, "upload_session").await, "starts INITIATING");
}

async fn a_state_has_its_columns(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    let multipart = Kind::Multipart;

    // As it begins, a session has no outcome.
    for (column, value, rule) in [
        ("completed_at", Value::from(moment()), "completed_has_time"),
        ("failed_at", Value::from(moment()), "failed_has_time"),
        ("failure_reason", text("expired"), "failed_has_reason"),
        ("cancelled_at", Value::from(moment()), "cancelled_has_time"),
        ("multipart_upload_id", text("upload-1"), "upload_id_fits_status"),
    ] {
        refused(place.session(multipart).with(column, value).insert(&db, "upload_session").await, rule);
    }

    // Each move brings what its state wants, and nothing that another one wants.
    for (from, to, version, column, value, rule) in [
        ("INITIATING", "UPLOADING", 2, "multipart_upload_id", NO_TEXT, "upload_id_fits_status"),
        ("INITIATING", "UPLOADING", 2, "completed_at", Value::from(moment()), "completed_has_time"),
        ("UPLOADING", "COMPLETED", 3, "completed_at", NO_TIME, "completed_has_time"),
        ("UPLOADING", "COMPLETED", 3, "failed_at", Value::from(moment()), "failed_has_time"),
        ("UPLOADING", "COMPLETED", 3, "failure_reason", text("expired"), "failed_has_reason"),
        ("UPLOADING", "FAILED", 3, "failed_at", NO_TIME, "failed_has_time"),
        ("UPLOADING", "FAILED", 3, "failure_reason", NO_TEXT, "failed_has_reason"),
        ("UPLOADING", "FAILED", 3, "cancelled_at", Value::from(moment()), "cancelled_has_time"),
        ("UPLOADING", "CANCELLED", 3, "cancelled_at", NO_TIME, "cancelled_has_time"),
        ("INITIATING", "FAILED", 2, "failed_at", NO_TIME, "failed_has_time"),
        ("INITIATING", "CANCELLED", 2, "cancelled_at", NO_TIME, "cancelled_has_time"),
    ] {
        let id = place.stored(&db, multipart, from).await.id("id");
        refused(state(multipart, to, version).with(column, value).update_session(&db, id).await, rule);
        state(multipart, to, version).update_session(&db, id).await.unwrap();
    }

    let direct = place.stored(&db, Kind::Direct, "INITIATING").await.id("id");
    let opened = state(Kind::Direct, "UPLOADING", 2).with("multipart_upload_id", "upload-1");
    refused(opened.update_session(&db, direct).await, "upload_id_fits_status");
}

async fn a_session_is_well_formed(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    let direct = || place.session(Kind::Direct);
    let multipart = || place.session(Kind::Multipart);
    let no_number = Value::Int(None);
    let no_bytes = Value::BigInt(None);
    for (row, rule) in [
        (direct().with("chunk_size", 8_388_608_i64).with("total_parts", 3), "plan_fits_type"),
        (direct().with("chunk_size", 8_388_608_i64), "plan_fits_type"),
        (direct().with("total_parts", 3), "plan_fits_type"),
        (multipart().with("chunk_size", no_bytes), "plan_fits_type"),
        (multipart().with("total_parts", no_number), "plan_fits_type"),
        (multipart().with("total_parts", 2), "plan_fits_size"),
        (multipart().with("total_parts", 4), "plan_fits_size"),
        (multipart().with("total_parts", 0), "plan_fits_size"),
        (multipart().with("chunk_size", 0_i64), "plan_fits_size"),
        (direct().with("file_size", -1_i64), "file_size_not_negative"),
        (direct().with("url_ttl_secs", 0), "url_ttl_positive"),
        (direct().with("metadata", json!([1])), "metadata_is_object"),
        (direct().with("metadata", json!(null)), "metadata_is_object"),
        (direct().with("event_seq", 0), "every_change_has_event"),
        (direct().with("completing_at", moment()).with("completing_by", "ann"), "completing_needs_upload"),
        (direct().with("completing_by", "ann"), "completing_has_actor"),
        (direct().with("completing_title", "Reel"), "completing_is_whole"),
        (direct().with("completing_metadata", json!({})), "completing_is_whole"),
    ] {
        refused(row.insert(&db, "upload_session").await, rule);
    }

    let id = place.stored(&db, Kind::Direct, "UPLOADING").await.id("id");
    let at = || Row::empty().with("completing_at", moment());
    refused(at().update_session(&db, id).await, "completing_has_actor");
    let by = || at().with("completing_by", "ann");
    refused(
        by().with("completing_metadata", json!("x")).update_session(&db, id).await,
        "completing_metadata_is_object",
    );
    by().with("completing_metadata", json!({"a": 1})).update_session(&db, id).await.unwrap();

    let session = multipart();
    session.insert(&db, "upload_session").await.unwrap();
    refused(place.event(&session).with("seq", 0).insert(&db, "upload_event").await, "seq_positive");
    refused(place.event(&session).with("details", json!([])).insert(&db, "upload_event").await, "details_is_object");
    place.event(&session).insert(&db, "upload_event").await.unwrap();
}

async fn required_columns_are_required(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    let nullable = |column: &str| matches!(column, "chunk_size" | "total_parts");
    let null = if db.backend() == DbBackend::Postgres { "null value in column" } else { "NOT NULL constraint failed" };

    let session = || place.session(Kind::Direct);
    for column in session().columns().filter(|column| !nullable(column)) {
        refused(session().null(column).insert(&db, "upload_session").await, null);
    }
    let done = place.stored(&db, Kind::Direct, "COMPLETED").await;
    // Without its ids an asset has no session, and is refused for that.
    for column in ["created_by", "status", "title", "file_name", "file_size", "mime_type", "bucket", "object_key"]
        .into_iter()
        .chain(["etag", "checksum_verified", "metadata", "created_at"])
    {
        refused(place.asset(&done).null(column).insert(&db, "asset").await, null);
    }
    for column in place.event(&done).columns() {
        refused(place.event(&done).null(column).insert(&db, "upload_event").await, null);
    }
}

async fn versions_and_events_only_count_up(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    let id = place.stored(&db, Kind::Direct, "UPLOADING").await.id("id");
    let rule = "version counts changes of state";

    for (version, event_seq) in [(3, 3), (1, 2), (2, 1)] {
        let row = Row::empty().with("version", version).with("event_seq", event_seq);
        refused(row.update_session(&db, id).await, rule);
    }
    for (version, event_seq) in [(2, 3), (4, 4), (3, 2)] {
        let row = state(Kind::Direct, "CANCELLED", version).with("event_seq", event_seq);
        refused(row.update_session(&db, id).await, rule);
    }
    // An event without a change of state, and a change of state after it.
    Row::empty().with("event_seq", 5).update_session(&db, id).await.unwrap();
    refused(state(Kind::Direct, "CANCELLED", 3).with("event_seq", 5).update_session(&db, id).await, rule);
    state(Kind::Direct, "CANCELLED", 3).with("event_seq", 6).update_session(&db, id).await.unwrap();
}

async fn outcomes_stay(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    let later = moment() + chrono::TimeDelta::seconds(1);
    let rule = "what a change of state has recorded of an upload session stays";
    for (status, column, value) in [
        ("COMPLETED", "completed_at", Value::from(later)),
        ("COMPLETED", "multipart_upload_id", text("upload-2")),
        ("FAILED", "failed_at", Value::from(later)),
        ("FAILED", "failure_reason", text("operator")),
        ("FAILED", "multipart_upload_id", text("upload-2")),
        ("CANCELLED", "cancelled_at", Value::from(later)),
        ("CANCELLED", "multipart_upload_id", text("upload-2")),
        ("UPLOADING", "completed_at", Value::from(later)),
        ("UPLOADING", "multipart_upload_id", text("upload-2")),
        ("INITIATING", "cancelled_at", Value::from(later)),
    ] {
        let id = place.stored(&db, Kind::Multipart, status).await.id("id");
        refused(Row::empty().with(column, value).update_session(&db, id).await, rule);
    }

    // A terminal state keeps the upload's id, because the cleanup has to end that upload.
    for terminal in ["FAILED", "CANCELLED"] {
        let id = place.stored(&db, Kind::Multipart, "UPLOADING").await.id("id");
        let forgetful = state(Kind::Multipart, terminal, 3).with("multipart_upload_id", NO_TEXT);
        refused(forgetful.update_session(&db, id).await, rule);
    }
}

async fn what_a_session_was_opened_with_stays(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    let other_brand = Place::add_brand(&db, place.tenant).await;
    let elsewhere = Place::create(&db).await;
    let id = place.stored(&db, Kind::Multipart, "UPLOADING").await.id("id");
    let changes = Row::empty()
        .with("tenant_id", elsewhere.tenant)
        .with("id", Uuid::now_v7())
        .with("brand_id", other_brand)
        .with("created_by", "bob")
        .with("upload_type", "direct")
        .with("profile", "other")
        .with("url_ttl_secs", 901)
        .with("bucket", "other")
        .with("chunk_size", 8_388_609_i64)
        .with("total_parts", 2)
        .with("file_name", "other")
        .with("file_size", 20_000_001_i64)
        .with("mime_type", "text/plain")
        .with("checksum_sha256", "0".repeat(64))
        .with("client_reference", "row-1")
        .with("batch_reference", "batch-1")
        .with("fingerprint", "print-1")
        .with("idempotency_key", "key-1")
        .with("asset_id", Uuid::now_v7())
        .with("created_at", moment() + chrono::TimeDelta::microseconds(1));
    for column in changes.columns() {
        let row = Row::empty().with(column, changes.get(column));
        refused(row.update_session(&db, id).await, "what an upload session was opened with stays");
    }

    let touched = moment() + chrono::TimeDelta::days(1);
    let touch = Row::empty().with("last_activity_at", touched).with("updated_at", touched).with("expires_at", touched);
    assert_eq!(touch.update_session(&db, id).await.unwrap(), 1);
}

async fn only_the_ended_are_cleared(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    for status in STATUSES {
        let id = place.stored(&db, Kind::Multipart, status).await.id("id");
        let result = Row::empty().with("storage_cleared_at", moment()).update_session(&db, id).await;
        if matches!(status, "COMPLETED" | "FAILED" | "CANCELLED") {
            assert_eq!(result.unwrap(), 1);
        } else {
            refused(result, "only_the_ended_are_cleared");
        }
    }
}

async fn only_the_ended_fail_to_clear(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    for status in STATUSES {
        let id = place.stored(&db, Kind::Multipart, status).await.id("id");
        let result = Row::empty().with("clear_failed_at", moment()).update_session(&db, id).await;
        if matches!(status, "COMPLETED" | "FAILED" | "CANCELLED") {
            assert_eq!(result.unwrap(), 1);
        } else {
            refused(result, "only_the_ended_fail_to_clear");
        }
    }
}

async fn closed_lists_are_closed(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    let odd_type = place.session(Kind::Multipart).with("upload_type", "ftp");
    refused(odd_type.insert(&db, "upload_session").await, "upload_type_known");

    let id = place.stored(&db, Kind::Direct, "UPLOADING").await.id("id");
    let whim = state(Kind::Direct, "FAILED", 3).with("failure_reason", "whim");
    refused(whim.update_session(&db, id).await, "failure_reason_known");
    for reason in ["abandoned", "expired", "storage_error", "verification_failed", "operator"] {
        let id = place.stored(&db, Kind::Direct, "UPLOADING").await.id("id");
        let failed = state(Kind::Direct, "FAILED", 3).with("failure_reason", reason);
        failed.update_session(&db, id).await.unwrap();
    }

    let done = place.stored(&db, Kind::Direct, "COMPLETED").await;
    for (column, rule) in
        [("from_status", "from_status_known"), ("to_status", "to_status_known"), ("reason", "reason_known")]
    {
        refused(place.event(&done).with(column, "whim").insert(&db, "upload_event").await, rule);
    }
    refused(place.asset(&done).with("status", "whim").insert(&db, "asset").await, "status_known");
    refused(place.asset(&done).with("file_size", -1_i64).insert(&db, "asset").await, "file_size_not_negative");
    refused(place.asset(&done).with("metadata", json!(1)).insert(&db, "asset").await, "metadata_is_object");

    // The triggers come first and refuse an unknown state as well.
    drop_trigger(&db, "upload_session_starts", "upload_session").await;
    let paused = place.session(Kind::Direct).with("status", "PAUSED");
    refused(paused.insert(&db, "upload_session").await, "status_known");
}

async fn foreign_brands_and_tenants_are_refused(db: TestDb) {
    let db = db.migrated().await;
    let (here, there) = (Place::create(&db).await, Place::create(&db).await);
    let foreign_key =
        if db.backend() == DbBackend::Postgres { "violates foreign key constraint" } else { "FOREIGN KEY constraint" };

    let mixed = Place { tenant: here.tenant, brand: there.brand };
    refused(mixed.session(Kind::Direct).insert(&db, "upload_session").await, foreign_key);
    let nobody = Place { tenant: Uuid::now_v7(), brand: here.brand };
    refused(nobody.session(Kind::Direct).insert(&db, "upload_session").await, foreign_key);
    let homeless = Row::empty().with("tenant_id", Uuid::now_v7()).with("id", Uuid::now_v7());
    let homeless = homeless.with("slug", "main").with("created_at", moment());
    refused(homeless.insert(&db, "brand").await, foreign_key);

    let session = here.stored(&db, Kind::Direct, "COMPLETED").await;
    refused(there.event(&session).insert(&db, "upload_event").await, foreign_key);
    refused(there.asset(&session).insert(&db, "asset").await, "its COMPLETED session has reserved");
    drop_trigger(&db, "asset_has_session", "asset").await;
    refused(there.asset(&session).insert(&db, "asset").await, foreign_key);
    refused(mixed.asset(&session).insert(&db, "asset").await, foreign_key);
}

async fn an_asset_belongs_to_its_completed_session(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    let rule = "its COMPLETED session has reserved";
    for status in STATUSES.into_iter().filter(|status| *status != "COMPLETED") {
        let session = place.stored(&db, Kind::Multipart, status).await;
        refused(place.asset(&session).insert(&db, "asset").await, rule);
    }

    let session = place.stored(&db, Kind::Multipart, "COMPLETED").await;
    refused(place.asset(&session).with("id", Uuid::now_v7()).insert(&db, "asset").await, rule);
    let other_brand = Place::add_brand(&db, place.tenant).await;
    refused(place.asset(&session).with("brand_id", other_brand).insert(&db, "asset").await, rule);
    place.asset(&session).insert(&db, "asset").await.unwrap();

    let other = place.stored(&db, Kind::Multipart, "COMPLETED").await;
    for (column, id) in [("id", other.id("asset_id")), ("upload_session_id", other.id("id"))] {
        let result = db.execute(&format!("UPDATE asset SET {column} = $1"), [Value::from(id)]).await;
        refused(result, "where an asset came from stays");
    }

    // The trigger lets no second one pass; nor does the index where the trigger is away.
    refused(place.asset(&session).with("id", Uuid::now_v7()).insert(&db, "asset").await, rule);
    drop_trigger(&db, "asset_has_session", "asset").await;
    refused(place.asset(&session).with("id", Uuid::now_v7()).insert(&db, "asset").await, "upload_session_id");
}

async fn references_are_taken_once_per_user_and_brand(db: TestDb) {
    let db = db.migrated().await;
    let (here, there) = (Place::create(&db).await, Place::create(&db).await);
    let other_brand = Place { brand: Place::add_brand(&db, here.tenant).await, ..here };
    let keyed = |place: Place| place.session(Kind::Direct).with("idempotency_key", "key-1");
    let referenced =
        |place: Place| place.session(Kind::Direct).with("batch_reference", "batch-1").with("client_reference", "row-1");
    let table = "upload_session";
    for (row, column) in
        [(keyed as fn(Place) -> Row, "idempotency_key"), (referenced as fn(Place) -> Row, "client_reference")]
    {
        row(here).insert(&db, table).await.unwrap();
        let taken = row(here).insert(&db, table).await.unwrap_err().to_string();
        // What the program tells the two apart by.
        assert!(taken.contains(column), "{taken}");
        assert_eq!(taken.contains("idempotency_key"), column == "idempotency_key", "{taken}");
        row(here).with("created_by", "bob").insert(&db, table).await.unwrap();
        row(other_brand).insert(&db, table).await.unwrap();
        row(there).insert(&db, table).await.unwrap();
    }
    // Half a pair of references is none.
    for _ in 0..2 {
        here.session(Kind::Direct).with("batch_reference", "batch-1").insert(&db, table).await.unwrap();
        here.session(Kind::Direct).with("client_reference", "row-1").insert(&db, table).await.unwrap();
    }
}

async fn slugs_are_taken_once(db: TestDb) {
    let db = db.migrated().await;
    let (here, there) = (Place::create(&db).await, Place::create(&db).await);
    let named = || Row::empty().with("id", Uuid::now_v7()).with("slug", "main").with("created_at", moment());
    let brand = |place: Place| named().with("tenant_id", place.tenant);
    brand(here).insert(&db, "brand").await.unwrap();
    brand(there).insert(&db, "brand").await.unwrap();
    refused(brand(here).insert(&db, "brand").await, "slug");
    named().insert(&db, "tenant").await.unwrap();
    refused(named().insert(&db, "tenant").await, "slug");
}

async fn entities_come_back_as_they_went(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    let stored = place.stored(&db, Kind::Multipart, "COMPLETED").await;
    place.asset(&stored).insert(&db, "asset").await.unwrap();
    place.event(&stored).insert(&db, "upload_event").await.unwrap();

    // Read, written under another id, and read again.
    let session = upload_session::Entity::find().one(&db.pool).await.unwrap().unwrap();
    assert_eq!(session.brand_id, BrandId(place.brand));
    assert_eq!(session.completed_at, Some(moment()));
    let again = upload_session::Model {
        id: entity::SessionId::new(),
        status: upload_session::Status::Initiating,
        version: 1,
        event_seq: 1,
        multipart_upload_id: None,
        completed_at: None,
        metadata: json!({"b": 1, "a": [1.5, "\u{1F600}"]}),
        ..session
    };
    let id = again.id;
    upload_session::Entity::insert(again.clone().into_active_model()).exec_without_returning(&db.pool).await.unwrap();
    let found = upload_session::Entity::find_by_id((again.tenant_id, id)).one(&db.pool).await.unwrap().unwrap();
    assert_eq!(found, again);

    let asset = asset::Entity::find().one(&db.pool).await.unwrap().unwrap();
    assert!(!asset.checksum_verified);
    assert_eq!(asset.created_at, moment());
    let event = upload_event::Entity::find().one(&db.pool).await.unwrap().unwrap();
    assert_eq!((event.seq, event.details), (1, json!({})));
}

/// SQLite keeps a time as text, with as many digits as it needs.
async fn times_compare_as_times(db: TestDb) {
    let db = db.migrated().await;
    let place = Place::create(&db).await;
    let second = chrono::DateTime::from_timestamp(1_795_000_000, 0).unwrap();
    let times =
        [0, 1, 1_000, 1_001, 500_000, 999_999, 1_000_000].map(|us| second + chrono::TimeDelta::microseconds(us));
    for time in times {
        place.session(Kind::Direct).with("last_activity_at", time).insert(&db, "upload_session").await.unwrap();
    }
    for (earlier, time) in times.into_iter().enumerate() {
        let found = upload_session::Entity::find().filter(upload_session::Column::LastActivityAt.lt(time));
        assert_eq!(found.all(&db.pool).await.unwrap().len(), earlier, "before {time:?}");
    }
}
