use futures_util::future::join;

use crate::kit::{Actor, CHUNK, MIB, Op, TestApp, Upload, stories};

stories![
    it_frees_what_was_sent,
    it_answers_every_state,
    an_initiating_session_can_be_cancelled,
    against_complete_one_of_the_two_wins,
    it_wins_over_a_complete_that_has_not_looked_yet,
    it_wins_over_a_complete_that_the_store_has_not_seen,
    it_wins_over_a_complete_that_the_store_has_done,
    it_stands_where_the_store_is_away,
    an_expired_session_can_be_cancelled,
];

async fn it_frees_what_was_sent(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    for upload in [&reel, &note] {
        let session = ann.cancel(upload).await.ok();
        assert_eq!(session["status"], "CANCELLED");
        assert_eq!(session["version"], 3);
        assert_eq!(ann.history(upload).await, ["initiate", "open", "cancel", "storage.discard"]);
    }
    assert!(app.store.objects().await.is_empty());
    assert!(app.store.uploads().await.is_empty());
}

async fn it_answers_every_state(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let cancelled = ann.initiate("a", 1).await;
    let once = ann.cancel(&cancelled).await.ok();
    assert_eq!(ann.cancel(&cancelled).await.ok(), once);

    let completed = ann.initiate("b", 1).await;
    assert_eq!(ann.send(&completed).await, 200);
    let asset = ann.complete(&completed).await.created();
    let session = ann.cancel(&completed).await.ok();
    assert_eq!(session["status"], "COMPLETED");
    assert_eq!(session["asset_id"], asset["asset_id"]);
    assert_eq!(app.store.read(&completed.key()).await, completed.bytes);

    let failed = ann.initiate("c", 6 * MIB).await;
    app.store.abort(&failed.key(), failed.upload_id()).await;
    ann.complete(&failed).await.is_problem(409, "illegal-transition");
    assert_eq!(ann.cancel(&failed).await.ok()["status"], "FAILED");
}

/// A session whose opening was cut short, as the list shows it to its owner.
async fn initiating(app: &TestApp, ann: &Actor) -> Upload {
    app.store.faults().drop_answers(Op::CreateMultipartUpload);
    let body = serde_json::json!({"file_name": "reel.mov", "file_size": 6 * MIB});
    ann.initiate_with(&body).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    let page = ann.list("status=INITIATING").await.ok();
    assert_eq!(page["data"].as_array().unwrap().len(), 1, "{page}");
    Upload::new(page["data"][0].clone())
}

async fn an_initiating_session_can_be_cancelled(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = initiating(&app, &ann).await;
    assert_eq!(app.store.uploads().await.len(), 1, "the store did open an upload");
    ann.complete(&reel).await.is_problem(409, "illegal-transition");
    ann.activity(&reel).await.is_problem(409, "illegal-transition");
    ann.part_url(&reel, 1).await.is_problem(409, "illegal-transition");
    let session = ann.cancel(&reel).await.ok();
    assert_eq!(session["status"], "CANCELLED");
    assert_eq!(ann.history(&reel).await, ["initiate", "storage.open_failed", "cancel", "storage.discard"]);
    assert!(app.store.uploads().await.is_empty(), "the upload that nobody recorded is found by its key");
}

async fn against_complete_one_of_the_two_wins(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for round in 0..24 {
        // Every fourth goes by parts: those race in the store too.
        let file = ann.initiate("file.bin", if round % 4 == 0 { 6 * MIB } else { 10 }).await;
        if round % 4 == 0 {
            ann.send_all_parts(&file).await;
        } else {
            assert_eq!(ann.send(&file).await, 200);
        }
        let (cancelled, completed) = if round % 2 == 0 {
            join(ann.cancel(&file), ann.complete(&file)).await
        } else {
            let (completed, cancelled) = join(ann.complete(&file), ann.cancel(&file)).await;
            (cancelled, completed)
        };
        let status = ann.status(&file).await;
        assert_eq!(cancelled.ok()["status"], *status, "round {round}");
        match status.as_str() {
            "COMPLETED" => drop(completed.created()),
            "CANCELLED" => {
                let problem = completed.is_problem(409, "illegal-transition");
                assert_eq!(problem["upload_status"], "CANCELLED", "round {round}");
            }
            other => panic!("round {round} ended {other}"),
        }
    }
}

async fn it_wins_over_a_complete_that_has_not_looked_yet(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for (size, first_look) in [(10, Op::HeadObject), (6 * MIB, Op::ListParts)] {
        let file = ann.initiate("file.bin", size).await;
        if size == 10 {
            assert_eq!(ann.send(&file).await, 200);
        } else {
            ann.send_all_parts(&file).await;
        }
        let held = app.store.faults().hold_request(first_look);
        let completing = {
            let (ann, file) = (ann.clone(), file.clone());
            tokio::spawn(async move { ann.complete(&file).await })
        };
        held.arrived().await;
        assert_eq!(ann.cancel(&file).await.ok()["status"], "CANCELLED");
        held.release();
        // The bytes are gone because it was cancelled: the state is the answer, not what is missing.
        let problem = completing.await.unwrap().is_problem(409, "illegal-transition");
        assert_eq!(problem["upload_status"], "CANCELLED");
    }
}

async fn it_wins_over_a_complete_that_the_store_has_not_seen(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;
    let held = app.store.faults().hold_request(Op::CompleteMultipartUpload);
    let completing = {
        let (ann, reel) = (ann.clone(), reel.clone());
        tokio::spawn(async move { ann.complete(&reel).await })
    };
    held.arrived().await;
    assert_eq!(ann.cancel(&reel).await.ok()["status"], "CANCELLED");
    held.release();
    let problem = completing.await.unwrap().is_problem(409, "illegal-transition");
    assert_eq!(problem["upload_status"], "CANCELLED");
}

async fn it_wins_over_a_complete_that_the_store_has_done(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;
    let held = app.store.faults().hold_answer(Op::CompleteMultipartUpload);
    let completing = {
        let (ann, reel) = (ann.clone(), reel.clone());
        tokio::spawn(async move { ann.complete(&reel).await })
    };
    held.arrived().await;
    assert_eq!(app.store.objects().await.len(), 1, "the store has assembled the object");
    assert_eq!(ann.cancel(&reel).await.ok()["status"], "CANCELLED");
    held.release();
    completing.await.unwrap().is_problem(409, "illegal-transition");
    assert!(app.store.objects().await.is_empty());
}

async fn it_stands_where_the_store_is_away(app: TestApp) {
    // What the store holds is left to the cleanup.
    app.expect_leftovers();
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    app.store.faults().order_all(crate::kit::Fault::DropRequest);
    assert_eq!(ann.cancel(&reel).await.ok()["status"], "CANCELLED");
    app.store.heal();
    assert_eq!(ann.status(&reel).await, "CANCELLED");
    assert_eq!(app.store.uploads().await.len(), 1);
}

async fn an_expired_session_can_be_cancelled(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    app.advance(chrono::TimeDelta::days(8));
    assert_eq!(ann.cancel(&reel).await.ok()["status"], "CANCELLED");
}
