//! `quaymaster audit verify`, beside a server that works.

use sea_orm::{ConnectionTrait, Statement};
use serde_json::{Value, json};

use crate::kit::{TestApp, stories};

stories![it_tells_a_true_record_from_a_changed_one, it_lists_what_operators_did];

/// Exit code, standard output, standard error.
async fn audit(app: &TestApp, words: &[&str]) -> (Option<i32>, String, String) {
    command(app, &[&["audit", "verify"], words].concat()).await
}

async fn command(app: &TestApp, words: &[&str]) -> (Option<i32>, String, String) {
    let output = app.command(words).await;
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
    assert!(out.starts_with("2 sessions, 7 events, 0 deleted sessions"), "{out}");
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

async fn it_lists_what_operators_did(app: TestApp) {
    app.operator("ola").patch("/admin/tenants/acme", &json!({"quota_bytes": 7})).await.ok();
    assert_eq!(command(&app, &["tenant", "suspend", "globex"]).await.0, Some(0));

    let (code, table, _) = command(&app, &["audit", "log"]).await;
    assert_eq!(code, Some(0));
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("SEQ  AT"), "{table}");
    assert!(lines[1].contains("cli    tenant.limit"), "{table}");
    assert!(lines[2].contains("ola    tenant.limit") && lines[2].contains("\"quota_bytes\":7"), "{table}");

    let of = |text: &str| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let (_, acme, _) = command(&app, &["audit", "log", "--tenant", "acme", "--json"]).await;
    let names = |rows: &[Value]| rows.iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&of(&acme)), ["tenant.limit", "tenant.create"]);
    let (_, all, _) = command(&app, &["audit", "log", "--json"]).await;
    let first = of(&all)[0]["seq"].to_string();
    let (_, one, _) = command(&app, &["audit", "log", "--json", "--limit", "1", "--before", &first]).await;
    assert_eq!(of(&one), of(&all)[1..2]);
    let (code, _, err) = command(&app, &["audit", "log", "--tenant", "nobody"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("there is no tenant"), "{err}");

    let (code, out, _) = audit(&app, &[]).await;
    assert_eq!(code, Some(0), "{out}");
    let set_quota = async |bytes: i64| {
        let sql = format!("UPDATE tenant SET quota_bytes = {bytes} WHERE slug = 'acme'");
        app.database.rows.execute_unprepared(&sql).await.unwrap();
    };
    set_quota(1_000_000).await;
    let (code, out, _) = audit(&app, &[]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("the tenant's quota_bytes is not what it was last set to"), "{out}");
    set_quota(7).await;
}
