//! The server is killed with -9 in the middle of its work, and started again on what it left.

use serde_json::json;

use crate::kit::{Actor, CHUNK, MIB, Op, TestApp, Upload, stories};

stories![
    killed_between_any_two_steps_an_upload_goes_on,
    killed_before_the_store_opened_the_upload,
    killed_before_the_upload_was_recorded,
    killed_before_the_store_completed,
    killed_before_the_asset_was_recorded,
    killed_in_the_middle_of_a_cancel,
];

async fn kill_and_start(app: &TestApp) {
    app.kill_server().await;
    app.start_server().await;
}

async fn killed_between_any_two_steps_an_upload_goes_on(app: TestApp) {
    app.run_the_program().await;
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK + 1).await;
    for number in [2, 3, 1] {
        kill_and_start(&app).await;
        let held = ann.resume(&reel).await.ok();
        assert_eq!(held["can_resume"], true);
        ann.put_part(&reel, number).await;
    }
    kill_and_start(&app).await;
    let asset = ann.complete(&reel).await.created();
    kill_and_start(&app).await;
    assert_eq!(ann.complete(&reel).await.ok(), asset);
    assert!(app.store.read(&reel.key()).await == reel.bytes);
    assert_eq!(ann.history(&reel).await, ["initiate", "open", "complete"]);
}

/// Kills the server while `request` waits for the store, before or after the store has done its part.
async fn kill_while<F>(app: &TestApp, op: Op, store_has_done_it: bool, request: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let held = if store_has_done_it { app.store.faults().hold_answer(op) } else { app.store.faults().hold_request(op) };
    let request = tokio::spawn(request);
    held.arrived().await;
    app.kill_server().await;
    request.abort();
    drop(held);
    app.start_server().await;
}

async fn try_to_initiate(ann: Actor) {
    let body = json!({"file_name": "reel.mov", "file_size": 6 * MIB});
    // No answer comes: the server dies over it.
    let request = ann.app.http.post(ann.app.url("/app/uploads/initiate"));
    let _ = request.bearer_auth(ann.token()).header("Idempotency-Key", "key").json(&body).send().await;
}

async fn killed_while_opening(app: TestApp, store_has_done_it: bool) {
    app.run_the_program().await;
    let ann = app.tenant("acme").user("ann");
    kill_while(&app, Op::CreateMultipartUpload, store_has_done_it, try_to_initiate(ann.clone())).await;
    assert_eq!(ann.list("status=INITIATING").await.ok()["data"].as_array().unwrap().len(), 1);

    let body = json!({"file_name": "reel.mov", "file_size": 6 * MIB});
    let reel = Upload::new(ann.initiate_with_key("key", &body).await.ok());
    assert_eq!(reel.session["status"], "UPLOADING");
    assert_eq!(app.store.uploads().await, [(reel.key(), reel.upload_id().to_owned())]);
    ann.send_all_parts(&reel).await;
    ann.complete(&reel).await.created();
    assert_eq!(ann.history(&reel).await, ["initiate", "open", "complete"]);
}

async fn killed_before_the_store_opened_the_upload(app: TestApp) {
    killed_while_opening(app, false).await;
}

async fn killed_before_the_upload_was_recorded(app: TestApp) {
    killed_while_opening(app, true).await;
}

async fn killed_while_completing(app: TestApp, store_has_done_it: bool) {
    app.run_the_program().await;
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;
    let completing = {
        let (ann, id) = (ann.clone(), reel.id.clone());
        async move {
            let request = ann.app.http.post(ann.app.url("/app/assets/upload/complete"));
            let _ = request.bearer_auth(ann.token()).json(&json!({"upload_session_id": id})).send().await;
        }
    };
    kill_while(&app, Op::CompleteMultipartUpload, store_has_done_it, completing).await;
    assert_eq!(app.store.objects().await.len(), usize::from(store_has_done_it));
    assert_eq!(ann.resume(&reel).await.ok()["uploaded_bytes"], 6 * MIB);
    let asset = ann.complete(&reel).await.created();
    assert_eq!(ann.complete(&reel).await.ok(), asset);
    assert!(app.store.read(&reel.key()).await == reel.bytes);
}

async fn killed_before_the_store_completed(app: TestApp) {
    killed_while_completing(app, false).await;
}

async fn killed_before_the_asset_was_recorded(app: TestApp) {
    killed_while_completing(app, true).await;
}

async fn killed_in_the_middle_of_a_cancel(app: TestApp) {
    // The state is recorded first: what the store still holds is the cleanup's.
    app.expect_leftovers();
    app.run_the_program().await;
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.put_part(&reel, 1).await;
    let cancelling = {
        let (ann, id) = (ann.clone(), reel.id.clone());
        async move {
            let request = ann.app.http.post(ann.app.url(&format!("/app/uploads/{id}/cancel")));
            let _ = request.bearer_auth(ann.token()).send().await;
        }
    };
    kill_while(&app, Op::AbortMultipartUpload, false, cancelling).await;
    assert_eq!(ann.cancel(&reel).await.ok()["status"], "CANCELLED");
    ann.complete(&reel).await.is_problem(409, "illegal-transition");
}
