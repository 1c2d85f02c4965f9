use serde_json::json;

use crate::kit::{MIB, TestApp, stories};

stories![a_dedicated_tenant_uploads_into_its_own_bucket];

async fn a_dedicated_tenant_uploads_into_its_own_bucket(app: TestApp) {
    // The bucket of the settings does not exist: nothing may go there.
    let elsewhere = [("STORAGE_PROVISION_STRATEGY", "dedicated"), ("AWS_BUCKET", "nobody-has-this-bucket")];
    app.restart_with(&elsewhere).await;
    let ann = app.tenant("acme").user("ann");
    ann.initiate_with(&json!({"file_name": "a", "file_size": 1})).await.is_problem(503, "storage-unavailable");

    app.move_tenant("acme", Some(&app.store.bucket)).await;
    let note = ann.initiate("note.txt", 10).await;
    let url = note.session["upload_url"].as_str().unwrap();
    assert!(url.contains(&app.store.bucket), "{url}");
    assert_eq!(ann.send(&note).await, 200);
    ann.complete(&note).await.created();

    // A session stays in the bucket that it was opened in, wherever its tenant moves.
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    app.move_tenant("acme", Some("moved-away")).await;
    ann.send_all_parts(&reel).await;
    ann.complete(&reel).await.created();
    app.move_tenant("acme", None).await;
}
