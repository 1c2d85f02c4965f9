//! A completed upload becomes an asset that can be served: copied out of the quarantine, exactly once and exactly as it
//! was completed.

use entity::{SessionId, TenantId, asset, job};
use futures_util::future::{join, join_all};
use quaymaster::asset::{Promoted, promote, promote_job};
use quaymaster::engine::Engine;
use quaymaster::error::Result;
use sea_orm::{ActiveEnum, ColumnTrait, EntityTrait, QueryFilter};
use serde_json::json;

use crate::kit::{Actor, Fault, MIB, Op, TestApp, Upload, stories};

stories![
    it_moves_the_object_to_where_it_is_served_from,
    completion_leaves_a_job_that_promotes,
    asked_again_it_answers_what_it_did,
    many_at_once_make_one_ready_asset,
    a_large_object_is_copied_by_parts,
    a_large_copy_that_fails_is_aborted_and_made_anew,
    a_large_copy_that_was_killed_leaves_nothing_in_the_end,
    an_object_overwritten_after_completion_is_never_ready,
    an_object_overwritten_during_the_copy_is_never_ready,
    an_object_that_is_gone_fails_the_asset,
    a_lost_answer_of_the_copy_costs_nothing,
    killed_between_copy_and_record_it_goes_on,
    killed_between_record_and_delete_it_is_ready,
    a_store_that_is_away_changes_nothing,
    a_copy_of_another_size_fails_the_asset,
    a_database_that_is_away_changes_nothing,
    a_bucket_that_is_gone_is_no_verdict,
    what_is_not_completed_is_not_promoted,
];

/// A completed upload, and the id of its asset.
pub async fn completed(ann: &Actor, file_name: &str, size: u64) -> (Upload, String) {
    let upload = ann.initiate(file_name, size).await;
    match upload.session["upload_type"].as_str() {
        Some("direct") => assert_eq!(ann.send(&upload).await, 200),
        _ => ann.send_all_parts(&upload).await,
    }
    let asset = ann.complete(&upload).await.created();
    (upload, asset["asset_id"].as_str().unwrap().to_owned())
}

pub async fn promoted(app: &TestApp, ann: &Actor, upload: &Upload) -> Result<Promoted> {
    promoting(app.engine().await, ann, upload).await
}

pub fn promoting(
    engine: Engine,
    ann: &Actor,
    upload: &Upload,
) -> impl Future<Output = Result<Promoted>> + Send + 'static {
    let (tenant, session): (_, SessionId) = (TenantId(ann.tenant.id), upload.id.parse().unwrap());
    async move { promote(&engine, tenant, session).await }
}

fn asset_key(ann: &Actor, id: &str) -> String {
    format!("assets/{}/{id}/original", ann.tenant.id)
}

async fn asset_row(app: &TestApp, upload: &Upload) -> asset::Model {
    let session: SessionId = upload.id.parse().unwrap();
    let query = asset::Entity::find().filter(asset::Column::UploadSessionId.eq(session));
    query.one(&app.database.rows).await.unwrap().unwrap()
}

async fn it_moves_the_object_to_where_it_is_served_from(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for size in [10, 6 * MIB] {
        let (upload, id) = completed(&ann, "reel.mov", size).await;
        let before = ann.get(&format!("/app/assets/{id}")).await.ok();
        let content_type = app.store.content_type(&upload.key()).await;
        assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Ready(_)));

        let key = asset_key(&ann, &id);
        assert!(app.store.read(&key).await == upload.bytes);
        assert_eq!(app.store.content_type(&key).await, content_type);
        assert!(app.store.objects().await.iter().all(|(key, _)| *key != upload.key()), "the temporary object is gone");
        let row = asset_row(&app, &upload).await;
        assert_eq!((row.status, row.object_key, row.failure), (asset::Status::Ready, key, None));
        assert!(row.ready_at.is_some());
        let after = ann.get(&format!("/app/assets/{id}")).await.ok();
        assert_eq!((&after["status"], &after["etag"]), (&json!("READY"), &before["etag"]));
        assert_eq!(ann.history(&upload).await, ["initiate", "open", "complete", "asset.ready", "storage.discard"]);
        // The session is what it was, and so is the answer to a late complete.
        assert_eq!(ann.status(&upload).await, "COMPLETED");
        assert_eq!(ann.complete(&upload).await.ok()["asset_id"], json!(id));
    }
}

async fn completion_leaves_a_job_that_promotes(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, _) = completed(&ann, "note.txt", 10).await;
    ann.complete(&upload).await.ok();
    let jobs = job::Entity::find().filter(job::Column::Kind.eq("promote")).all(&app.database.rows).await.unwrap();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!(jobs[0].dedupe_key, Some(format!("promote/{}", upload.id)));
    let engine = app.engine().await;
    promote_job(&engine, &jobs[0]).await.unwrap();
    promote_job(&engine, &jobs[0]).await.unwrap();
    assert_eq!(asset_row(&app, &upload).await.status, asset::Status::Ready);
    promote_job(&engine, &job::Model { payload: json!({"tenant_id": 1}), ..jobs[0].clone() }).await.unwrap_err();
}

async fn asked_again_it_answers_what_it_did(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, _) = completed(&ann, "note.txt", 10).await;
    let Promoted::Ready(first) = promoted(&app, &ann, &upload).await.unwrap() else { panic!("not by this call") };
    let Promoted::Already(again) = promoted(&app, &ann, &upload).await.unwrap() else { panic!("not before") };
    assert_eq!(first, again);
}

async fn many_at_once_make_one_ready_asset(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let engine = app.engine().await;
    for _ in 0..6 {
        let (upload, _) = completed(&ann, "note.txt", 10).await;
        let tries = join_all((0..4).map(|_| promoting(engine.clone(), &ann, &upload))).await;
        let ready = tries.iter().filter(|outcome| matches!(outcome, Ok(Promoted::Ready(_)))).count();
        assert_eq!(ready, 1, "{tries:?}");
        assert!(tries.iter().all(|outcome| !matches!(outcome, Ok(Promoted::Failed(_)) | Err(_))), "{tries:?}");
        assert_eq!(ann.history(&upload).await, ["initiate", "open", "complete", "asset.ready", "storage.discard"]);
    }
}

/// A server that copies by parts what is larger than the least part.
async fn copying_by_parts(app: &TestApp) -> Actor {
    app.restart_with(&[("QUAYMASTER_STORAGE__MAX_COPY_BYTES", "5242880")]).await;
    app.tenant("acme").user("ann")
}

async fn a_large_object_is_copied_by_parts(app: TestApp) {
    let ann = copying_by_parts(&app).await;
    let (upload, id) = completed(&ann, "reel.mov", 12 * MIB).await;
    let content_type = app.store.content_type(&upload.key()).await;
    assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Ready(_)));
    assert_eq!(app.store.faults().calls(Op::UploadPartCopy), 3);
    assert_eq!(app.store.faults().calls(Op::CopyObject), 0);
    assert!(app.store.read(&asset_key(&ann, &id)).await == upload.bytes);
    assert_eq!(app.store.content_type(&asset_key(&ann, &id)).await, content_type);
    assert!(app.store.uploads().await.is_empty());
}

async fn a_large_copy_that_fails_is_aborted_and_made_anew(app: TestApp) {
    let ann = copying_by_parts(&app).await;
    let (upload, _) = completed(&ann, "reel.mov", 12 * MIB).await;
    for (op, fault) in [
        (Op::UploadPartCopy, Fault::Answer(500, "InternalError")),
        (Op::UploadPartCopy, Fault::Answer(404, "NoSuchUpload")),
        (Op::UploadPartCopy, Fault::DropAnswer),
        (Op::CompleteMultipartUpload, Fault::Answer(500, "InternalError")),
        (Op::CompleteMultipartUpload, Fault::DropRequest),
    ] {
        app.store.faults().order(op, fault.clone());
        promoted(&app, &ann, &upload).await.unwrap_err();
        app.store.heal();
        assert!(app.store.uploads().await.is_empty(), "after {op:?} {fault:?}");
        assert_eq!(asset_row(&app, &upload).await.status, asset::Status::Uploaded, "after {op:?} {fault:?}");
    }
    // The store has assembled the copy, and nobody heard of it.
    app.store.faults().order(Op::CompleteMultipartUpload, Fault::DropAnswer);
    let _ = promoted(&app, &ann, &upload).await;
    app.store.heal();
    let copied = app.store.faults().calls(Op::UploadPartCopy);
    promoted(&app, &ann, &upload).await.unwrap();
    assert_eq!(app.store.faults().calls(Op::UploadPartCopy), copied, "the copy was found");
    assert_eq!(asset_row(&app, &upload).await.status, asset::Status::Ready);
}

async fn a_large_copy_that_was_killed_leaves_nothing_in_the_end(app: TestApp) {
    let ann = copying_by_parts(&app).await;
    let (upload, id) = completed(&ann, "reel.mov", 12 * MIB).await;
    let mut cut_short = Vec::new();
    for op in [Op::CompleteMultipartUpload, Op::UploadPartCopy] {
        let held = app.store.faults().hold_request(op);
        let task = tokio::spawn(promoting(app.engine().await, &ann, &upload));
        held.arrived().await;
        task.abort();
        task.await.unwrap_err();
        // Let go now, the request would still reach the store.
        cut_short.push(held);
    }
    assert_eq!(app.store.uploads().await.len(), 2, "two copies were cut short");
    drop(cut_short);
    assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Ready(_)));
    assert!(app.store.uploads().await.is_empty());
    assert!(app.store.read(&asset_key(&ann, &id)).await == upload.bytes);
}

async fn is_failed(app: &TestApp, ann: &Actor, upload: &Upload, id: &str, why: &str) {
    let row = asset_row(app, upload).await;
    assert_eq!(row.status, asset::Status::Failed);
    assert!(row.failure.as_deref().is_some_and(|failure| failure.contains(why)), "{row:?}");
    assert_eq!(ann.history(upload).await.last().unwrap(), "asset.failed");
    ann.get(&format!("/app/assets/{id}/download")).await.is_problem(409, "asset-not-ready");
    assert!(app.store.objects().await.iter().all(|(key, _)| !key.starts_with("assets/")), "nothing is served");
    // It stays for an operator.
    assert!(matches!(promoted(app, ann, upload).await.unwrap(), Promoted::Already(_)));
    assert_eq!(ann.status(upload).await, "COMPLETED");
}

async fn an_object_overwritten_after_completion_is_never_ready(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, id) = completed(&ann, "note.txt", 10).await;
    // The URL of the one PUT is good for a second one: it has not ended yet.
    assert_eq!(ann.send_to(&upload.session, b"other text".to_vec()).await, 200);
    assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Failed(_)));
    is_failed(&app, &ann, &upload, &id, "overwritten").await;
    assert_eq!(app.store.read(&upload.key()).await, b"other text", "an operator may look at it");
}

async fn an_object_overwritten_during_the_copy_is_never_ready(app: TestApp) {
    let ann = copying_by_parts(&app).await;
    for (size, op) in [(10, Op::CopyObject), (6 * MIB, Op::UploadPartCopy)] {
        let (upload, id) = completed(&ann, "reel.mov", size).await;
        // The server has looked, and the store has not begun.
        let held = app.store.faults().hold_request(op);
        let task = tokio::spawn(promoting(app.engine().await, &ann, &upload));
        held.arrived().await;
        app.store.put(&upload.key(), &vec![b'x'; usize::try_from(size).unwrap()]).await;
        held.release();
        assert!(matches!(task.await.unwrap().unwrap(), Promoted::Failed(_)), "{op:?}");
        is_failed(&app, &ann, &upload, &id, "overwritten").await;
        assert!(app.store.uploads().await.is_empty());
    }
}

async fn an_object_that_is_gone_fails_the_asset(app: TestApp) {
    let ann = copying_by_parts(&app).await;
    for size in [10, 6 * MIB] {
        let (upload, id) = completed(&ann, "note.txt", size).await;
        app.store.delete(&upload.key()).await;
        assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Failed(_)));
        is_failed(&app, &ann, &upload, &id, "gone").await;
        assert!(app.store.uploads().await.is_empty());
    }
}

async fn a_lost_answer_of_the_copy_costs_nothing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, id) = completed(&ann, "note.txt", 10).await;
    app.store.faults().order(Op::CopyObject, Fault::DropAnswer);
    promoted(&app, &ann, &upload).await.unwrap_err();
    app.store.heal();
    assert_eq!(asset_row(&app, &upload).await.status, asset::Status::Uploaded);
    // Even where the source is lost meanwhile: the copy is whole.
    app.store.delete(&upload.key()).await;
    let copied = app.store.faults().calls(Op::CopyObject);
    assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Ready(_)));
    assert_eq!(app.store.faults().calls(Op::CopyObject), copied);
    assert!(app.store.read(&asset_key(&ann, &id)).await == upload.bytes);
}

async fn killed_between_copy_and_record_it_goes_on(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, _) = completed(&ann, "note.txt", 10).await;
    let held = app.store.faults().hold_answer(Op::CopyObject);
    let task = tokio::spawn(promoting(app.engine().await, &ann, &upload));
    held.arrived().await;
    task.abort();
    task.await.unwrap_err();
    drop(held);
    assert_eq!(asset_row(&app, &upload).await.status, asset::Status::Uploaded);
    assert_eq!(app.store.objects().await.len(), 2, "the source and the copy");
    assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Ready(_)));
}

async fn killed_between_record_and_delete_it_is_ready(app: TestApp) {
    // The temporary object is the cleanup's then.
    app.expect_leftovers();
    let ann = app.tenant("acme").user("ann");
    let (upload, id) = completed(&ann, "note.txt", 10).await;
    let held = app.store.faults().hold_request(Op::DeleteObject);
    let task = tokio::spawn(promoting(app.engine().await, &ann, &upload));
    held.arrived().await;
    task.abort();
    task.await.unwrap_err();
    assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Already(_)));
    assert_eq!(asset_row(&app, &upload).await.status, asset::Status::Ready);
    ann.get(&format!("/app/assets/{id}/download?redirect=false")).await.ok();
}

async fn a_store_that_is_away_changes_nothing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, _) = completed(&ann, "note.txt", 10).await;
    for (op, fault) in [
        (Op::CopyObject, Fault::Answer(503, "SlowDown")),
        (Op::CopyObject, Fault::Answer(200, "InternalError")),
        (Op::CopyObject, Fault::Answer(403, "AccessDenied")),
        (Op::CopyObject, Fault::Hang),
        (Op::HeadObject, Fault::Answer(503, "SlowDown")),
    ] {
        app.store.faults().order(op, fault.clone());
        promoted(&app, &ann, &upload).await.expect_err(&format!("{op:?} {fault:?}"));
        app.store.heal();
        assert_eq!(asset_row(&app, &upload).await.status, asset::Status::Uploaded, "after {op:?} {fault:?}");
    }
    let failed = "storage.copy_failed";
    let history = ["initiate", "open", "complete", failed, failed, failed, failed];
    assert_eq!(ann.history(&upload).await, history, "a look is no effect");
    for cause in ["SlowDown", "SlowDown", "InternalError"] {
        app.store.faults().order(Op::CopyObject, Fault::Answer(503, cause));
        promoted(&app, &ann, &upload).await.unwrap_err();
        app.store.heal();
    }
    assert_eq!(ann.history(&upload).await.len(), history.len() + 2, "the same again is no news");
    assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Ready(_)));
}

/// The ETag of an object in parts is none of its bytes, so the copy is looked at.
async fn a_copy_of_another_size_fails_the_asset(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, id) = completed(&ann, "reel.mov", 6 * MIB).await;
    let held = app.store.faults().hold_answer(Op::CopyObject);
    let task = tokio::spawn(promoting(app.engine().await, &ann, &upload));
    held.arrived().await;
    app.store.put(&asset_key(&ann, &id), b"cut").await;
    held.release();
    assert!(matches!(task.await.unwrap().unwrap(), Promoted::Failed(_)));
    // It stays for an operator, and so does what was completed.
    assert!(app.store.read(&upload.key()).await == upload.bytes);
    app.store.delete(&asset_key(&ann, &id)).await;
    is_failed(&app, &ann, &upload, &id, "differ in size").await;
}

async fn a_database_that_is_away_changes_nothing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, _) = completed(&ann, "note.txt", 10).await;
    let held = app.store.faults().hold_answer(Op::CopyObject);
    let task = tokio::spawn(promoting(app.engine().await, &ann, &upload));
    held.arrived().await;
    app.database.cut().await;
    held.release();
    task.await.unwrap().unwrap_err();
    app.database.heal().await;
    assert_eq!(asset_row(&app, &upload).await.status, asset::Status::Uploaded);
    assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Ready(_)));
}

async fn a_bucket_that_is_gone_is_no_verdict(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, _) = completed(&ann, "note.txt", 10).await;
    app.store.faults().order(Op::CopyObject, Fault::Answer(404, "NoSuchBucket"));
    app.store.faults().order(Op::HeadObject, Fault::Answer(404, "NoSuchBucket"));
    promoted(&app, &ann, &upload).await.unwrap_err();
    app.store.heal();
    assert_eq!(asset_row(&app, &upload).await.status.to_value(), "UPLOADED");
    promoted(&app, &ann, &upload).await.unwrap();
}

async fn what_is_not_completed_is_not_promoted(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let live = ann.initiate("note.txt", 10).await;
    promoted(&app, &ann, &live).await.unwrap_err();
    let (done, _) = completed(&ann, "note.txt", 10).await;
    let eve = app.tenant("globex").user("eve");
    promoted(&app, &eve, &done).await.unwrap_err();
    // A complete that races with a promotion of what it makes.
    for _ in 0..20 {
        let live = ann.initiate("note.txt", 10).await;
        assert_eq!(ann.send(&live).await, 200);
        let promotion = promoting(app.engine().await, &ann, &live);
        let (completed, _) = join(ann.complete(&live), promotion).await;
        completed.created();
    }
}
