//! A store that does not do what it was asked, or answers what is not so any more: nothing is lost by it, nothing is called
//! what it is not, and nothing is destroyed on one answer.

use chrono::TimeDelta;
use entity::{SessionId, asset, upload_session};
use quaymaster::asset::Promoted;
use quaymaster::pass::Pass;
use quaymaster::storage::Location;
use sea_orm::EntityTrait;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::kit::{Actor, CHUNK, Fault, Lie, MIB, OWNER, Op, TestApp, Upload, sha256, stories};
use crate::promote::{completed, promoted, promoting};

stories![
    an_object_that_is_not_seen_yet_is_waited_for,
    an_object_whose_answer_was_lost_is_waited_for,
    an_object_that_only_a_list_has_is_no_missing_one,
    a_wish_outlives_a_short_list_of_parts,
    an_upload_that_is_missing_in_one_answer_is_not_given_up,
    an_idle_session_that_is_missing_in_one_answer_is_not_given_up,
    an_idle_session_whose_parts_one_list_lacks_is_not_given_up,
    a_verdict_leaves_the_bytes_to_the_cleanup,
    a_checksum_is_verified_where_the_store_gives_it_back,
    other_bytes_than_were_announced_fail_the_session,
    a_refused_complete_leaves_an_accepted_one_as_it_is,
    a_later_complete_keeps_what_it_does_not_name,
    a_copy_of_what_was_not_completed_is_never_ready,
    a_copy_that_is_not_its_source_is_never_ready,
    a_copy_with_an_etag_of_its_own_is_looked_at,
    a_source_that_is_missing_in_one_answer_fails_no_asset,
    a_source_that_only_looks_say_is_another_fails_no_asset,
    a_copy_that_cannot_be_proved_any_more_fails_no_asset,
    a_reference_outlives_an_outage,
    a_part_that_the_store_does_not_know_is_looked_for_again,
    a_part_that_is_sent_again_meanwhile_is_not_what_was_named,
    an_old_list_of_parts_loses_nothing,
    an_upload_that_only_an_old_list_names_is_not_opened,
    an_empty_list_of_uploads_is_tried_before_it_is_believed,
    what_a_bucket_keeps_as_a_version_is_deleted,
    what_a_bucket_hides_of_many_is_deleted_too,
    what_a_bucket_does_not_let_go_is_not_called_cleared,
    a_list_of_versions_without_the_marker_clears_nothing,
    a_marker_that_is_missing_in_one_answer_gives_no_bucket_away,
    whatever_the_lie_nothing_is_lost_and_nothing_is_made_up,
];

async fn failed(app: &TestApp, pass: Pass) -> u64 {
    app.pass(pass).await.failed
}

fn named(upload: &Upload, title: &str) -> Value {
    json!({"upload_session_id": upload.id, "title": title})
}

async fn reel(ann: &Actor) -> Upload {
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;
    reel
}

async fn an_object_that_is_not_seen_yet_is_waited_for(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = reel(&ann).await;
    app.store.faults().lie(Lie::StaleHead);
    ann.complete_with(&named(&reel, "The reel")).await.is_problem(503, "storage-unavailable");
    let history = ["initiate", "open", "storage.object_unseen"];
    assert_eq!(ann.history(&reel).await, history);

    ann.complete(&reel).await.is_problem(503, "storage-unavailable");
    ann.resume(&reel).await.is_problem(503, "storage-unavailable");
    app.advance(TimeDelta::minutes(10));
    ann.complete(&reel).await.is_problem(503, "storage-unavailable");
    app.advance(TimeDelta::minutes(10));
    assert_eq!(failed(&app, Pass::Reconcile).await, 1);
    app.advance_with_the_store(TimeDelta::hours(25));
    assert_eq!(failed(&app, Pass::DetectAbandoned).await, 1, "the store has said that it has the object");
    assert_eq!(ann.history(&reel).await, history);
    assert_eq!(app.store.faults().calls(Op::DeleteObject), 0);

    app.store.faults().tell_the_truth();
    assert_eq!(app.pass(Pass::Reconcile).await.done, 1);
    assert_eq!(ann.complete(&reel).await.ok()["title"], "The reel");
    assert!(app.store.read(&reel.key()).await == reel.bytes);
}

/// Nobody has heard the store say that it made the object.
async fn an_object_whose_answer_was_lost_is_waited_for(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = reel(&ann).await;
    app.store.faults().lie(Lie::StaleHead);
    app.store.faults().drop_answers(Op::CompleteMultipartUpload);
    for _ in 0..3 {
        ann.complete_with(&named(&reel, "The reel")).await.is_problem(503, "storage-unavailable");
        ann.resume(&reel).await.is_problem(503, "storage-unavailable");
    }
    app.store.heal();
    // A list knows what a look at the object does not.
    app.advance(TimeDelta::minutes(2));
    ann.complete(&reel).await.is_problem(503, "storage-unavailable");
    assert_eq!(failed(&app, Pass::Reconcile).await, 1);
    assert_eq!(ann.status(&reel).await, "UPLOADING");
    app.store.faults().tell_the_truth();
    assert_eq!(ann.complete(&reel).await.created()["title"], "The reel");
}

async fn an_upload_that_is_missing_in_one_answer_is_not_given_up(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = reel(&ann).await;
    app.store.faults().order(Op::ListParts, Fault::Answer(404, "NoSuchUpload"));
    ann.resume(&reel).await.is_problem(503, "storage-unavailable");
    ann.complete(&reel).await.is_problem(503, "storage-unavailable");
    app.advance(TimeDelta::minutes(2));
    assert_eq!(failed(&app, Pass::Reconcile).await, 1);
    assert_eq!(ann.history(&reel).await, ["initiate", "open"]);
    app.store.heal();
    ann.complete(&reel).await.created();
}

async fn an_idle_session_that_is_missing_in_one_answer_is_not_given_up(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = reel(&ann).await;
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    app.advance_with_the_store(TimeDelta::hours(25));
    app.store.faults().order(Op::ListParts, Fault::Answer(404, "NoSuchUpload"));
    app.store.faults().order(Op::HeadObject, Fault::Answer(404, "NoSuchKey"));
    assert_eq!(failed(&app, Pass::DetectAbandoned).await, 2);
    app.store.heal();
    for upload in [&reel, &note] {
        assert_eq!(ann.status(upload).await, "UPLOADING");
    }
    assert_eq!(app.pass(Pass::DetectAbandoned).await.done, 2);
}

const NO_PARTS: &str = "<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>";

async fn an_idle_session_whose_parts_one_list_lacks_is_not_given_up(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    let put_after_a_day = async |number| {
        app.advance_with_the_store(TimeDelta::hours(25));
        app.store.faults().age(TimeDelta::hours(-25));
        ann.put_part(&reel, number).await;
    };
    put_after_a_day(1).await;
    app.store.faults().order_once(Op::ListParts, Fault::Say(NO_PARTS.to_owned()));
    assert_eq!(app.pass(Pass::DetectAbandoned).await.skipped, 1);
    app.store.heal();
    assert_eq!(ann.status(&reel).await, "UPLOADING");
    assert_eq!(ann.resume(&reel).await.ok()["uploaded_bytes"], CHUNK);

    // Where each list lacks them, nothing but the session is lost before the cleanup's time.
    put_after_a_day(2).await;
    app.store.faults().order(Op::ListParts, Fault::Say(NO_PARTS.to_owned()));
    assert_eq!(app.pass(Pass::DetectAbandoned).await.done, 1);
    assert_eq!(app.pass(Pass::Cleanup).await.found, 0);
    app.store.heal();
    assert_eq!(app.store.faults().calls(Op::AbortMultipartUpload), 0);
    let held = app.store.s3.list_parts().bucket(&app.store.bucket).key(reel.key()).upload_id(reel.upload_id());
    assert_eq!(held.send().await.unwrap().parts().len(), 2);
    app.advance(TimeDelta::minutes(17));
    assert_eq!(app.pass(Pass::Cleanup).await.done, 1);
    assert!(app.store.uploads().await.is_empty());
}

async fn a_verdict_leaves_the_bytes_to_the_cleanup(app: TestApp) {
    app.expect_leftovers();
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 100).await;
    app.store.put(&note.key(), &[0; 99]).await;
    ann.complete(&note).await.is_problem(409, "illegal-transition");
    assert_eq!(ann.session(&note).await.ok()["failure_reason"], "verification_failed");
    assert_eq!(app.store.objects().await, [(note.key(), 99)], "an operator may look at it");
    app.advance(TimeDelta::minutes(17));
    assert_eq!(app.pass(Pass::Cleanup).await.done, 1);
    assert!(app.store.objects().await.is_empty());
}

/// SHA-256 of "hello".
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

async fn hello(ann: &Actor) -> Upload {
    let body = json!({"file_name": "hello.txt", "file_size": 5, "checksum_sha256": HELLO});
    Upload { bytes: b"hello".to_vec(), ..Upload::new(ann.initiate_with(&body).await.created()) }
}

/// Clients send by way of the proxy, too.
async fn clients_meet_the_liar(app: &TestApp) {
    let proxy = format!("http://{}", app.store.faults().addr);
    app.restart_with(&[("QUAYMASTER_STORAGE__PUBLIC_ENDPOINT", &proxy)]).await;
}

async fn a_checksum_is_verified_where_the_store_gives_it_back(app: TestApp) {
    clients_meet_the_liar(&app).await;
    let ann = app.tenant("acme").user("ann");
    for (lie, is_verified) in [(Some(Lie::IgnoresChecksum), false), (None, true)] {
        let file = hello(&ann).await;
        match lie {
            Some(lie) => {
                app.store.faults().lie(lie);
                assert_eq!(ann.send_to(&file.session, b"olleh".to_vec()).await, 200, "it takes any bytes");
            }
            None => assert_eq!(ann.send(&file).await, 200),
        }
        let asset = ann.complete(&file).await.created();
        assert_eq!(asset["checksum_sha256"], HELLO);
        assert_eq!(asset["checksum_verified"], is_verified, "{lie:?}");
        let receipt = ann.get(&format!("/app/uploads/{}/receipt", file.id)).await.ok();
        assert_eq!(receipt["receipt"]["checksum_verified"], is_verified, "{lie:?}");
        app.store.faults().tell_the_truth();
    }
}

async fn other_bytes_than_were_announced_fail_the_session(app: TestApp) {
    app.expect_leftovers();
    let ann = app.tenant("acme").user("ann");
    let file = hello(&ann).await;
    let put = app.store.s3.put_object().bucket(&app.store.bucket).key(file.key()).checksum_sha256(sha256(b"olleh"));
    put.body(b"olleh".to_vec().into()).send().await.unwrap();
    ann.complete(&file).await.is_problem(409, "illegal-transition");
    assert_eq!(ann.session(&file).await.ok()["failure_reason"], "verification_failed");
}

fn wrong_parts(upload: &Upload) -> Value {
    json!({"upload_session_id": upload.id, "parts": [{"part_number": 1, "etag": "another"}], "title": "Wrong"})
}

async fn a_refused_complete_leaves_an_accepted_one_as_it_is(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let first = reel(&ann).await;
    let held = app.store.faults().hold_request(Op::CompleteMultipartUpload);
    let accepted = tokio::spawn({
        let (ann, body) = (ann.clone(), json!({"upload_session_id": first.id, "title": "Mine", "metadata": {"a": 1}}));
        async move { ann.complete_with(&body).await }
    });
    held.arrived().await;
    ann.complete_with(&wrong_parts(&first)).await.is_problem(409, "parts-mismatch");
    held.release();
    let asset = accepted.await.unwrap().created();
    assert_eq!((&asset["title"], &asset["metadata"]), (&json!("Mine"), &json!({"a": 1})));

    // The same where nobody is left to finish the accepted one but the pass.
    let second = reel(&ann).await;
    app.store.faults().order(Op::CompleteMultipartUpload, Fault::DropRequest);
    ann.complete_with(&named(&second, "Mine")).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    ann.complete_with(&wrong_parts(&second)).await.is_problem(409, "parts-mismatch");
    // And where a list of parts is an old one.
    app.store.faults().order(Op::ListParts, Fault::Say(NO_PARTS.to_owned()));
    ann.complete_with(&named(&second, "Early")).await.is_problem(409, "upload-incomplete");
    app.store.heal();
    app.advance(TimeDelta::minutes(2));
    assert_eq!(app.pass(Pass::Reconcile).await.done, 1);
    assert_eq!(ann.complete(&second).await.ok()["title"], "Mine");
}

async fn a_later_complete_keeps_what_it_does_not_name(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = reel(&ann).await;
    app.store.faults().order(Op::CompleteMultipartUpload, Fault::DropRequest);
    let body = json!({"upload_session_id": reel.id, "title": "Mine", "metadata": {"a": 1}});
    ann.complete_with(&body).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    let asset = ann.complete_with(&json!({"upload_session_id": reel.id, "metadata": {"b": 2}})).await.created();
    assert_eq!((&asset["title"], &asset["metadata"]), (&json!("Mine"), &json!({"b": 2})));
}

async fn row(app: &TestApp, upload: &Upload) -> asset::Model {
    let assets = asset::Entity::find().all(&app.database.rows).await.unwrap();
    let session: SessionId = upload.id.parse().unwrap();
    assets.into_iter().find(|asset| asset.upload_session_id == session).unwrap()
}

fn key_of(asset: &asset::Model) -> String {
    format!("assets/{}/{}/original", asset.tenant_id, asset.id)
}

/// A FAILED asset is not served, and what was copied for it is nobody's.
async fn is_failed(app: &TestApp, upload: &Upload, why: &str) {
    let asset = row(app, upload).await;
    assert_eq!(asset.status, asset::Status::Failed);
    assert!(asset.failure.as_deref().is_some_and(|failure| failure.contains(why)), "{asset:?}");
    app.store.delete(&key_of(&asset)).await;
}

async fn a_copy_of_what_was_not_completed_is_never_ready(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_STORAGE__MAX_COPY_BYTES", "5242880")]).await;
    let ann = app.tenant("acme").user("ann");
    app.store.faults().lie(Lie::IgnoresCopyCondition);
    for (size, op) in [(10, Op::CopyObject), (6 * MIB, Op::UploadPartCopy)] {
        let (upload, _) = completed(&ann, "reel.mov", size).await;
        // The server has looked, and the store has not begun.
        let held = app.store.faults().hold_request(op);
        let promotion = tokio::spawn(promoting(app.engine().await, &ann, &upload));
        held.arrived().await;
        app.store.put(&upload.key(), &vec![b'x'; usize::try_from(size).unwrap()]).await;
        held.release();
        let promotion = promotion.await.unwrap();
        if op == Op::CopyObject {
            assert!(matches!(promotion.unwrap(), Promoted::Failed(_)));
            is_failed(&app, &upload, "overwritten").await;
        } else {
            // Before the copy the source was as it should be: nobody can tell what the copy is of.
            promotion.unwrap_err();
            promoted(&app, &ann, &upload).await.unwrap_err();
            assert_eq!(row(&app, &upload).await.status, asset::Status::Uploaded);
        }
    }
    let (upload, _) = completed(&ann, "reel.mov", 6 * MIB).await;
    app.store.put(&upload.key(), &vec![b'x'; upload.bytes.len()]).await;
    assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Failed(_)));
    is_failed(&app, &upload, "overwritten").await;
    let (upload, _) = completed(&ann, "fine.txt", 10).await;
    assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Ready(_)));
}

async fn a_copy_that_is_not_its_source_is_never_ready(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for (lie, why) in [(Lie::CopiesHalf, "size"), (Lie::CopiesOtherBytes, "checksum")] {
        let file = hello(&ann).await;
        assert_eq!(ann.send(&file).await, 200);
        ann.complete(&file).await.created();
        app.store.faults().lie(lie);
        assert!(matches!(promoted(&app, &ann, &file).await.unwrap(), Promoted::Failed(_)), "{lie:?}");
        app.store.faults().tell_the_truth();
        assert!(app.store.read(&file.key()).await == file.bytes, "what was completed stays");
        is_failed(&app, &file, why).await;
    }
}

async fn a_copy_with_an_etag_of_its_own_is_looked_at(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    app.store.faults().lie(Lie::CopiesHaveEtagsOfTheirOwn);
    for name in ["first.txt", "second.txt"] {
        let (upload, _) = completed(&ann, name, 10).await;
        assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Ready(_)), "{name}");
        assert!(app.store.read(&key_of(&row(&app, &upload).await)).await == upload.bytes);
    }
}

async fn a_source_that_is_missing_in_one_answer_fails_no_asset(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, _) = completed(&ann, "note.txt", 10).await;
    for (code, status) in [("NoSuchKey", 404), ("PreconditionFailed", 412)] {
        app.store.faults().order(Op::CopyObject, Fault::Answer(status, code));
        promoted(&app, &ann, &upload).await.expect_err(code);
        app.store.heal();
        assert_eq!(row(&app, &upload).await.status, asset::Status::Uploaded, "{code}");
    }
    // Two answers of one kind are one, too: a list has the object.
    app.store.faults().order(Op::CopyObject, Fault::Answer(404, "NoSuchKey"));
    app.store.faults().order(Op::HeadObject, Fault::Answer(404, "NoSuchKey"));
    promoted(&app, &ann, &upload).await.unwrap_err();
    app.store.heal();
    assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Ready(_)));
}

fn another_etag() -> Fault {
    Fault::Header("etag", "\"another\"".to_owned())
}

async fn a_source_that_only_looks_say_is_another_fails_no_asset(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    // In parts: the copy's ETag proves nothing, so that the source is looked at.
    let (first, _) = completed(&ann, "first.mov", 6 * MIB).await;
    app.store.faults().order(Op::HeadObject, another_etag());
    promoted(&app, &ann, &first).await.expect_err("before the copy and after it");
    app.store.heal();

    let (second, _) = completed(&ann, "second.mov", 6 * MIB).await;
    let held = app.store.faults().hold_answer(Op::CopyObject);
    let promotion = tokio::spawn(promoting(app.engine().await, &ann, &second));
    held.arrived().await;
    app.store.faults().order(Op::HeadObject, another_etag());
    held.release();
    promotion.await.unwrap().expect_err("after the copy only");
    app.store.heal();

    for upload in [&first, &second] {
        assert_eq!(row(&app, upload).await.status, asset::Status::Uploaded);
        assert!(matches!(promoted(&app, &ann, upload).await.unwrap(), Promoted::Ready(_)));
        assert!(app.store.read(&key_of(&row(&app, upload).await)).await == upload.bytes);
    }
}

/// As after the database was restored to before the asset was READY.
async fn a_copy_that_cannot_be_proved_any_more_fails_no_asset(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    app.store.faults().lie(Lie::CopiesHaveEtagsOfTheirOwn);
    let (upload, _) = completed(&ann, "note.txt", 10).await;
    // The copy is made, the source deleted, and the database knows of neither.
    let held = app.store.faults().hold_answer(Op::CopyObject);
    let promotion = tokio::spawn(promoting(app.engine().await, &ann, &upload));
    held.arrived().await;
    promotion.abort();
    promotion.await.unwrap_err();
    drop(held);
    app.store.delete(&upload.key()).await;

    promoted(&app, &ann, &upload).await.unwrap_err();
    let asset = row(&app, &upload).await;
    assert_eq!(asset.status, asset::Status::Uploaded);
    assert!(app.store.read(&key_of(&asset)).await == upload.bytes);
    // An operator who has the bytes puts the source back.
    app.store.put(&upload.key(), &upload.bytes).await;
    assert!(matches!(promoted(&app, &ann, &upload).await.unwrap(), Promoted::Ready(_)));
}

async fn a_reference_outlives_an_outage(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"file_name": "reel.mov", "file_size": 6 * MIB, "batch_reference": "b", "client_reference": "c"});
    app.store.faults().order_all(Fault::Answer(503, "ServiceUnavailable"));
    ann.initiate_with(&body).await.is_problem(503, "storage-unavailable");
    let waiting = Upload::without_bytes(ann.list("status=INITIATING").await.ok()["data"][0].clone());
    // Somebody still asks for it.
    app.advance(TimeDelta::minutes(14));
    ann.initiate_with(&body).await.is_problem(503, "storage-unavailable");
    app.advance(TimeDelta::minutes(14));
    assert_eq!(app.pass(Pass::DetectAbandoned).await.found, 0);
    // And later nobody does, but the pass finds that the store is away.
    app.advance(TimeDelta::minutes(16));
    assert_eq!(app.dry_pass(Pass::DetectAbandoned, None).await.failed, 1);
    assert_eq!(failed(&app, Pass::DetectAbandoned).await, 1);
    assert_eq!(ann.status(&waiting).await, "INITIATING");

    app.store.heal();
    app.advance(TimeDelta::minutes(14));
    assert_eq!(app.pass(Pass::DetectAbandoned).await.found, 0, "its client has time to come back");
    let opened = ann.initiate_with(&body).await.ok();
    assert_eq!((&opened["status"], &opened["upload_session_id"]), (&json!("UPLOADING"), &json!(waiting.id)));
}

async fn a_part_that_the_store_does_not_know_is_looked_for_again(app: TestApp) {
    // A refusal of the store is in the log, and the client hears of it as missing parts.
    app.expect_leftovers();
    let ann = app.tenant("acme").user("ann");
    app.store.faults().lie(Lie::InvalidPartOnce);
    let first = reel(&ann).await;
    ann.complete(&first).await.created();
    assert_eq!(ann.history(&first).await, ["initiate", "open", "complete"]);
    app.store.faults().tell_the_truth();

    app.store.faults().lie(Lie::InvalidPart);
    let second = reel(&ann).await;
    let before = app.store.faults().calls(Op::CompleteMultipartUpload);
    let problem = ann.complete(&second).await.is_problem(409, "upload-incomplete");
    assert_eq!(problem["missing_parts"], json!([1, 2]), "the store does not say which");
    assert_eq!(app.store.faults().calls(Op::CompleteMultipartUpload) - before, 2);
    assert_eq!(ann.history(&second).await, ["initiate", "open", "storage.complete_failed"]);
    app.advance(TimeDelta::minutes(2));
    assert_eq!(app.pass(Pass::Reconcile).await.found, 0, "it has been answered");
    app.store.faults().tell_the_truth();
    ann.send_all_parts(&second).await;
    ann.complete(&second).await.created();
}

async fn a_part_that_is_sent_again_meanwhile_is_not_what_was_named(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for are_named in [true, false] {
        let reel = reel(&ann).await;
        let mut body = json!({"upload_session_id": reel.id});
        if are_named {
            let held = ann.resume(&reel).await.ok()["uploaded_parts"].as_array().unwrap().clone();
            let parts = held.iter().map(|part| json!({"part_number": part["part_number"], "etag": part["etag"]}));
            body["parts"] = parts.collect();
        }
        let url = ann.part_url(&reel, 2).await.ok();
        let held = app.store.faults().hold_request(Op::CompleteMultipartUpload);
        let completing = tokio::spawn({
            let ann = ann.clone();
            async move { ann.complete_with(&body).await }
        });
        held.arrived().await;
        assert_eq!(ann.send_to(&url, vec![b'x'; reel.part(2).len()]).await, 200);
        held.release();
        let reply = completing.await.unwrap();
        if are_named {
            reply.is_problem(409, "parts-mismatch");
            ann.put_part(&reel, 2).await;
            ann.complete(&reel).await.created();
            assert!(app.store.read(&reel.key()).await == reel.bytes);
        } else {
            reply.created();
        }
    }
}

/// A direct upload that its client has sent, and the store does not show.
async fn an_object_that_only_a_list_has_is_no_missing_one(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    app.store.faults().order(Op::HeadObject, Fault::Answer(404, "NoSuchKey"));
    ann.complete_with(&named(&note, "Mine")).await.is_problem(503, "storage-unavailable");
    app.advance(TimeDelta::minutes(2));
    assert_eq!(failed(&app, Pass::Reconcile).await, 1);
    app.store.heal();
    assert_eq!(app.pass(Pass::Reconcile).await.done, 1);
    assert_eq!(ann.complete(&note).await.ok()["title"], "Mine");
}

/// The same of a reel, whose parts a list lacks.
async fn a_wish_outlives_a_short_list_of_parts(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = reel(&ann).await;
    app.store.faults().order(Op::CompleteMultipartUpload, Fault::DropRequest);
    ann.complete_with(&named(&reel, "Mine")).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    app.advance(TimeDelta::minutes(2));
    app.store.faults().order(Op::ListParts, Fault::Say(NO_PARTS.to_owned()));
    assert_eq!(app.pass(Pass::Reconcile).await.skipped, 1);
    app.store.heal();
    assert_eq!(app.pass(Pass::Reconcile).await.done, 1);
    assert_eq!(ann.complete(&reel).await.ok()["title"], "Mine");
}

async fn an_old_list_of_parts_loses_nothing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    app.store.faults().lie(Lie::OldLists);
    ann.put_part(&reel, 1).await;
    assert_eq!(ann.resume(&reel).await.ok()["uploaded_bytes"], CHUNK);
    ann.put_part(&reel, 2).await;
    let problem = ann.complete(&reel).await.is_problem(409, "upload-incomplete");
    assert_eq!(problem["missing_parts"], json!([2]));
    app.store.faults().tell_the_truth();
    ann.complete(&reel).await.created();
}

async fn an_upload_that_only_an_old_list_names_is_not_opened(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    app.store.faults().drop_answers(Op::CreateMultipartUpload);
    let body = json!({"file_name": "reel.mov", "file_size": 6 * MIB});
    ann.initiate_with_key("key", &body).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    let [(key, dead)] = app.store.uploads().await.try_into().unwrap();
    app.store.abort(&key, &dead).await;
    let list = format!(
        "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>{key}</Key>\
         <UploadId>{dead}</UploadId><Initiated>2026-11-21T10:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>"
    );
    app.store.faults().order(Op::ListMultipartUploads, Fault::Say(list));
    app.advance(TimeDelta::minutes(2));
    let report = app.pass(Pass::Reconcile).await;
    assert_eq!((report.done, report.skipped), (0, 1));
    let reel = Upload::new(ann.initiate_with_key("key", &body).await.ok());
    assert_ne!(reel.upload_id(), dead);
    app.store.heal();
    ann.send_all_parts(&reel).await;
    ann.complete(&reel).await.created();
}

async fn an_empty_list_of_uploads_is_tried_before_it_is_believed(app: TestApp) {
    let now = Some(TimeDelta::zero());
    let key = format!("temp/uploads/{}/original", Uuid::now_v7());
    app.store.open(&key).await;
    app.store.faults().lie(Lie::PrefixIsKey);
    for report in [app.dry_pass(Pass::Orphans, now).await, app.pass_older_than(Pass::Orphans, TimeDelta::zero()).await]
    {
        assert_eq!((report.found, report.failed), (0, 0), "{report:?}");
        let why = report.details()["errors"][&app.store.bucket].as_str().unwrap_or_default().to_owned();
        assert!(why.contains("cannot be found"), "{report:?}");
    }
    assert_eq!(app.store.uploads().await.len(), 1, "the probe leaves nothing");
    app.store.faults().tell_the_truth();
    let report = app.pass_older_than(Pass::Orphans, TimeDelta::zero()).await;
    assert_eq!((report.found, report.done, &report.details()["errors"]), (1, 1, &Value::Null));
    let report = app.pass_older_than(Pass::Orphans, TimeDelta::zero()).await;
    assert_eq!((report.found, &report.details()["errors"]), (0, &Value::Null), "there are none");
    assert!(app.store.uploads().await.is_empty());
}

async fn what_a_bucket_keeps_as_a_version_is_deleted(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    app.store.faults().lie(Lie::Versioned);
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    ann.cancel(&note).await.ok();
    assert!(app.store.objects().await.is_empty());
    let (done, _) = completed(&ann, "done.txt", 10).await;
    assert!(matches!(promoted(&app, &ann, &done).await.unwrap(), Promoted::Ready(_)));
    let keys: Vec<_> = app.store.objects().await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [key_of(&row(&app, &done).await)]);
    assert_eq!(app.pass_older_than(Pass::Cleanup, TimeDelta::zero()).await.done, 2);
}

async fn what_a_bucket_hides_of_many_is_deleted_too(app: TestApp) {
    let storage = app.engine().await.storage;
    let all: Vec<_> = (0..3).map(|_| Location::upload(storage.bucket(), SessionId::new())).collect();
    for at in &all {
        app.store.put(&at.key, b"bytes").await;
    }
    app.store.faults().lie(Lie::VersionedForGood);
    assert!(storage.delete_all(&all).await.iter().all(Result::is_err), "the bytes are there");
    app.store.faults().tell_the_truth();
    app.store.faults().lie(Lie::Versioned);
    assert!(storage.delete_all(&all).await.iter().all(Result::is_ok));
    assert!(app.store.objects().await.is_empty());
}

async fn what_a_bucket_does_not_let_go_is_not_called_cleared(app: TestApp) {
    app.expect_leftovers();
    let ann = app.tenant("acme").user("ann");
    app.store.faults().lie(Lie::VersionedForGood);
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    ann.cancel(&note).await.ok();
    assert_eq!(app.pass_older_than(Pass::Cleanup, TimeDelta::zero()).await.failed, 1);
    let cleared = ["initiate", "open", "cancel", "storage.discard_failed", "storage.clear_failed"];
    assert_eq!(ann.history(&note).await, cleared);
    assert_eq!(app.usage(&ann.tenant).await.bytes, 10, "the bytes are there");
    app.store.faults().tell_the_truth();
    assert_eq!(app.pass_older_than(Pass::Cleanup, TimeDelta::zero()).await.done, 1);
    assert!(app.store.objects().await.is_empty());
}

async fn a_list_of_versions_without_the_marker_clears_nothing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    app.store.faults().lie(Lie::Versioned);
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    for is_truncated in [false, true] {
        let list = format!("<ListVersionsResult><IsTruncated>{is_truncated}</IsTruncated></ListVersionsResult>");
        app.store.faults().order(Op::Other, Fault::Say(list));
        ann.cancel(&note).await.ok();
        assert_eq!(app.pass_older_than(Pass::Cleanup, TimeDelta::zero()).await.failed, 1, "{is_truncated}");
        app.store.heal();
        assert_eq!(app.usage(&ann.tenant).await.bytes, 10, "the bytes are there");
    }
    assert_eq!(app.pass_older_than(Pass::Cleanup, TimeDelta::zero()).await.done, 1);
    assert_eq!(app.usage(&ann.tenant).await.bytes, 0);
    app.store.faults().tell_the_truth();
    assert!(app.store.objects().await.is_empty());
}

async fn a_marker_that_is_missing_in_one_answer_gives_no_bucket_away(app: TestApp) {
    let ours = app.store.read(OWNER).await;
    let theirs = json!({"deployment_id": Uuid::now_v7()}).to_string();
    app.store.put(OWNER, theirs.as_bytes()).await;
    app.store.faults().order(Op::GetObject, Fault::Answer(404, "NoSuchKey"));
    let report = app.pass_older_than(Pass::Orphans, TimeDelta::zero()).await;
    assert_eq!(report.failed, 1, "{report:?}");
    assert_eq!(app.store.read(OWNER).await, theirs.as_bytes());
    app.store.heal();
    app.store.put(OWNER, &ours).await;
}

/// The whole life of three files, with each lie: one that is completed, one in parts, one that is cancelled.
async fn whatever_the_lie_nothing_is_lost_and_nothing_is_made_up(app: TestApp) {
    clients_meet_the_liar(&app).await;
    app.expect_leftovers();
    let ann = app.tenant("acme").user("ann");
    for lie in Lie::ALL {
        app.store.faults().lie(lie);
        let file = hello(&ann).await;
        assert_eq!(ann.send(&file).await, 200, "{lie:?}");
        let reel = reel(&ann).await;
        let dropped = ann.initiate("dropped.txt", 10).await;
        assert_eq!(ann.send(&dropped).await, 200, "{lie:?}");
        let mut acknowledged = Vec::new();
        for upload in [&file, &reel] {
            ann.resume(upload).await;
            let reply = ann.complete(upload).await;
            match reply.status {
                201 => acknowledged.push(upload.id.clone()),
                409 => drop(reply.is_problem(409, "upload-incomplete")),
                _ => drop(reply.is_problem(503, "storage-unavailable")),
            }
        }
        ann.cancel(&dropped).await.ok();
        app.advance(TimeDelta::minutes(2));
        app.pass(Pass::Reconcile).await;
        for upload in [&file, &reel] {
            // Bytes of the same size and no checksum: only whoever reads them can tell.
            let cannot_be_told = lie == Lie::CopiesOtherBytes && upload.id == reel.id;
            if !cannot_be_told {
                let _ = promoted(&app, &ann, upload).await; // it may be in doubt, or there is nothing to promote
            }
        }
        for pass in [Pass::DetectAbandoned, Pass::Cleanup, Pass::Orphans] {
            app.pass_older_than(pass, TimeDelta::days(1)).await;
        }
        app.pass_older_than(Pass::Cleanup, TimeDelta::zero()).await;

        app.store.faults().tell_the_truth();
        for upload in [&file, &reel] {
            let reply = ann.complete(upload).await;
            assert!(reply.status == 200 || reply.status == 201, "{lie:?}: {reply}");
            assert!(reply.status == 200 || !acknowledged.contains(&upload.id), "{lie:?}: {reply}");
            let _ = promoted(&app, &ann, upload).await.unwrap();
            let asset = row(&app, upload).await;
            assert_eq!(asset.checksum_verified, upload.id == file.id && lie != Lie::IgnoresChecksum, "{lie:?}");
            match asset.status {
                asset::Status::Ready => {
                    assert!(app.store.read(&key_of(&asset)).await == upload.bytes, "{lie:?}");
                }
                _ => {
                    assert!(matches!(lie, Lie::CopiesHalf | Lie::CopiesOtherBytes), "{lie:?}: {asset:?}");
                    assert!(app.store.read(&upload.key()).await == upload.bytes, "{lie:?}");
                    app.store.delete(&key_of(&asset)).await;
                }
            }
        }
        app.pass_older_than(Pass::Cleanup, TimeDelta::zero()).await;
        let sessions = upload_session::Entity::find().all(&app.database.rows).await.unwrap();
        let id: SessionId = dropped.id.parse().unwrap();
        let cleared = sessions.iter().find(|session| session.id == id).unwrap().storage_cleared_at;
        assert!(cleared.is_some(), "{lie:?}");
        assert!(app.store.objects().await.iter().all(|(key, _)| *key != dropped.key()), "{lie:?}");
    }
}
