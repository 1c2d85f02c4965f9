//! The timetable of a running server.

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use entity::{pass_run, schedule};
use sea_orm::EntityTrait;

use crate::kit::{TestApp, stories};

stories![each_slot_is_a_run, what_was_missed_runs_once_at_the_start, a_bad_timetable_is_refused_by_name];

async fn runs(app: &TestApp) -> Vec<pass_run::Model> {
    let runs = pass_run::Entity::find().all(&app.database.rows).await.unwrap();
    runs.into_iter().filter(|run| run.ended_at.is_some()).collect()
}

async fn until_there_are_runs(app: &TestApp, count: usize) -> Vec<pass_run::Model> {
    for _ in 0..1_000 {
        let runs = runs(app).await;
        if runs.len() >= count {
            return runs;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("there are no {count} runs");
}

async fn each_slot_is_a_run(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_JOBS__ENABLED", "true"), ("QUAYMASTER_SCHEDULE__RECONCILE", "* * * * * *")]).await;
    let runs = until_there_are_runs(&app, 3).await;
    let mut slots: Vec<_> = runs.iter().map(|run| run.slot.unwrap()).collect();
    slots.dedup();
    assert_eq!(slots.len(), runs.len(), "no slot runs twice");
    let output = app.command(&["uploads", "schedule"]).await;
    let table = String::from_utf8(output.stdout).unwrap();
    let line = table.lines().find(|line| line.starts_with("reconcile ")).unwrap_or_else(|| panic!("{table}"));
    let words: Vec<_> = line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!((words.len(), words[1]), (10, "* * * * * *"), "{table}");
    // The one slot has come, the other is to come.
    let slots: Vec<DateTime<Utc>> = words[2..4].iter().map(|time| time.parse().unwrap()).collect();
    assert!(runs.iter().filter_map(|run| run.slot).min().unwrap() < slots[0] && slots[0] <= slots[1], "{table}");
    let line = table.lines().find(|line| line.starts_with("orphans ")).unwrap_or_else(|| panic!("{table}"));
    assert_eq!(line.split_whitespace().collect::<Vec<_>>().join(" "), "orphans never - - - - - - - -");
    for run in &runs {
        assert_eq!((run.pass.as_str(), run.actor.as_str(), run.dry_run), ("reconcile", "system", false));
        assert_eq!(run.slot.unwrap().nanosecond(), 0);
    }
}

async fn what_was_missed_runs_once_at_the_start(app: TestApp) {
    let daily = [("QUAYMASTER_JOBS__ENABLED", "true"), ("QUAYMASTER_SCHEDULE__DETECT_ABANDONED", "0 3 * * *")];
    app.restart_with(&daily).await;
    let known = schedule::Entity::find().all(&app.database.rows).await.unwrap();
    assert_eq!(known.len(), 1, "{known:?}");
    app.stop_server().await;
    assert!(runs(&app).await.is_empty(), "a new deployment has missed nothing");

    app.advance(TimeDelta::days(3));
    app.start_server().await;
    let made_up_for = until_there_are_runs(&app, 1).await;
    assert_eq!(made_up_for[0].slot, Some(known[0].last_slot + TimeDelta::days(3)));
    app.stop_server().await;
    app.start_server().await;
    app.stop_server().await;
    assert_eq!(runs(&app).await, made_up_for, "once");
}

async fn a_bad_timetable_is_refused_by_name(app: TestApp) {
    for (cron, says) in [("0 0 30 2 *", "no such time ever comes"), ("every day", "2 fields"), ("61 * * * *", "")] {
        app.set("QUAYMASTER_SCHEDULE__ORPHANS", cron);
        let output = app.command(&["serve"]).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{cron}: {stderr}");
        assert!(stderr.contains("schedule.orphans") && stderr.contains(cron) && stderr.contains(says), "{stderr}");
    }
    app.set("QUAYMASTER_SCHEDULE__ORPHANS", "never");
}
