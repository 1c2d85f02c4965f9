//! `quaymaster audit verify`, beside a server that works.

use sea_orm::{ConnectionTrait, Statement};
use serde_json::Value;

use crate::kit::{TestApp, stories};

stories![it_tells_a_true_record_from_a_changed_one];

/// Exit code, standard output, standard error.
async fn audit(app: &TestApp, words: &[&str]) -> (Option<i32>, String, String) {
    let output = app.command(&[&["audit", "verify"], words].concat()).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn it_tells_a_true_record_from_a_changed_one(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    ann.complete(&note).await.created();
    let reel = ann.initiate("reel.mov", 6 * 1024 * 1024).await;
    ann.cancel(&reel).await.ok();

    let (code, out, _) = audit(&app, &[]).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("2 sessions, 6 events, 0 deleted sessions"), "{out}");
    let (code, out, _) = audit(&app, &["--json", "--tenant", "acme"]).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, report["sessions"].as_u64(), report["found"].as_u64()), (Some(0), Some(2), Some(0)));
    assert_eq!(audit(&app, &["--tenant", "globex"]).await.0, Some(0));
    for wrong in [&["--tenant", "nobody"][..], &["--session", "01a1fc93-fc47-760f-960c-2f522af503ff"]] {
        let (code, out, err) = audit(&app, wrong).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("there is no"), "{err}");
    }

    let rows = &app.database.rows;
    let set_actor = async |name: &str| {
        let sql = "UPDATE upload_event SET actor = $1 WHERE upload_session_id = $2 AND seq = 3";
        let id: uuid::Uuid = note.id.parse().unwrap();
        let values = [name.into(), id.into()];
        rows.execute_raw(Statement::from_sql_and_values(rows.get_database_backend(), sql, values)).await.unwrap();
    };
    set_actor("eve").await;
    let (code, out, _) = audit(&app, &[]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains(&format!("session {}: event 3: ", note.id)), "{out}");
    let (code, out, _) = audit(&app, &["--json", "--session", &note.id]).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, report["sessions"].as_u64()), (Some(1), Some(1)));
    assert_eq!(report["findings"][0]["upload_session_id"], note.id.as_str());
    assert_eq!(audit(&app, &["--session", &reel.id]).await.0, Some(0), "the other one is as it was");
    set_actor("ann").await;
    assert_eq!(audit(&app, &[]).await.0, Some(0));
}
