//! What every author forgets to check: at the end of a story, sessions explain all that there is.

use quaymaster::audit;
use std::collections::BTreeMap;

use entity::upload_session::{FailureReason, Status, UploadType};
use entity::{asset, job, pass_run, tenant_usage, upload_event, upload_session};
use sea_orm::{EntityTrait, QueryOrder};

use super::TestApp;

/// Panics with a line for each row, object or upload that should not be as it is.
pub async fn check(app: &TestApp) {
    app.store.heal();
    app.database.heal().await;
    let rows = &app.database.rows;
    let sessions = upload_session::Entity::find().all(rows).await.unwrap();
    let assets = asset::Entity::find().all(rows).await.unwrap();
    let events = upload_event::Entity::find().order_by_asc(upload_event::Column::Seq).all(rows).await.unwrap();
    let objects = app.store.objects().await;
    let uploads = app.store.uploads().await;

    let mut wrong = Vec::new();
    if !app.may_leave_bytes() {
        wrong.extend(app.unexplained_log_lines().into_iter().map(|line| format!("in the log: {line}")));
    }
    events_tell_each_session(&sessions, &events, &mut wrong);
    assets_match_completed_sessions(&sessions, &assets, &objects, &mut wrong);
    cleared_means_gone(&sessions, &objects, &uploads, &mut wrong);
    usage_is_the_sum_of_what_is_there(app, &sessions, &mut wrong).await;
    sessions_explain_the_bucket(app, &sessions, &assets, &objects, &uploads, &mut wrong);
    runs_are_ended_or_have_a_job(app, &mut wrong).await;
    the_record_is_true(app, &mut wrong).await;
    assert!(wrong.is_empty(), "the story leaves behind:\n  {}", wrong.join("\n  "));
}

/// Numbers without a gap up to `event_seq`, each event from where the last one led, `version` the count of moves.
fn events_tell_each_session(
    sessions: &[upload_session::Model],
    events: &[upload_event::Model],
    wrong: &mut Vec<String>,
) {
    for session in sessions {
        let own = || events.iter().filter(|e| e.upload_session_id == session.id);
        if !own().map(|e| e.seq).eq(1..=session.event_seq) {
            let seqs: Vec<i32> = own().map(|e| e.seq).collect();
            wrong.push(format!("session {} is at event {}, but has {seqs:?}", session.id, session.event_seq));
        }
        let mut status = None;
        let mut version = 0;
        for event in own() {
            if event.from_status != status {
                wrong.push(format!(
                    "event {} of session {} starts from {:?} where {status:?} was",
                    event.seq, session.id, event.from_status
                ));
            }
            if event.to_status != status {
                version += 1;
            }
            status = event.to_status;
        }
        if status != Some(session.status) || version != session.version {
            wrong.push(format!(
                "session {} is {:?} of version {}, its events say {status:?} of version {version}",
                session.id, session.status, session.version
            ));
        }
    }
    let known = |event: &&upload_event::Model| sessions.iter().any(|s| s.id == event.upload_session_id);
    wrong.extend(events.iter().filter(|e| !known(e)).map(|e| format!("event {e:?} has no session")));
}

fn assets_match_completed_sessions(
    sessions: &[upload_session::Model],
    assets: &[asset::Model],
    objects: &[(String, u64)],
    wrong: &mut Vec<String>,
) {
    for session in sessions.iter().filter(|s| s.status == Status::Completed) {
        let own: Vec<_> = assets.iter().filter(|a| a.upload_session_id == session.id).collect();
        match own.as_slice() {
            [asset] if asset.id == session.asset_id && asset.file_size == session.file_size => {
                let size = u64::try_from(asset.file_size).unwrap();
                // What a FAILED asset was to be made of may be gone: that is why it failed.
                if asset.status != asset::Status::Failed && !objects.contains(&(asset.object_key.clone(), size)) {
                    wrong.push(format!("asset {} has no object of {size} bytes at {}", asset.id, asset.object_key));
                }
            }
            _ => wrong.push(format!("COMPLETED session {} has the assets {own:?}", session.id)),
        }
    }
    for asset in assets.iter().filter(|a| (a.status == asset::Status::Ready) != (a.object_key == key_of(a))) {
        wrong.push(format!("asset {} is {:?}, at {}", asset.id, asset.status, asset.object_key));
    }
    let completed = |asset: &&asset::Model| {
        sessions.iter().any(|s| s.id == asset.upload_session_id && s.status == Status::Completed)
    };
    wrong.extend(assets.iter().filter(|a| !completed(a)).map(|a| format!("asset {} has no COMPLETED session", a.id)));
}

/// What is called cleared is not there.
fn cleared_means_gone(
    sessions: &[upload_session::Model],
    objects: &[(String, u64)],
    uploads: &[(String, String)],
    wrong: &mut Vec<String>,
) {
    for session in sessions.iter().filter(|session| session.storage_cleared_at.is_some()) {
        let key = format!("temp/uploads/{}/original", session.id);
        if objects.iter().any(|(at, _)| *at == key) || uploads.iter().any(|(at, _)| *at == key) {
            wrong.push(format!("session {} is cleared, but something is at {key}", session.id));
        }
    }
}

/// Live sessions, and the bytes of all that are not over and cleared.
async fn usage_is_the_sum_of_what_is_there(app: &TestApp, sessions: &[upload_session::Model], wrong: &mut Vec<String>) {
    let mut usage: BTreeMap<_, (i64, i64)> = BTreeMap::new();
    for session in sessions {
        let sum = usage.entry(session.tenant_id.to_string()).or_default();
        sum.0 += i64::from(matches!(session.status, Status::Initiating | Status::Uploading));
        if session.status == Status::Completed || session.storage_cleared_at.is_none() {
            sum.1 += session.file_size;
        }
    }
    let mut counted: BTreeMap<_, (i64, i64)> = BTreeMap::new();
    for row in tenant_usage::Entity::find().all(&app.database.rows).await.unwrap() {
        if !(0..16).contains(&row.stripe) {
            wrong.push(format!("a tenant's usage is spread over too many rows: {row:?}"));
        }
        let sum = counted.entry(row.tenant_id.to_string()).or_default();
        sum.0 += row.live_sessions;
        sum.1 += row.bytes;
    }
    counted.retain(|_, sum| *sum != (0, 0));
    usage.retain(|_, sum| *sum != (0, 0));
    if counted != usage {
        wrong.push(format!("the tenants' usage is counted as {counted:?}, and is {usage:?}"));
    }
}

/// A run that has not ended is a pass that runs, or one that a worker takes up.
async fn runs_are_ended_or_have_a_job(app: &TestApp, wrong: &mut Vec<String>) {
    let rows = &app.database.rows;
    let jobs = job::Entity::find().all(rows).await.unwrap();
    for run in pass_run::Entity::find().all(rows).await.unwrap() {
        if run.ended_at.is_none() && !jobs.iter().any(|job| job.kind == run.pass) {
            wrong.push(format!("the run {run:?} has neither an end nor a job"));
        }
    }
}

/// Every chain of events verifies, and every place in their order is there once.
async fn the_record_is_true(app: &TestApp, wrong: &mut Vec<String>) {
    let engine = app.another_engine().await;
    let report = audit::verify(&engine, &audit::Scope::default(), |_| {}).await.unwrap();
    wrong.extend(report.findings.iter().map(|finding| format!("the audit finds {finding:?}")));
    engine.db.close().await.unwrap();
}

fn sessions_explain_the_bucket(
    app: &TestApp,
    sessions: &[upload_session::Model],
    assets: &[asset::Model],
    objects: &[(String, u64)],
    uploads: &[(String, String)],
    wrong: &mut Vec<String>,
) {
    let by_key: BTreeMap<String, &upload_session::Model> =
        sessions.iter().map(|s| (format!("temp/uploads/{}/original", s.id), s)).collect();
    let by_asset_key: BTreeMap<String, &asset::Model> = assets.iter().map(|a| (key_of(a), a)).collect();
    let is_ready = |s: &upload_session::Model| {
        assets.iter().any(|a| a.upload_session_id == s.id && a.status == asset::Status::Ready)
    };
    for (key, size) in objects.iter().filter(|(key, _)| !by_asset_key.contains_key(key)) {
        match by_key.get(key).map(|s| s.status) {
            // Its promotion deletes it.
            Some(Status::Completed) if is_ready(by_key[key]) && !app.may_leave_bytes() => {
                wrong.push(format!("an object of {size} bytes at {key}, of a session whose asset is READY"));
            }
            Some(Status::Initiating | Status::Uploading | Status::Completed) => {}
            Some(Status::Failed | Status::Cancelled) if app.may_leave_bytes() => {}
            Some(Status::Failed) if waits_for_the_cleanup(by_key[key]) => {}
            status => wrong.push(format!("an object of {size} bytes at {key}, of a session that is {status:?}")),
        }
    }
    for (key, _) in objects {
        if let Some(asset) = by_asset_key.get(key).filter(|a| a.status == asset::Status::Failed) {
            wrong.push(format!("an object at {key}, of a FAILED asset {}", asset.id));
        }
    }
    for (key, id) in uploads {
        // A copy of many parts that was cut short, and that goes on.
        if by_asset_key.get(key).is_some_and(|a| a.status == asset::Status::Uploaded || app.may_leave_bytes()) {
            continue;
        }
        if by_key.get(key).is_some_and(|session| waits_for_the_cleanup(session)) {
            continue;
        }
        match by_key.get(key).map(|s| (s.status, s.upload_type, s.multipart_upload_id.as_deref())) {
            Some((Status::Initiating, UploadType::Multipart, None)) => {}
            Some((Status::Uploading, UploadType::Multipart, Some(own))) if own == id => {}
            Some((Status::Failed | Status::Cancelled, UploadType::Multipart, _)) if app.may_leave_bytes() => {}
            session => wrong.push(format!("the multipart upload {id} at {key}, of a session that is {session:?}")),
        }
    }
}

/// A pass that fails a session for its age leaves what the store holds of it.
fn waits_for_the_cleanup(session: &upload_session::Model) -> bool {
    use FailureReason::{Abandoned, Expired, StorageError};
    session.storage_cleared_at.is_none() && matches!(session.failure_reason, Some(Abandoned | Expired | StorageError))
}

/// Where an asset is served from.
fn key_of(asset: &asset::Model) -> String {
    format!("assets/{}/{}/original", asset.tenant_id, asset.id)
}
