//! Passes, their runs, and jobs, as operators see them. Nothing works on jobs here unless the story does.

use quaymaster::pass::{self, Options, Pass};
use quaymaster::work;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::kit::{TestApp, by_operator, stories};

stories![a_pass_is_ordered_once, a_job_is_looked_at_retried_and_deleted, runs_are_shown, odd_questions_are_refused];

async fn a_pass_is_ordered_once(app: TestApp) {
    let ola = app.operator("ola");
    let order = json!({"dry_run": true, "older_than_secs": 0});
    let job = ola.post("/admin/passes/cleanup/run", &order).await.is(202);
    ola.post("/admin/passes/cleanup/run", &json!({})).await.is_problem(409, "pass-running");
    // Another pass has nothing to do with it.
    ola.post("/admin/passes/orphans/run", &json!({})).await.is(202);
    let jobs = ola.get("/admin/jobs?kind=cleanup").await.ok();
    let data = jobs["data"].as_array().unwrap();
    assert_eq!((data.len(), &jobs["next_cursor"]), (1, &Value::Null));
    assert_eq!(data[0]["job_id"], job["job_id"]);
    assert_eq!((&data[0]["state"], &data[0]["attempts"]), (&json!("waiting"), &json!(0)));
    let payload = &data[0]["payload"];
    assert_eq!(
        (&payload["actor"], &payload["dry_run"], &payload["older_than_secs"]),
        (&json!("ola"), &json!(true), &json!(0))
    );
}

async fn a_job_is_looked_at_retried_and_deleted(app: TestApp) {
    let ola = app.operator("ola");
    for pass in ["cleanup", "orphans", "reconcile"] {
        ola.post(&format!("/admin/passes/{pass}/run"), &json!({})).await.is(202);
    }
    let kinds = |page: &Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|job| job["kind"].as_str().unwrap().to_owned()).collect()
    };
    let first = ola.get("/admin/jobs?limit=2").await.ok();
    assert_eq!(kinds(&first), ["reconcile", "orphans"]);
    let rest = ola.get(&format!("/admin/jobs?limit=2&cursor={}", first["next_cursor"].as_str().unwrap())).await.ok();
    assert_eq!((kinds(&rest), &rest["next_cursor"]), (vec!["cleanup".to_owned()], &Value::Null));
    for (state, count) in [("waiting", 3), ("running", 0), ("dead", 0)] {
        assert_eq!(kinds(&ola.get(&format!("/admin/jobs?state={state}")).await.ok()).len(), count, "{state}");
    }

    let path = format!("/admin/jobs/{}", rest["data"][0]["job_id"].as_str().unwrap());
    let due = ola.post(&format!("{path}/retry"), &json!({})).await.ok();
    assert_eq!((&due["kind"], &due["state"]), (&json!("cleanup"), &json!("waiting")));
    let gone = ola.delete(&path).await;
    assert_eq!((gone.status, gone.body.len()), (204, 0), "{gone}");
    ola.delete(&path).await.is_problem(404, "not-found");
    ola.post(&format!("{path}/retry"), &json!({})).await.is_problem(404, "not-found");
    assert_eq!(kinds(&ola.get("/admin/jobs").await.ok()).len(), 2);
    // Its place is free again.
    ola.post("/admin/passes/cleanup/run", &json!({})).await.is(202);
}

/// What `uploads schedule --json` prints, a line for each pass.
async fn timetable(app: &TestApp) -> Value {
    let output = app.command(&["uploads", "schedule", "--json"]).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
}

async fn runs_are_shown(app: TestApp) {
    let ola = app.operator("ola");
    let passes = ola.get("/admin/passes").await.ok();
    let names: Vec<_> = passes["data"].as_array().unwrap().iter().map(|pass| pass["pass"].as_str().unwrap()).collect();
    assert_eq!(names, ["detect-abandoned", "cleanup", "orphans", "reconcile"]);
    // A command says the same.
    assert_eq!(timetable(&app).await, passes["data"]);
    // The stories' server has no timetable.
    assert_eq!((&passes["data"][0]["cron"], &passes["data"][0]["next_slot"]), (&Value::Null, &Value::Null));
    assert_eq!(passes["data"][0]["last_run"], Value::Null);
    assert_eq!(ola.get("/admin/runs").await.ok()["data"], json!([]));

    let engine = app.another_engine().await;
    let (dry, never) = (Options { dry_run: true, ..Options::default() }, CancellationToken::new());
    let record =
        pass::run(&engine, work::pass, Pass::DetectAbandoned, dry, &by_operator("ola"), None, &never).await.unwrap();
    engine.db.close().await.unwrap();
    let runs = ola.get("/admin/runs?pass=detect-abandoned&limit=1").await.ok();
    assert_eq!(runs["data"][0]["run_id"], json!(record.id));
    assert_eq!((&runs["data"][0]["actor"], &runs["data"][0]["dry_run"]), (&json!("ola"), &json!(true)));
    let passes = ola.get("/admin/passes").await.ok();
    assert_eq!(passes["data"][0]["last_run"], runs["data"][0]);
    assert_eq!(timetable(&app).await, passes["data"]);
    assert_eq!(ola.get("/admin/runs?pass=cleanup").await.ok()["data"], json!([]));

    let page = ola.get("/admin/metrics").await;
    assert_eq!(page.status, 200, "{page}");
    let page = String::from_utf8(page.body).unwrap();
    let started = record.started_at.timestamp();
    for line in [
        &format!("quaymaster_pass_last_run_started_timestamp_seconds{{pass=\"detect-abandoned\"}} {started}"),
        "quaymaster_pass_last_run_dry_run{pass=\"detect-abandoned\"} 1",
        "quaymaster_pass_last_run_broken{pass=\"detect-abandoned\"} 0",
        "# TYPE quaymaster_jobs gauge",
    ] {
        assert!(page.lines().any(|own| own == line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("cleanup"), "what never ran has no figures:\n{page}");
}

async fn odd_questions_are_refused(app: TestApp) {
    let ola = app.operator("ola");
    ola.post("/admin/passes/everything/run", &json!({})).await.is_problem(404, "not-found");
    let wrong = json!({"older_than_secs": -1, "dry_run": "yes", "force": true});
    ola.post("/admin/passes/cleanup/run", &wrong).await.is_invalid(&[
        ("/dry_run", "wrong-type"),
        ("/force", "unknown-field"),
        ("/older_than_secs", "out-of-range"),
    ]);
    let huge = json!({"older_than_secs": i64::MAX});
    ola.post("/admin/passes/cleanup/run", &huge).await.is_invalid(&[("/older_than_secs", "out-of-range")]);
    ola.get("/admin/runs?pass=all").await.is_invalid(&[("?pass", "invalid-format")]);
    ola.get("/admin/jobs?state=queued").await.is_invalid(&[("?state", "invalid-format")]);
    ola.get("/admin/jobs?kind=%00&limit=0").await.is_invalid(&[("?limit", "out-of-range")]);
    ola.get("/admin/jobs?kind=%00").await.is_invalid(&[("?kind", "invalid-format")]);
    ola.delete("/admin/jobs/x").await.is_problem(404, "not-found");
    assert_eq!(ola.get("/admin/jobs").await.ok()["data"], json!([]));
    // A manager of a tenant has no business here.
    let mia = app.tenant("acme").user("mia");
    for path in ["/admin/passes", "/admin/runs", "/admin/jobs"] {
        mia.get(path).await.is_problem(403, "permission-denied");
    }
}
