use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::kit::{MIB, TestApp, stories};

stories![
    it_keeps_a_session_alive,
    no_session_lives_for_more_than_thirty_days,
    an_ended_session_takes_none,
    an_expired_session_takes_none,
];

fn time(session: &Value, field: &str) -> DateTime<Utc> {
    session[field].as_str().unwrap().parse().unwrap()
}

async fn it_keeps_a_session_alive(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(time(&note.session, "expires_at") - time(&note.session, "created_at"), TimeDelta::days(7));

    app.advance(TimeDelta::days(6));
    let touched = ann.activity(&note).await.ok();
    assert_eq!(touched["upload_session_id"], note.id.as_str());
    assert_eq!(touched["status"], "UPLOADING");
    assert_eq!(time(&touched, "expires_at") - time(&touched, "last_activity_at"), TimeDelta::days(7));

    app.advance(TimeDelta::days(6));
    let session = ann.session(&note).await.ok();
    assert_eq!(session["expires_at"], touched["expires_at"]);
    assert_eq!(session["last_activity_at"], touched["last_activity_at"]);
    assert_eq!(session["version"], note.session["version"]);
    assert_eq!(ann.resume(&note).await.ok()["can_resume"], true);
}

async fn no_session_lives_for_more_than_thirty_days(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    let end = time(&note.session, "created_at") + TimeDelta::days(30);
    for _ in 0..4 {
        app.advance(TimeDelta::days(6));
        assert!(time(&ann.activity(&note).await.ok(), "expires_at") <= end);
    }
    app.advance(TimeDelta::days(5));
    assert_eq!(time(&ann.activity(&note).await.ok(), "expires_at"), end);
    app.advance(TimeDelta::days(1));
    ann.activity(&note).await.is_problem(409, "session-expired");
}

async fn an_ended_session_takes_none(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    ann.cancel(&note).await.ok();
    let problem = ann.activity(&note).await.is_problem(409, "illegal-transition");
    assert_eq!(problem["upload_status"], "CANCELLED");
}

async fn an_expired_session_takes_none(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    app.advance(TimeDelta::days(7));
    ann.activity(&reel).await.is_problem(409, "session-expired");
    ann.part_url(&reel, 1).await.is_problem(409, "session-expired");
}
