//! What is wrong between rows and store is shown to those who can do something about it, with its cause.

use chrono::TimeDelta;
use quaymaster::asset::Promoted;
use quaymaster::pass::{self, Options, Pass};
use quaymaster::work;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cleanup::{left_behind, now};
use crate::kit::{Actor, Fault, Op, TestApp, Upload, by_operator, stories};
use crate::promote::{completed, promoted};

stories![
    an_asset_that_failed_is_found,
    a_session_is_found_until_it_is_cleared,
    a_completed_session_that_is_not_cleared_is_found_with_its_asset,
    all_of_them_are_paged,
    everybody_sees_their_own,
    odd_questions_are_refused,
    a_command_lists_them,
    a_command_lists_what_the_search_for_orphans_met,
];

/// A completed upload whose object is another one by now, so that its asset is FAILED; with the asset's id.
async fn overwritten(app: &TestApp, ann: &Actor) -> (Upload, String) {
    let (note, asset) = completed(ann, "note.txt", 10).await;
    app.store.put(&note.key(), b"other text").await;
    assert!(matches!(promoted(app, ann, &note).await.unwrap(), Promoted::Failed(_)));
    (note, asset)
}

/// A cancelled session that a cleanup could not clear.
async fn not_cleared(app: &TestApp, ann: &Actor) -> Upload {
    let reel = left_behind(app, ann).await;
    refused(app, Op::AbortMultipartUpload).await;
    reel
}

/// A cleanup to which the store refuses this.
async fn refused(app: &TestApp, op: Op) {
    app.store.faults().order(op, Fault::Answer(403, "AccessDenied"));
    assert!(now(app).await.failed > 0);
    app.store.heal();
}

async fn findings(who: &Actor, query: &str) -> Vec<Value> {
    let page = who.get(&format!("/admin/findings?{query}")).await.ok();
    assert_eq!(page["next_cursor"], Value::Null);
    page["data"].as_array().unwrap().clone()
}

fn sessions(findings: &[Value]) -> Vec<&str> {
    findings.iter().map(|finding| finding["upload_session_id"].as_str().unwrap()).collect()
}

/// When the first event of this name was.
async fn time_of(ann: &Actor, upload: &Upload, event: &str) -> Value {
    let events = ann.get(&format!("/app/uploads/{}/events", upload.id)).await.ok();
    let events = events["data"].as_array().unwrap();
    events.iter().find(|own| own["event"] == event).unwrap()["at"].clone()
}

async fn counts(app: &TestApp) -> [String; 2] {
    let page = String::from_utf8(app.operator("ola").get("/admin/metrics").await.body).unwrap();
    ["asset-failed", "not-cleared"].map(|kind| {
        let name = format!("quaymaster_findings{{kind=\"{kind}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).unwrap().to_owned()
    })
}

async fn an_asset_that_failed_is_found(app: TestApp) {
    let (ann, ola) = (app.tenant("acme").user("ann"), app.operator("ola"));
    let (fine, _) = completed(&ann, "fine.txt", 10).await;
    promoted(&app, &ann, &fine).await.unwrap();
    completed(&ann, "waiting.txt", 10).await;
    assert_eq!(findings(&ola, "").await, [] as [Value; 0]);
    assert_eq!(counts(&app).await, ["0", "0"]);

    app.advance(TimeDelta::hours(1));
    let (note, asset) = overwritten(&app, &ann).await;
    let expected = json!({
        "kind": "asset-failed",
        "tenant_id": ann.tenant.id,
        "upload_session_id": note.id,
        "asset_id": asset,
        "bucket": app.store.bucket,
        "object_key": note.key(),
        "since": time_of(&ann, &note, "asset.failed").await,
        "cause": "the uploaded object was overwritten after it was completed",
    });
    assert_eq!(findings(&ola, "").await, [expected]);
    let (lost, _) = completed(&ann, "lost.txt", 10).await;
    app.store.delete(&lost.key()).await;
    promoted(&app, &ann, &lost).await.unwrap();
    let both = findings(&ola, "kind=asset-failed").await;
    assert_eq!(sessions(&both), [&lost.id, &note.id]);
    assert_eq!(both[0]["cause"], "the uploaded object was gone before it was copied");
    assert_eq!(findings(&ola, "kind=not-cleared").await, [] as [Value; 0]);
    assert_eq!(counts(&app).await, ["2", "0"]);
    // It stays for an operator, whatever the passes do.
    assert_eq!(now(&app).await.done, 1, "what is left of the one that is READY");
    assert_eq!(findings(&ola, "").await, both);
}

async fn a_session_is_found_until_it_is_cleared(app: TestApp) {
    let (ann, ola) = (app.tenant("acme").user("ann"), app.operator("ola"));
    let reel = left_behind(&app, &ann).await;
    assert_eq!(findings(&ola, "").await, [] as [Value; 0], "nobody has tried yet");
    refused(&app, Op::AbortMultipartUpload).await;
    let first = findings(&ola, "").await;
    let expected = json!({
        "kind": "not-cleared",
        "tenant_id": ann.tenant.id,
        "upload_session_id": reel.id,
        "asset_id": null,
        "bucket": app.store.bucket,
        "object_key": reel.key(),
        "since": time_of(&ann, &reel, "storage.clear_failed").await,
        "cause": "AbortMultipart failed: Refused (AccessDenied)",
    });
    assert_eq!(first, [expected]);
    assert_eq!(counts(&app).await, ["0", "1"]);

    // Another cause is told of, and the first time stays.
    app.advance(TimeDelta::hours(1));
    refused(&app, Op::HeadObject).await;
    let again = findings(&ola, "kind=not-cleared").await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0]["since"], first[0]["since"]);
    assert_eq!(again[0]["cause"], "Head failed: Refused (403)", "its answer has no body");
    assert_eq!(findings(&ola, "kind=asset-failed").await, [] as [Value; 0]);

    assert_eq!(now(&app).await.done, 1);
    assert_eq!(findings(&ola, "").await, [] as [Value; 0]);
    assert_eq!(counts(&app).await, ["0", "0"]);
}

async fn a_completed_session_that_is_not_cleared_is_found_with_its_asset(app: TestApp) {
    let (ann, ola) = (app.tenant("acme").user("ann"), app.operator("ola"));
    app.expect_leftovers();
    let (note, asset) = completed(&ann, "note.txt", 10).await;
    app.store.faults().order(Op::DeleteObject, Fault::Answer(403, "AccessDenied"));
    assert!(matches!(promoted(&app, &ann, &note).await.unwrap(), Promoted::Ready(_)));
    assert_eq!(findings(&ola, "").await, [] as [Value; 0], "the cleanup's, and it has not tried");
    refused(&app, Op::DeleteObject).await;
    let found = findings(&ola, "").await;
    assert_eq!(sessions(&found), [&note.id]);
    assert_eq!((&found[0]["kind"], &found[0]["asset_id"]), (&json!("not-cleared"), &json!(asset)));
    assert_eq!(found[0]["object_key"], json!(note.key()), "what is left, not what is served");
    now(&app).await;
    assert_eq!(findings(&ola, "").await, [] as [Value; 0]);
}

async fn all_of_them_are_paged(app: TestApp) {
    let (ann, gil) = (app.tenant("acme").user("ann"), app.tenant("globex").user("gil"));
    let ola = app.operator("ola");
    let mut made = Vec::new();
    for who in [&ann, &gil, &ann] {
        made.push(overwritten(&app, who).await.0.id);
        made.push(not_cleared(&app, who).await.id);
    }
    made.reverse();
    let all = findings(&ola, "").await;
    assert_eq!(sessions(&all), made, "of both kinds and tenants, the newest session first");
    let acme = format!("tenant={}", ann.tenant.id);
    for query in ["", "kind=asset-failed", "kind=not-cleared", &acme, "tenant=globex&kind=not-cleared"] {
        let whole = findings(&ola, query).await;
        for limit in 1..=4 {
            let (mut paged, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = ola.get(&format!("/admin/findings?{query}&limit={limit}{cursor}")).await.ok();
                let data = page["data"].as_array().unwrap();
                assert!((1..=limit).contains(&data.len()), "{page}");
                paged.extend(data.clone());
                assert!(paged.len() <= whole.len(), "{query} by {limit} comes to no end");
                let Some(next) = page["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!(paged, whole, "{query} by {limit}");
        }
    }
    assert_eq!(findings(&ola, "tenant=globex&kind=not-cleared").await.len(), 1);
}

async fn everybody_sees_their_own(app: TestApp) {
    let (acme, globex, ola) = (app.tenant("acme"), app.tenant("globex"), app.operator("ola"));
    let (main, _) = overwritten(&app, &acme.user("ann")).await;
    let second = not_cleared(&app, &acme.user("bob").brands(&["second"])).await;
    let (foreign, _) = overwritten(&app, &globex.user("gil")).await;
    let ids = |who: Actor, query: &'static str| async move {
        let found = findings(&who, query).await;
        sessions(&found).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ids(ola.clone(), "").await, [&*foreign.id, &second.id, &main.id]);
    assert_eq!(ids(ola.clone(), "tenant=acme").await, [&*second.id, &main.id]);
    assert_eq!(ids(ola.clone(), "tenant=globex").await, [&*foreign.id]);

    let mia = acme.user("mia").permissions(&["uploads.manage", "uploads.view"]);
    assert_eq!(ids(mia.clone().all_brands(), "").await, [&*second.id, &main.id]);
    assert_eq!(ids(mia.clone().all_brands(), "tenant=acme").await, [&*second.id, &main.id]);
    assert_eq!(ids(mia.clone(), "").await, [&*main.id], "in the brands that they hold");
    assert_eq!(ids(mia.clone().brands(&["second"]), "").await, [&*second.id]);
    assert_eq!(ids(mia.clone().brands(&[]), "").await, [] as [&str; 0]);
    assert_eq!(ids(globex.user("gus").permissions(&["uploads.manage", "uploads.view"]), "").await, [&*foreign.id]);

    let (other, none) =
        (mia.get("/admin/findings?tenant=globex").await, mia.get("/admin/findings?tenant=nobody").await);
    let mut bodies = [other.is_problem(404, "not-found"), none.is_problem(404, "not-found")];
    bodies.iter_mut().for_each(|body| drop(body["instance"].take()));
    assert_eq!(bodies[0], bodies[1]);
    ola.get("/admin/findings?tenant=nobody").await.is_problem(404, "not-found");
    let ann = acme.user("ann").permissions(&["uploads.view", "assets.view"]);
    ann.get("/admin/findings").await.is_problem(403, "permission-denied");
}

async fn odd_questions_are_refused(app: TestApp) {
    let ola = app.operator("ola");
    for (query, pointer, code) in [
        ("kind=foreign", "?kind", "invalid-format"),
        ("kind=ASSET-FAILED", "?kind", "invalid-format"),
        ("kind=", "?kind", "invalid-format"),
        ("cursor=x", "?cursor", "invalid-format"),
        ("cursor=7", "?cursor", "invalid-format"),
        ("limit=0", "?limit", "out-of-range"),
        ("limit=201", "?limit", "out-of-range"),
        ("limit=1&limit=1", "?limit", "duplicate"),
        ("status=FAILED", "?status", "unknown-field"),
    ] {
        ola.get(&format!("/admin/findings?{query}")).await.is_invalid(&[(pointer, code)]);
    }
}

/// Exit code, standard output, standard error of `quaymaster uploads findings`.
async fn command(app: &TestApp, words: &[&str]) -> (Option<i32>, String, String) {
    let output = app.command(&[&["uploads", "findings"], words].concat()).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What it says by `--json`, which goes well and without a hint.
async fn listed(app: &TestApp, words: &[&str]) -> Vec<Value> {
    let (code, out, err) = command(app, &[words, &["--json"]].concat()).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{words:?}: {out}");
    parsed(&out)
}

fn parsed(lines: &str) -> Vec<Value> {
    lines.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn a_command_lists_them(app: TestApp) {
    let (ann, gil) = (app.tenant("acme").user("ann"), app.tenant("globex").user("gil"));
    let nothing = "nothing was found\n\nnone of the last 100 searches for orphans has completed\n";
    assert_eq!(command(&app, &[]).await, (Some(0), nothing.to_owned(), String::new()));
    assert_eq!(command(&app, &["--tenant", "acme"]).await.1, "nothing was found\n");
    assert_eq!(listed(&app, &[]).await, [] as [Value; 0]);

    let (note, _) = overwritten(&app, &ann).await;
    let reel = not_cleared(&app, &gil).await;
    let (code, table, _) = command(&app, &[]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 5), "{table}");
    assert!(lines[0].starts_with("KIND          SINCE"), "{table}");
    assert!(lines[1].starts_with("not-cleared   ") && lines[1].contains(&reel.key()), "{table}");
    assert!(lines[1].ends_with("AbortMultipart failed: Refused (AccessDenied)"), "{table}");
    assert!(lines[2].starts_with("asset-failed  ") && lines[2].contains(&note.id), "{table}");
    assert!(lines[2].ends_with("overwritten after it was completed"), "{table}");
    assert_eq!(lines[3..], ["", "none of the last 100 searches for orphans has completed"]);

    // The same as by the API.
    let all = findings(&app.operator("ola"), "").await;
    assert_eq!(listed(&app, &[]).await, all);
    assert_eq!(listed(&app, &["--tenant", "acme"]).await, all[1..]);
    assert_eq!(listed(&app, &["--tenant", &gil.tenant.id.to_string()]).await, all[..1]);
    assert_eq!(listed(&app, &["--kind", "asset-failed"]).await, all[1..]);
    assert_eq!(listed(&app, &["--kind", "asset-failed", "--tenant", "globex"]).await, [] as [Value; 0]);
    assert_eq!(listed(&app, &["--kind", "foreign"]).await, [] as [Value; 0]);
    let (code, first, hint) = command(&app, &["--limit", "1", "--json"]).await;
    assert_eq!((code, parsed(&first)), (Some(0), all[..1].to_vec()));
    assert!(hint.contains(&format!("there are more; continue with --before {}", reel.id)), "{hint}");
    assert_eq!(listed(&app, &["--limit", "1", "--before", &reel.id]).await, all[1..]);

    let (code, _, err) = command(&app, &["--tenant", "nobody"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("there is no tenant"), "{err}");
    let (code, _, err) = command(&app, &["--kind", "foreign", "--tenant", "acme"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("to no tenant"), "{err}");
    let (code, _, err) = command(&app, &["--kind", "odd"]).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("asset-failed, not-cleared, orphan, foreign, orphans-failed"), "{err}");
}

async fn search(app: &TestApp) {
    let never = CancellationToken::new();
    let run = pass::run(
        &app.engine().await,
        work::pass,
        Pass::Orphans,
        Options::default(),
        &by_operator("ola"),
        None,
        &never,
    )
    .await
    .unwrap();
    assert_eq!(run.error, None);
}

async fn a_command_lists_what_the_search_for_orphans_met(app: TestApp) {
    let bucket = app.store.bucket.clone();
    search(&app).await;
    let (code, text, err) = command(&app, &[]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(text.starts_with("nothing was found\n\nthe last search for orphans ended at 20"), "{text}");

    app.store.put("temp/uploads/theirs/größe 📦", b"theirs").await;
    app.move_tenant("globex", Some("a-bucket-that-is-gone")).await;
    search(&app).await;
    app.move_tenant("globex", None).await;
    let met = listed(&app, &[]).await;
    assert_eq!(met.len(), 2, "{met:?}");
    let (foreign, failed) = (&met[0], &met[1]);
    assert_eq!((&foreign["kind"], &foreign["bucket"]), (&json!("foreign"), &json!(bucket)));
    assert_eq!(foreign["object_key"], "temp/uploads/theirs/größe 📦");
    assert_eq!((&failed["kind"], &failed["bucket"]), (&json!("orphans-failed"), &json!("a-bucket-that-is-gone")));
    assert_eq!((&failed["object_key"], &failed["upload_session_id"]), (&Value::Null, &Value::Null));
    let runs = app.operator("ola").get("/admin/runs?pass=orphans&limit=1").await.ok();
    let run = &runs["data"][0];
    assert_eq!(failed["cause"], run["details"]["errors"]["a-bucket-that-is-gone"]);
    assert_eq!((&foreign["since"], &failed["since"]), (&run["ended_at"], &run["ended_at"]));
    assert_eq!(listed(&app, &["--kind", "foreign"]).await, met[..1]);
    assert_eq!(listed(&app, &["--kind", "orphans-failed"]).await, met[1..]);
    assert_eq!(listed(&app, &["--kind", "not-cleared"]).await, [] as [Value; 0]);
    assert_eq!(listed(&app, &["--tenant", "acme"]).await, [] as [Value; 0], "of no tenant");
    let (_, table, _) = command(&app, &[]).await;
    assert!(table.contains(&format!("{bucket}/temp/uploads/theirs/größe 📦  not a key of this server")), "{table}");

    // What a dry search has found is there, until a real one removes it.
    let orphan = format!("temp/uploads/{}/original", uuid::Uuid::now_v7());
    app.store.put(&orphan, b"nobody's").await;
    for (dry_run, found) in [(true, 1), (false, 0)] {
        let (engine, options) = (app.engine().await, Options { dry_run, older_than: Some(TimeDelta::zero()) });
        pass::run(&engine, work::pass, Pass::Orphans, options, &by_operator("ola"), None, &CancellationToken::new())
            .await
            .unwrap();
        let orphans = listed(&app, &["--kind", "orphan"]).await;
        assert_eq!(orphans.len(), found);
        assert!(orphans.iter().all(|it| it["object_key"] == orphan && it["bucket"] == bucket), "{orphans:?}");
    }

    // More than a report names; and a run that ended early tells of nothing.
    for n in 0..24 {
        app.store.put(&format!("temp/uploads/theirs/{n}"), b"theirs").await;
    }
    search(&app).await;
    let engine = app.engine().await;
    let (dry, stop) = (Options { dry_run: true, ..Options::default() }, CancellationToken::new());
    stop.cancel();
    let stopped = pass::run(&engine, work::pass, Pass::Orphans, dry, &by_operator("ola"), None, &stop).await.unwrap();
    assert!(stopped.error.is_some());
    let (code, out, hint) = command(&app, &["--json"]).await;
    assert_eq!((code, parsed(&out).len()), (Some(0), 20));
    assert!(hint.contains("5 more foreign keys"), "{hint}");
    for (key, _) in app.store.objects().await {
        app.store.delete(&key).await;
    }
}
