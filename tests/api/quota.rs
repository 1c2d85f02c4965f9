//! What a tenant may hold, and that nobody gets past it.

use futures_util::future::join_all;
use quaymaster::caller::{Caller, Permission, Permissions};
use quaymaster::error::Error;
use quaymaster::input::{FileName, MediaType, Metadata, Text as _};
use quaymaster::session::{self, NewUpload};
use serde_json::{Value, json};

use crate::kit::{Actor, By, CHUNK, MIB, Op, TestApp, Upload, stories};

stories![
    live_sessions_are_counted,
    bytes_are_counted_until_they_are_gone,
    a_replay_takes_nothing_of_it,
    a_batch_takes_what_fits,
    racing_batches_of_two_replicas_never_take_more,
    racing_with_the_quota_itself_nobody_gets_past_it,
    quotas_beside_ends_of_sessions_do_not_stop_each_other,
    an_opening_that_was_cut_short_counts_once,
    a_quota_can_be_lifted_and_lowered,
];

async fn quota(app: &TestApp, limits: Value) -> Value {
    app.operator("ola").patch("/admin/tenants/acme", &limits).await.ok()
}

/// `(live sessions, bytes)`
async fn held(app: &TestApp) -> (i64, i64) {
    let tenant = app.operator("ola").get("/admin/tenants/acme").await.ok();
    (tenant["live_sessions"].as_i64().unwrap(), tenant["bytes"].as_i64().unwrap())
}

async fn live_sessions_are_counted(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    quota(&app, json!({"quota_live_sessions": 2})).await;
    let first = ann.initiate("a", 1).await;
    let second = ann.initiate("b", CHUNK * 2).await;
    let body = json!({"file_name": "c", "file_size": 1});
    let problem = ann.initiate_with(&body).await.is_problem(409, "quota-exceeded");
    assert!(problem["detail"].as_str().unwrap().contains("2 of 2"), "{problem}");
    assert_eq!(ann.list("").await.ok()["data"].as_array().unwrap().len(), 2, "nothing is stored of a refused one");
    assert_eq!(app.store.uploads().await.len(), 1);
    // What ends makes room, however it ends.
    ann.cancel(&second).await.ok();
    let third = ann.initiate("c", 1).await;
    ann.initiate_with(&body).await.is_problem(409, "quota-exceeded");
    assert_eq!(ann.send(&first).await, 200);
    ann.complete(&first).await.created();
    ann.initiate("d", 1).await;
    ann.initiate_with(&body).await.is_problem(409, "quota-exceeded");
    fail(&app, &third).await;
    ann.initiate("e", 1).await;
    ann.initiate_with(&body).await.is_problem(409, "quota-exceeded");
    // Another tenant has nothing to do with it.
    app.tenant("globex").user("gil").initiate("g", 1).await;
}

async fn fail(app: &TestApp, upload: &Upload) {
    let path = format!("/admin/uploads/{}/fail?tenant=acme", upload.id);
    app.operator("ola").post(&path, &json!({"reason_text": "enough"})).await.ok();
}

async fn bytes_are_counted_until_they_are_gone(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    quota(&app, json!({"quota_bytes": 100})).await;
    let kept = ann.initiate("kept", 40).await;
    let cancelled = ann.initiate("cancelled", 30).await;
    let failed = ann.initiate("failed", 30).await;
    let refused = |size: u64| {
        let ann = ann.clone();
        async move {
            let reply = ann.initiate_with(&json!({"file_name": "x", "file_size": size})).await;
            reply.is_problem(409, "quota-exceeded")
        }
    };
    let problem = refused(1).await;
    assert!(problem["detail"].as_str().unwrap().contains("100 of 100 bytes"), "{problem}");
    assert_eq!(held(&app).await, (3, 100));
    assert_eq!(ann.send(&kept).await, 200);
    ann.complete(&kept).await.created();
    ann.cancel(&cancelled).await.ok();
    fail(&app, &failed).await;
    // An asset keeps its bytes; so does what has ended until the cleanup has seen that nothing is left.
    assert_eq!(held(&app).await, (0, 100));
    refused(1).await;
    // A quota below what is held takes nothing away.
    let tenant = quota(&app, json!({"quota_bytes": 10})).await;
    assert_eq!((&tenant["bytes"], &tenant["quota_bytes"]), (&json!(100), &json!(10)));
    refused(1).await;
    quota(&app, json!({"quota_bytes": 101})).await;
    refused(2).await;
    ann.initiate("fits", 1).await;
}

async fn a_replay_takes_nothing_of_it(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    quota(&app, json!({"quota_live_sessions": 1, "quota_bytes": 10})).await;
    let body = json!({"file_name": "a", "file_size": 10, "batch_reference": "b", "client_reference": "row-1"});
    let first = ann.initiate_with_key("k", &body).await.created();
    for _ in 0..3 {
        assert_eq!(ann.initiate_with_key("k", &body).await.ok()["upload_session_id"], first["upload_session_id"]);
        assert_eq!(ann.initiate_with(&body).await.ok()["upload_session_id"], first["upload_session_id"]);
    }
    assert_eq!(held(&app).await, (1, 10));
    // Once it has ended too.
    let upload = Upload::new(first);
    assert_eq!(ann.send(&upload).await, 200);
    ann.complete(&upload).await.created();
    assert_eq!(ann.initiate_with_key("k", &body).await.ok()["status"], "COMPLETED");
    assert_eq!(held(&app).await, (0, 10));
}

fn files(count: u64, size: u64) -> Vec<Value> {
    (0..count)
        .map(|n| json!({"file_name": format!("{n}"), "file_size": size, "client_reference": format!("{n}")}))
        .collect()
}

async fn a_batch_takes_what_fits(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    quota(&app, json!({"quota_bytes": 1_000})).await;
    let body = json!({"batch_reference": "b", "files": files(8, 300)});
    let answer = ann.initiate_batch(&body).await.is(207);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(3), &json!(5)));
    for file in answer["uploads"].as_array().unwrap().iter().filter(|file| file["result"] == "rejected") {
        assert_eq!(file["problem"]["code"], "quota-exceeded", "{file}");
        assert_eq!(file["problem"]["status"], 409, "{file}");
    }
    assert_eq!(held(&app).await, (3, 900));
    // Again: those that fitted are the same, and the others still do not fit.
    let again = ann.initiate_batch(&body).await.is(207);
    assert_eq!((&again["accepted"], &again["rejected"]), (&json!(3), &json!(5)));
    assert_eq!(held(&app).await, (3, 900));
    // With room they come in.
    quota(&app, json!({"quota_bytes": null})).await;
    assert_eq!(ann.initiate_batch(&body).await.created()["accepted"], 8);
    assert_eq!(held(&app).await, (8, 2_400));
}

pub fn new_upload(ann: &Actor, name: &str, size: u64) -> NewUpload {
    NewUpload {
        file_name: FileName::parse(name).unwrap(),
        file_size: size,
        mime_type: MediaType::parse("image/png").unwrap(),
        brand_id: Some(entity::BrandId(ann.tenant.brand("main"))),
        client_reference: None,
        batch_reference: None,
        fingerprint: None,
        checksum_sha256: None,
        metadata: Metadata::default(),
        idempotency_key: None,
    }
}

pub fn caller(ann: &Actor) -> Caller {
    Caller {
        tenant: entity::TenantId(ann.tenant.id),
        actor: By::User("ann".to_owned()),
        brands: quaymaster::caller::Brands::All,
        permissions: Permissions::default().with(Permission::UploadsCreate),
    }
}

/// How many of `count` sessions a second replica opens, all at once.
async fn opened_by(engine: &quaymaster::engine::Engine, ann: &Actor, count: usize, size: u64) -> usize {
    let (engine, caller) = (engine, caller(ann));
    let openings = (0..count).map(|n| session::initiate(engine, &caller, new_upload(ann, &format!("e{n}"), size)));
    let mut opened = 0;
    for result in join_all(openings).await {
        match result {
            Ok(_) => opened += 1,
            Err(Error::QuotaExceeded { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    opened
}

async fn racing_batches_of_two_replicas_never_take_more(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let engine = app.another_engine().await;
    let mut live = 0;
    for round in 0..6_i64 {
        let (limits, room) = if round % 2 == 0 {
            (json!({"quota_live_sessions": live + 25, "quota_bytes": null}), 25)
        } else {
            (json!({"quota_live_sessions": null, "quota_bytes": (live + 17) * 10 + 9}), 17)
        };
        quota(&app, limits).await;
        let batches = (0..3).map(|n| {
            let (ann, round) = (ann.clone(), round);
            async move {
                let body = json!({"batch_reference": format!("{round}-{n}"), "files": files(20, 10)});
                let answer = ann.initiate_batch(&body).await;
                // None accepted is 422, with each file's own problem.
                assert!([201, 207, 422].contains(&answer.status), "{answer}");
                answer.json()["accepted"].as_i64().unwrap()
            }
        });
        let (of_server, of_engine) =
            futures_util::future::join(join_all(batches), opened_by(&engine, &ann, 20, 10)).await;
        let opened = of_server.iter().sum::<i64>() + i64::try_from(of_engine).unwrap();
        // Exactly: nothing is refused either while there is room, as nothing is given back.
        assert_eq!(opened, room, "round {round}: {of_server:?} and {of_engine}");
        live += opened;
        assert_eq!(held(&app).await, (live, live * 10));
    }
    engine.db.close().await.unwrap();
}

/// The quota is set in the middle of a storm. What was opened before it stays; from its answer on nothing more comes in.
async fn racing_with_the_quota_itself_nobody_gets_past_it(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let engine = app.another_engine().await;
    for round in 0..5 {
        let storm = {
            let (ann, engine) = (ann.clone(), engine.clone());
            tokio::spawn(async move {
                let body = json!({"batch_reference": format!("storm-{round}"), "files": files(60, 1)});
                let (_, _) =
                    futures_util::future::join(ann.initiate_batch(&body), opened_by(&engine, &ann, 40, 1)).await;
            })
        };
        let before = held(&app).await.0;
        // Some are under way.
        while held(&app).await.0 < before + 5 + round {}
        let at = quota(&app, json!({"quota_live_sessions": 0})).await["live_sessions"].as_i64().unwrap();
        assert_eq!(held(&app).await.0, at);
        storm.await.unwrap();
        assert_eq!(held(&app).await.0, at, "round {round}: somebody got past a quota that was in force");
        // Suspension stops them at the same place.
        quota(&app, json!({"quota_live_sessions": null, "suspended": true})).await;
        ann.initiate_with(&json!({"file_name": "x", "file_size": 1})).await.is_problem(409, "tenant-suspended");
        quota(&app, json!({"suspended": false})).await;
    }
    engine.db.close().await.unwrap();
}

/// Whoever opens holds the tenant and adds to a share; whoever ends one adds to a share; whoever sets a quota has all of
/// them. None may wait for another in a circle, which the database would break up with an error.
async fn quotas_beside_ends_of_sessions_do_not_stop_each_other(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    quota(&app, json!({"quota_live_sessions": 500})).await;
    let opening = (0..8).map(|lane| {
        let ann = ann.clone();
        tokio::spawn(async move {
            for n in 0..8 {
                let upload = ann.initiate(&format!("{lane}-{n}"), 1).await;
                assert_eq!(ann.cancel(&upload).await.ok()["status"], "CANCELLED");
            }
        })
    });
    let opening: Vec<_> = opening.collect();
    for n in 0..30 {
        quota(&app, json!({"quota_live_sessions": 500 + n})).await;
        quota(&app, json!({"quota_live_sessions": null})).await;
    }
    for lane in opening {
        lane.await.unwrap();
    }
    assert_eq!(held(&app).await, (0, 64));
}

async fn an_opening_that_was_cut_short_counts_once(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    quota(&app, json!({"quota_live_sessions": 1})).await;
    let body = json!({"file_name": "reel.mov", "file_size": 6 * MIB});
    app.store.faults().drop_answers(Op::CreateMultipartUpload);
    ann.initiate_with_key("k", &body).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    assert_eq!(held(&app).await.0, 1, "INITIATING is live");
    ann.initiate_with(&body).await.is_problem(409, "quota-exceeded");
    assert_eq!(ann.initiate_with_key("k", &body).await.ok()["status"], "UPLOADING");
    assert_eq!(held(&app).await.0, 1);
}

async fn a_quota_can_be_lifted_and_lowered(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let tenant = quota(&app, json!({"quota_bytes": 5, "quota_live_sessions": 0})).await;
    assert_eq!((&tenant["quota_bytes"], &tenant["quota_live_sessions"]), (&json!(5), &json!(0)));
    let body = json!({"file_name": "x", "file_size": 6});
    ann.initiate_with(&body).await.is_problem(409, "quota-exceeded");
    // What is left out stays.
    let tenant = quota(&app, json!({"quota_live_sessions": null})).await;
    assert_eq!((&tenant["quota_bytes"], &tenant["quota_live_sessions"]), (&json!(5), &Value::Null));
    ann.initiate_with(&body).await.is_problem(409, "quota-exceeded");
    quota(&app, json!({"quota_bytes": i64::MAX})).await;
    ann.initiate("x", 6).await;
    let tenant = quota(&app, json!({"quota_bytes": null})).await;
    assert_eq!(tenant["quota_bytes"], Value::Null);
    assert_eq!(quota(&app, json!({})).await, tenant);
    let operator = app.operator("ola");
    let refused = |body: Value| {
        let operator = operator.clone();
        async move { operator.patch("/admin/tenants/acme", &body).await }
    };
    refused(json!({"quota_bytes": -1})).await.is_invalid(&[("/quota_bytes", "out-of-range")]);
    refused(json!({"quota_bytes": "1GiB", "suspended": 1, "colour": "red"})).await.is_invalid(&[
        ("/quota_bytes", "wrong-type"),
        ("/suspended", "wrong-type"),
        ("/colour", "unknown-field"),
    ]);
    refused(json!({"quota_live_sessions": 1e30})).await.is_invalid(&[("/quota_live_sessions", "out-of-range")]);
}
