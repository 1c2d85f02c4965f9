//! What grows with the years: the audit of a deployment that goes on meanwhile, what is left of what was deleted, and
//! what is written again and again.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use entity::{pruned_places, upload_tombstone};
use futures_util::future::{join, join_all};
use futures_util::{StreamExt, stream};
use quaymaster::audit::{self, Scope, VerifyReport};
use quaymaster::caller::Actor;
use quaymaster::engine::Engine;
use quaymaster::feed;
use quaymaster::input::{Slug, Text as _};
use quaymaster::pass::{self, Options, Pass};
use quaymaster::work;
use sea_orm::{ActiveModelTrait, ConnectionTrait, EntityTrait, IntoActiveModel, PaginatorTrait};
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::kit::{Op, TestApp, stories};
use crate::promote::completed;

stories![
    an_audit_of_what_moves_on_finds_nothing,
    a_tombstone_is_pruned_and_its_places_stay_explained,
    what_is_said_every_second_is_written_once_a_minute,
    a_search_for_orphans_goes_on_at_its_key,
    a_bucket_that_is_slow_keeps_no_other_waiting,
];

const CLEANUP: Pass = Pass::Cleanup;

async fn place_all(engine: &Engine) {
    while feed::sequence(engine).await.unwrap() > 0 {}
}

async fn audit(engine: &Engine) -> VerifyReport {
    audit::verify(engine, &Scope::default(), |_| {}).await.unwrap()
}

/// Sessions of both tenants that are over, cleared, and past their retention.
async fn past(app: &TestApp, tenants: &[&str]) {
    for tenant in tenants {
        let ann = app.tenant(tenant).user("ann");
        for name in ["one", "two"] {
            let note = ann.initiate(name, 10).await;
            ann.cancel(&note).await.ok();
        }
    }
    app.pass_older_than(CLEANUP, TimeDelta::zero()).await;
    place_all(&app.engine().await).await;
    app.advance(TimeDelta::days(91));
}

async fn an_audit_of_what_moves_on_finds_nothing(app: TestApp) {
    let tenants = ["acme", "globex"];
    past(&app, &tenants).await;
    let users = tenants.map(|tenant| app.tenant(tenant).user("ann"));
    let mut live = Vec::new();
    for ann in &users {
        completed(ann, "asset.txt", 10).await;
        live.push(ann.initiate("live.txt", 10).await);
        live.push(ann.initiate("other.txt", 10).await);
    }
    let engine = app.engine().await;
    // Some events have a place as the audit begins, and some have none.
    feed::sequence(&engine).await.unwrap();
    for (ann, number) in users.iter().zip([0, 2]) {
        ann.cancel(&live[number]).await.ok();
    }
    let (mut slices, scope) = (0, Scope::default());
    let report = audit::verify(&engine, &scope, |_| {
        slices += 1;
        let first = slices == 1;
        let change = async {
            // All tenants change: the one that was looked at, and those that are still to come.
            for (ann, number) in users.iter().zip([1, 3]) {
                ann.initiate("new.txt", 1_000).await;
                if first {
                    ann.cancel(&live[number]).await.ok();
                    completed(ann, "more.txt", 500).await;
                }
            }
            if first {
                let report = app.pass_older_than(CLEANUP, TimeDelta::zero()).await;
                assert!(report.details()["rows_deleted"].as_u64() >= Some(4), "{report:?}");
                let (initech, brands) = (Slug::parse("initech").unwrap(), [Slug::main()]);
                quaymaster::tenant::create(&engine, &Actor::Command, &initech, &brands, None).await.unwrap();
            }
            place_all(&engine).await;
        };
        block_in_place(|| Handle::current().block_on(change));
    });
    let report = report.await.unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert!(slices >= 2);
    let report = audit(&engine).await;
    assert!(report.is_clean() && report.tombstones == 4, "{report:#?}");
}

async fn a_tombstone_is_pruned_and_its_places_stay_explained(app: TestApp) {
    past(&app, &["acme", "globex"]).await;
    let ann = app.tenant("acme").user("ann");
    completed(&ann, "asset.txt", 10).await;
    let engine = app.engine().await;
    place_all(&engine).await;
    app.pass_older_than(CLEANUP, TimeDelta::zero()).await;
    let tombstones = async || upload_tombstone::Entity::find().count(&app.database.rows).await.unwrap();
    assert_eq!(tombstones().await, 4);
    app.advance(TimeDelta::days(364));
    assert_eq!(app.pass_older_than(CLEANUP, TimeDelta::zero()).await.details()["tombstones_pruned"], 0, "a year");

    // What is not as it was sealed is left to be found.
    let change = "UPDATE upload_tombstone SET event_seq = event_seq + 1";
    app.database.rows.execute_unprepared(change).await.unwrap();
    app.advance(TimeDelta::days(2));
    let report = app.pass_older_than(CLEANUP, TimeDelta::zero()).await;
    assert_eq!((report.details()["tombstones_pruned"].as_u64(), report.failed), (Some(0), 4), "{report:?}");
    app.database.rows.execute_unprepared("UPDATE upload_tombstone SET event_seq = event_seq - 1").await.unwrap();

    assert_eq!(app.dry_pass(CLEANUP, None).await.details()["tombstones_pruned"], 4);
    assert_eq!(tombstones().await, 4);
    let report = app.pass_older_than(CLEANUP, TimeDelta::zero()).await;
    assert_eq!((report.details()["tombstones_pruned"].as_u64(), tombstones().await), (Some(4), 0), "{report:?}");
    let report = audit(&engine).await;
    assert!(report.is_clean() && report.tombstones == 0, "{report:#?}");

    // More are added to those that are there.
    let note = ann.initiate("note.txt", 10).await;
    ann.cancel(&note).await.ok();
    app.pass_older_than(CLEANUP, TimeDelta::zero()).await;
    for days in [91, 366] {
        place_all(&engine).await;
        app.advance(TimeDelta::days(days));
        app.pass_older_than(CLEANUP, TimeDelta::zero()).await;
    }
    assert_eq!((tombstones().await, pruned_places::Entity::find().count(&app.database.rows).await.unwrap()), (0, 1));
    assert!(audit(&engine).await.is_clean());

    // Nobody adds to them or takes them away unseen.
    let kept = pruned_places::Entity::find().one(&app.database.rows).await.unwrap().unwrap();
    let zeros = match app.database.rows.get_database_backend() {
        sea_orm::DbBackend::Postgres => "decode(repeat('00', 1024), 'hex')",
        _ => "zeroblob(1024)",
    };
    app.database.rows.execute_unprepared(&format!("UPDATE pruned_places SET places = {zeros}")).await.unwrap();
    let report = audit(&engine).await;
    let said = |what: &str| report.findings.iter().any(|finding| finding.what.contains(what));
    assert!(said("the pruned places of deleted sessions") && said("no event has a place from"), "{report:#?}");
    app.database.rows.execute_unprepared("DELETE FROM pruned_places").await.unwrap();
    assert!(!audit(&engine).await.is_clean());
    kept.into_active_model().reset_all().insert(&app.database.rows).await.unwrap();
    assert!(audit(&engine).await.is_clean());
}

async fn what_is_said_every_second_is_written_once_a_minute(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    let opened = note.session["last_activity_at"].clone();
    for _ in 0..5 {
        app.advance(TimeDelta::seconds(11));
        assert_eq!(ann.activity(&note).await.ok()["last_activity_at"], opened);
    }
    assert_eq!(ann.session(&note).await.ok()["updated_at"], note.session["updated_at"], "nothing was written");
    app.advance(TimeDelta::seconds(6));
    let touched = ann.activity(&note).await.ok();
    assert_ne!(touched["last_activity_at"], opened);
    assert_eq!(ann.session(&note).await.ok()["last_activity_at"], touched["last_activity_at"]);
    // Of many at once one writes.
    app.advance(TimeDelta::seconds(60));
    let at_once = join_all((0..8).map(|_| ann.activity(&note))).await;
    let said: std::collections::BTreeSet<_> =
        at_once.into_iter().map(|reply| reply.ok()["last_activity_at"].to_string()).collect();
    assert!(said.len() == 1 && !said.contains(&touched["last_activity_at"].to_string()), "{said:?}");
}

fn at_once(dry_run: bool) -> Options {
    Options { older_than: Some(TimeDelta::zero()), dry_run }
}

async fn a_search_for_orphans_goes_on_at_its_key(app: TestApp) {
    const MANY: usize = 1_100;
    let keys: Vec<String> = (0..MANY).map(|_| format!("temp/uploads/{}/original", Uuid::now_v7())).collect();
    stream::iter(&keys).for_each_concurrent(32, |key| app.store.put(key, b"nobody's")).await;
    let engine = app.engine().await;
    let search = async |stop: &CancellationToken| {
        pass::run(&engine, work::pass, Pass::Orphans, at_once(true), &Actor::System, None, stop).await.unwrap()
    };
    let (stop, first) = (CancellationToken::new(), app.store.faults().hold_request(Op::ListObjects));
    let (cut, ()) = join(search(&stop), async {
        first.arrived().await;
        let second = app.store.faults().hold_request(Op::ListObjects);
        first.release();
        second.arrived().await;
        stop.cancel();
        second.release();
    })
    .await;
    let place = &cut.details["places"][&app.store.bucket];
    assert!(place["step"] == "objects" && place["key"].is_string(), "{}", cut.details);
    // In a page there is the bucket's mark, too.
    assert!((900..=1_000).contains(&cut.found), "{cut:?}");
    let rest = search(&CancellationToken::new()).await;
    assert_eq!((cut.found + rest.found, rest.details.get("places")), (1_100, None), "{}", rest.details);
    assert_eq!(search(&CancellationToken::new()).await.found, 1_100, "it begins anew");
    stream::iter(&keys).for_each_concurrent(32, |key| app.store.delete(key)).await;
}

async fn a_bucket_that_is_slow_keeps_no_other_waiting(app: TestApp) {
    app.restart_with(&[("STORAGE_PROVISION_STRATEGY", "dedicated"), ("AWS_BUCKET", "nobody-has-this-bucket")]).await;
    app.move_tenant("acme", Some("aaa-not-there")).await;
    app.move_tenant("globex", Some(&app.store.bucket)).await;
    let key = format!("temp/uploads/{}/original", Uuid::now_v7());
    app.store.put(&key, b"nobody's").await;
    let engine = app.engine().await;
    // No answer comes from the first one, and the other one is asked all the same.
    let (faults, asked) = (app.store.faults(), app.store.faults().calls(Op::GetObject));
    let held = faults.hold_answer(Op::GetObject);
    let stop = CancellationToken::new();
    let search = pass::run(&engine, work::pass, Pass::Orphans, at_once(false), &Actor::System, None, &stop);
    let (run, ()) = join(search, async {
        held.arrived().await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while faults.calls(Op::GetObject) < asked + 2 {
            assert!(Instant::now() < deadline, "the other bucket waits for the first");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        held.release();
    })
    .await;
    let run = run.unwrap();
    assert_eq!((run.found, run.done, run.failed), (1, 1, 1), "{run:?}");
    for slug in ["acme", "globex"] {
        app.move_tenant(slug, None).await;
    }
}
