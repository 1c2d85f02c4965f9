//! Passes and jobs from the command line, beside a running server.

use chrono::TimeDelta;
use entity::{job, pass_run};
use quaymaster::pass::{self, Options, Pass};
use quaymaster::work;
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::Value;

use crate::kit::{TestApp, by_operator, stories};

stories![
    a_pass_is_run_by_hand,
    a_pass_that_runs_already_is_refused,
    jobs_are_listed_retried_and_dropped,
    what_is_put_in_the_queue_is_done_by_the_server,
    the_program_takes_up_what_a_killed_one_left,
];

/// What a command printed, as JSON.
async fn said(app: &TestApp, words: &[&str]) -> Value {
    let output = app.command(words).await;
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {output:?}"))
}

/// What a list says by `--json`: a line for each item.
async fn listed(app: &TestApp, words: &[&str]) -> Vec<Value> {
    let output = app.command(words).await;
    let items = serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<Vec<Value>, _>>();
    let items = items.unwrap_or_else(|error| panic!("{words:?}: {error}: {output:?}"));
    assert!(
        output.status.success() && output.stdout.iter().filter(|byte| **byte == b'\n').count() == items.len().max(1)
    );
    items
}

async fn a_pass_is_run_by_hand(app: TestApp) {
    for pass in Pass::ALL {
        let words = ["uploads", pass.name(), "--dry-run", "--older-than", "0s", "--json"];
        let output = app.command(&words).await;
        let run: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&run["pass"], &run["dry_run"], &run["actor"]), (&pass.name().into(), &true.into(), &"cli".into()));
        assert_eq!(run["older_than_secs"], 0);
        for count in ["found", "done", "failed", "skipped"] {
            assert!(run[count].is_u64(), "{run}");
        }
        let went_well = run["error"].is_null() && run["failed"] == 0;
        assert_eq!(output.status.code(), Some(if went_well { 0 } else { 1 }), "{run}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("--older-than 0s"), "{stderr}");

        let table = app.command(&["uploads", pass.name(), "--dry-run"]).await;
        let table = String::from_utf8(table.stdout).unwrap();
        assert!(table.contains(pass.name()) && table.contains("found") && table.contains("dry run"), "{table}");
    }
    assert_eq!(listed(&app, &["uploads", "runs", "--json"]).await.len(), 8);
    assert_eq!(listed(&app, &["uploads", "runs", "--pass", "cleanup", "--json"]).await.len(), 2);
    for wrong in [["uploads", "cleanup", "--older-than", "soon"], ["uploads", "runs", "--pass", "tidying"]] {
        assert_eq!(app.command(&wrong).await.status.code(), Some(2));
    }
}

async fn a_pass_that_runs_already_is_refused(app: TestApp) {
    let engine = app.engine().await;
    pass::enqueue(&engine, Pass::Cleanup, Options::default(), &by_operator("ann")).await.unwrap().unwrap();
    let output = app.command(&["uploads", "cleanup", "--json"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("cleanup is running"), "{stderr}");
    assert_eq!(quaymaster::jobs::work_off(&engine, work::job).await.unwrap(), 1);
    assert_eq!(said(&app, &["uploads", "cleanup", "--json"]).await["actor"], "cli");
}

async fn jobs_are_listed_retried_and_dropped(app: TestApp) {
    let engine = app.engine().await;
    let id = pass::enqueue(&engine, Pass::Orphans, Options::default(), &by_operator("ann"))
        .await
        .unwrap()
        .unwrap()
        .to_string();
    let waiting = listed(&app, &["job", "list", "--state", "waiting", "--kind", "orphans", "--json"]).await;
    assert_eq!((&waiting[0]["job_id"], &waiting[0]["state"]), (&id.as_str().into(), &"waiting".into()));
    assert_eq!(waiting[0]["payload"]["actor"], "ann");
    assert!(listed(&app, &["job", "list", "--state", "dead", "--json"]).await.is_empty());
    let table = String::from_utf8(app.command(&["job", "list"]).await.stdout).unwrap();
    assert!(table.contains(&id) && table.contains("0/10"), "{table}");
    assert!(app.command(&["job", "retry", &id]).await.status.success());
    let due = said(&app, &["job", "retry", &id, "--json"]).await;
    assert_eq!(due, listed(&app, &["job", "list", "--json"]).await[0]);
    assert_eq!((&due["job_id"], &due["state"]), (&id.as_str().into(), &"waiting".into()));
    assert!(app.command(&["job", "drop", &id]).await.status.success());
    assert!(listed(&app, &["job", "list", "--json"]).await.is_empty());
    let other = pass::enqueue(&engine, Pass::Orphans, Options::default(), &by_operator("ann"))
        .await
        .unwrap()
        .unwrap()
        .to_string();
    let dropped = said(&app, &["job", "drop", &other, "--json"]).await;
    assert_eq!(dropped, serde_json::json!({ "job_id": other, "dropped": true }));
    for words in [["job", "retry", &id], ["job", "drop", &id]] {
        let output = app.command(&words).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no such job"));
    }
}

async fn rows_are(app: &TestApp, jobs: u64, ended_runs: usize) -> bool {
    let rows = &app.database.rows;
    let runs = pass_run::Entity::find().all(rows).await.unwrap();
    let ended = runs.iter().filter(|run| run.ended_at.is_some()).count();
    job::Entity::find().count(rows).await.unwrap() == jobs && ended == ended_runs && runs.len() == ended
}

async fn until_rows_are(app: &TestApp, jobs: u64, ended_runs: usize) {
    for _ in 0..1_000 {
        if rows_are(app, jobs, ended_runs).await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let runs = pass_run::Entity::find().all(&app.database.rows).await.unwrap();
    panic!("not {jobs} jobs and {ended_runs} runs, but {runs:?}");
}

async fn what_is_put_in_the_queue_is_done_by_the_server(app: TestApp) {
    // It looks once an hour: what happens sooner, happens because it was told.
    app.restart_with(&[("QUAYMASTER_JOBS__ENABLED", "true"), ("QUAYMASTER_JOBS__POLL_MILLIS", "3600000")]).await;
    let engine = app.engine().await;
    for (pass, runs) in Pass::ALL.into_iter().zip(1..) {
        pass::enqueue(&engine, pass, Options { dry_run: true, older_than: None }, &by_operator("ann"))
            .await
            .unwrap()
            .unwrap();
        until_rows_are(&app, 0, runs).await;
    }
}

async fn the_program_takes_up_what_a_killed_one_left(app: TestApp) {
    let engine = app.engine().await;
    pass::enqueue(&engine, Pass::Cleanup, Options { dry_run: true, older_than: None }, &by_operator("ann"))
        .await
        .unwrap()
        .unwrap();
    // As one leaves it that is killed in the middle of it, some time ago.
    let rows = &app.database.rows;
    let mut job: job::ActiveModel = job::Entity::find().one(rows).await.unwrap().unwrap().into();
    job.lease_token = sea_orm::Set(Some(uuid::Uuid::new_v4()));
    job.attempts = sea_orm::Set(1);
    job.run_at = sea_orm::Set(engine.clock.now() - TimeDelta::seconds(1));
    job::Entity::update(job).exec(rows).await.unwrap();
    app.set("QUAYMASTER_JOBS__ENABLED", "true");
    app.run_the_program().await;
    until_rows_are(&app, 0, 1).await;
}
