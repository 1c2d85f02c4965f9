//! What operators do is recorded with it, in one chain, and whoever reaches past that is found; on both databases.

use entity::{TenantId, operator_action, operator_chain};
use quaymaster::action;
use quaymaster::audit::{Scope, VerifyReport, verify};
use quaymaster::caller::Actor;
use quaymaster::engine::Engine;
use quaymaster::error::Error;
use quaymaster::input::{BucketName, Slug, Text as _};
use quaymaster::jobs;
use quaymaster::pass::{self, Options, Pass};
use quaymaster::tenant::{self, Limits};
use quaymaster::work;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, IdenStatic, IntoActiveModel, Iterable, Value,
};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use crate::kit::TestDb;
use crate::kit::forger::{forge, forger};
use crate::kit::lives::operator;
use crate::kit::rows::{moment, text};

on_both!(
    each_act_is_recorded_with_what_it_made,
    what_changes_nothing_is_not_recorded,
    many_at_once_make_one_chain,
    two_at_once_agree,
    no_action_can_be_changed_removed_or_added,
    an_action_of_no_number_is_found,
    a_tenant_is_what_it_was_made,
);

async fn audit(engine: &Engine) -> VerifyReport {
    verify(engine, &Scope::default(), |_| {}).await.unwrap()
}

async fn clean(engine: &Engine) {
    let report = audit(engine).await;
    assert!(report.is_clean(), "{report:#?}");
}

async fn prepare(db: TestDb) -> (TestDb, Engine) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    (db, engine)
}

fn quota(bytes: i64) -> Limits {
    Limits { quota_bytes: Some(Some(bytes)), ..Limits::default() }
}

fn slug(name: &str) -> Slug {
    Slug::parse(name).unwrap()
}

fn bucket(name: &str) -> Option<BucketName> {
    Some(BucketName::parse(name).unwrap())
}

async fn create(engine: &Engine, name: &str) -> TenantId {
    tenant::create(engine, &operator("ola"), &slug(name), &[Slug::main()], None).await.unwrap().tenant_id
}

/// Oldest first: who, what, to whom, and how.
async fn recorded(engine: &Engine) -> Vec<(String, String, Option<TenantId>, Json)> {
    let mut actions = action::list(engine, None, None, 1_000).await.unwrap().items;
    actions.reverse();
    let mut seq = 0;
    let facts = actions.into_iter().map(|action| {
        seq += 1;
        assert_eq!(action.seq, seq);
        (action.actor, action.action, action.tenant_id, action.details)
    });
    facts.collect()
}

async fn each_act_is_recorded_with_what_it_made(db: TestDb) {
    let (_db, engine) = prepare(db).await;
    clean(&engine).await;
    let brands = |slugs: &[&str]| slugs.iter().map(|name| slug(name)).collect::<Vec<_>>();
    let made =
        tenant::create(&engine, &operator("ola"), &slug("acme"), &brands(&["shoes", "hats"]), None).await.unwrap();
    let acme = Some(made.tenant_id);
    let more = tenant::create(
        &engine,
        &Actor::Command,
        &slug("acme"),
        &brands(&["hats", "bags"]),
        bucket("acme-files").as_ref(),
    )
    .await
    .unwrap();
    let limits = Limits { suspended: Some(true), quota_bytes: Some(Some(7)), quota_live_sessions: Some(None) };
    let standing = tenant::limit(&engine, &operator("ola"), made.tenant_id, limits).await.unwrap();
    let options = Options { dry_run: true, older_than: None };
    let job = pass::enqueue(&engine, Pass::Orphans, options, &operator("ola")).await.unwrap().unwrap();
    jobs::retry(&engine, &operator("ole"), job).await.unwrap();
    jobs::discard(&engine, &operator("ola"), job).await.unwrap();
    let run =
        pass::by_hand(&engine, work::pass, Pass::Cleanup, Options::default(), &Actor::Command, &Default::default())
            .await
            .unwrap();
    assert!(run.unwrap().error.is_none());

    let (shoes, hats, bags) = (more.brands["shoes"], more.brands["hats"], more.brands["bags"]);
    let created = standing.tenant.created_at.timestamp_micros();
    let suspended = standing.tenant.suspended_at.unwrap().timestamp_micros();
    let actions = recorded(&engine).await;
    let by_hand = actions.last().unwrap().3["job_id"].clone();
    let tenant = json!({
        "slug": "acme", "bucket": null, "brands": {"shoes": shoes, "hats": hats}, "created_at_micros": created,
        "suspended_at_micros": null, "quota_bytes": null, "quota_live_sessions": null,
    });
    let limits = json!({"suspended_at_micros": suspended, "quota_bytes": 7, "quota_live_sessions": null});
    let payload = json!({"pass": "orphans", "slot": null, "actor": "ola", "actor_kind": "operator", "dry_run": true, "older_than_secs": null});
    let of_job = json!({"job_id": job, "kind": "orphans", "payload": payload});
    let ran = |pass: &str, dry_run: bool, job: &Json| json!({"pass": pass, "dry_run": dry_run, "older_than_secs": null, "job_id": job});
    let expected = [
        ("ola", "tenant.create", acme, tenant),
        ("cli", "tenant.bucket", acme, json!({"bucket": "acme-files"})),
        ("cli", "tenant.brands", acme, json!({"brands": {"bags": bags}})),
        ("ola", "tenant.limit", acme, limits),
        ("ola", "pass.run", None, ran("orphans", true, &json!(job))),
        ("ole", "job.retry", None, of_job.clone()),
        ("ola", "job.drop", None, of_job),
        ("cli", "pass.run", None, ran("cleanup", false, &by_hand)),
    ];
    let expected = expected.map(|(who, what, whom, how)| (who.to_owned(), what.to_owned(), whom, how));
    assert_eq!(actions, expected);
    let report = audit(&engine).await;
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(report.actions, Some(8));
    let part = verify(&engine, &Scope { tenant: acme, session: None }, |_| {}).await.unwrap();
    assert_eq!(part.actions, None, "only a part was looked at");
}

async fn what_changes_nothing_is_not_recorded(db: TestDb) {
    let (_db, engine) = prepare(db).await;
    let acme = create(&engine, "acme").await;
    tenant::create(&engine, &operator("ola"), &slug("bolt"), &[], bucket("bolt-files").as_ref()).await.unwrap();
    tenant::limit(&engine, &operator("ola"), acme, quota(7)).await.unwrap();
    let before = recorded(&engine).await;
    assert_eq!(before.len(), 3);

    create(&engine, "acme").await;
    tenant::limit(&engine, &operator("ola"), acme, Limits::default()).await.unwrap();
    tenant::create(&engine, &operator("ola"), &slug("bolt"), &[], bucket("bolt-files").as_ref()).await.unwrap();
    let elsewhere =
        tenant::create(&engine, &operator("ola"), &slug("bolt"), &[slug("new")], bucket("other").as_ref()).await;
    assert!(matches!(elsewhere, Err(Error::Invalid(_))));
    let nobody = TenantId::new();
    assert!(matches!(tenant::limit(&engine, &operator("ola"), nobody, quota(7)).await, Err(Error::NotFound)));
    let job = pass::enqueue(&engine, Pass::Orphans, Options::default(), &operator("ola")).await.unwrap().unwrap();
    assert_eq!(pass::enqueue(&engine, Pass::Orphans, Options::default(), &operator("ola")).await.unwrap(), None);
    let run =
        pass::by_hand(&engine, work::pass, Pass::Orphans, Options::default(), &Actor::Command, &Default::default())
            .await
            .unwrap();
    assert!(run.is_none());
    jobs::discard(&engine, &operator("ola"), job).await.unwrap();
    assert!(matches!(jobs::discard(&engine, &operator("ola"), job).await, Err(Error::NotFound)));
    assert!(matches!(jobs::retry(&engine, &operator("ola"), job).await, Err(Error::NotFound)));

    let after = recorded(&engine).await;
    assert_eq!(after[..3], before);
    let names: Vec<_> = after[3..].iter().map(|(_, name, ..)| name.as_str()).collect();
    assert_eq!(names, ["pass.run", "job.drop"]);
    clean(&engine).await;
}

async fn many_at_once_make_one_chain(db: TestDb) {
    let (db, one) = prepare(db).await;
    let other = db.engine().await;
    let acme = create(&one, "acme").await;
    let operators = (0..8_i64).map(|n| {
        let engine = if n % 2 == 0 { one.clone() } else { other.clone() };
        tokio::spawn(async move {
            for round in 0..5 {
                create(&engine, &format!("t-{n}-{round}")).await;
                tenant::limit(&engine, &operator("ola"), acme, quota(1_000 * n + round)).await.unwrap();
            }
        })
    });
    for operator in operators.collect::<Vec<_>>() {
        operator.await.unwrap();
    }
    assert_eq!(recorded(&one).await.len(), 1 + 8 * 5 * 2);
    clean(&one).await;
}

/// Nobody is told yes whose bucket is not taken, and two who add the same brands in another order are not in each other's
/// way.
async fn two_at_once_agree(db: TestDb) {
    let (db, one) = prepare(db).await;
    let other = db.engine().await;
    let (ola, ole) = (operator("ola"), operator("ole"));
    for round in 0..10 {
        let name = format!("t-{round}");
        create(&one, &name).await;
        let slug = slug(&name);
        let brands = |slugs: [&str; 3]| slugs.map(|name| Slug::parse(name).unwrap()).to_vec();
        let (forth, back) = (brands(["a", "b", "c"]), brands(["c", "b", "a"]));
        let (bucket_x, bucket_y) = (bucket("bucket-x"), bucket("bucket-y"));
        let (x, y) = tokio::join!(
            tenant::create(&one, &ola, &slug, &forth, bucket_x.as_ref()),
            tenant::create(&other, &ole, &slug, &back, bucket_y.as_ref()),
        );
        let won = [x, y].map(|answer| match answer {
            Ok(_) => true,
            Err(Error::Invalid(_)) => false,
            Err(error) => panic!("{error:?}"),
        });
        assert_ne!(won[0], won[1], "round {round}");
        let tenant = tenant::named_so(&one, slug.as_str()).await.unwrap();
        assert_eq!(tenant.bucket.as_deref(), Some(if won[0] { "bucket-x" } else { "bucket-y" }));
        let (forth, back) = (brands(["d", "e", "f"]), brands(["f", "e", "d"]));
        let (x, y) = tokio::join!(
            tenant::create(&one, &ola, &slug, &forth, None),
            tenant::create(&other, &ole, &slug, &back, None),
        );
        assert_eq!(x.unwrap().brands.len(), y.unwrap().brands.len());
    }
    clean(&one).await;
}

async fn no_action_can_be_changed_removed_or_added(db: TestDb) {
    let (db, engine) = prepare(db).await;
    let acme = create(&engine, "acme").await;
    let bolt = create(&engine, "bolt").await;
    for bytes in 1..=2 {
        tenant::limit(&engine, &operator("ola"), acme, quota(bytes)).await.unwrap();
    }
    let forger = forger(&db).await;
    let kept = operator_action::Entity::find().all(&forger).await.unwrap();
    let chain = operator_chain::Entity::find().one(&forger).await.unwrap().unwrap();
    clean(&engine).await;

    let columns: &[(&str, Value)] = &[
        ("seq", 30_i64.into()),
        ("at", moment().into()),
        ("actor", text("eve")),
        ("actor_kind", text("command")),
        ("action", text("job.drop")),
        ("tenant_id", bolt.0.into()),
        ("details", json!({"quota_bytes": 2}).into()),
        ("mac", vec![7_u8; 32].into()),
    ];
    let known: Vec<_> = operator_action::Column::iter().map(|column| column.as_str()).collect();
    assert_eq!(columns.iter().map(|(name, _)| *name).collect::<Vec<_>>(), known, "every column of the table");
    for action in &kept {
        for (column, value) in columns {
            // One is the other tenant's already.
            let value =
                if *column == "tenant_id" && action.tenant_id == Some(bolt) { acme.0.into() } else { value.clone() };
            let sql = format!("UPDATE operator_action SET {column} = $1 WHERE seq = $2");
            forge(&forger, &sql, [value, action.seq.into()]).await;
            assert!(!audit(&engine).await.is_clean(), "{column} of action {} was changed", action.seq);
            put_back(&forger, &kept).await;
        }
        forge(&forger, "DELETE FROM operator_action WHERE seq = $1", [action.seq.into()]).await;
        assert!(!audit(&engine).await.is_clean(), "action {} was deleted", action.seq);
        // And the rest moved up, so that no number is missing.
        for later in action.seq + 1..=4 {
            forge(&forger, "UPDATE operator_action SET seq = seq - 1 WHERE seq = $1", [later.into()]).await;
        }
        forge(&forger, "UPDATE operator_chain SET last_seq = 3", []).await;
        assert!(!audit(&engine).await.is_clean(), "action {} was deleted and its place filled", action.seq);
        forge(&forger, "UPDATE operator_chain SET last_seq = 4", []).await;
        put_back(&forger, &kept).await;
    }

    // The last one cut off, and the tenant with it set back: what the row before keeps is not the head that it made.
    forge(&forger, "DELETE FROM operator_action WHERE seq = 4", []).await;
    forge(&forger, "UPDATE tenant SET quota_bytes = 1 WHERE slug = 'acme'", []).await;
    let values = [kept[2].mac.clone().into()];
    forge(&forger, "UPDATE operator_chain SET last_seq = 3, head = $1", values).await;
    assert!(!audit(&engine).await.is_clean(), "the last action was cut off");
    forge(&forger, "UPDATE tenant SET quota_bytes = 2 WHERE slug = 'acme'", []).await;
    forge(&forger, "UPDATE operator_chain SET last_seq = 4, head = $1", [chain.head.clone().into()]).await;
    put_back(&forger, &kept).await;
    clean(&engine).await;

    // What comes after it is followed all the same.
    forge(&forger, "UPDATE operator_action SET actor = 'eve' WHERE seq = 1", []).await;
    forge(&forger, "UPDATE tenant SET quota_bytes = 9 WHERE slug = 'acme'", []).await;
    let report = audit(&engine).await;
    assert_eq!((report.found, report.actions), (2, Some(4)), "{report:#?}");
    forge(&forger, "UPDATE tenant SET quota_bytes = 2 WHERE slug = 'acme'", []).await;
    put_back(&forger, &kept).await;

    forge(&forger, "DELETE FROM operator_chain", []).await;
    assert_eq!(audit(&engine).await.found, 1, "where the chain ends was removed");
    operator_chain::Entity::insert(chain.into_active_model()).exec_without_returning(&forger).await.unwrap();
    clean(&engine).await;

    // One that never was, at the end.
    let more = operator_action::Model { seq: 5, ..kept[3].clone() };
    let insert = operator_action::Entity::insert(more.into_active_model());
    insert.exec_without_returning(&forger).await.unwrap();
    assert!(!audit(&engine).await.is_clean(), "an action was added");
    forge(&forger, "UPDATE operator_chain SET last_seq = 5", []).await;
    assert!(!audit(&engine).await.is_clean(), "an action was added and counted");

    // All of it, as on the first day: the tenants are still there.
    forge(&forger, "DELETE FROM operator_action", []).await;
    forge(&forger, "UPDATE operator_chain SET last_seq = 0, head = $1", [Vec::<u8>::new().into()]).await;
    let report = audit(&engine).await;
    assert_eq!(report.found, 2, "{report:#?}");
}

/// A number that was never given stands in the list, where nobody looks at the numbers.
async fn an_action_of_no_number_is_found(db: TestDb) {
    let (db, engine) = prepare(db).await;
    create(&engine, "acme").await;
    let forger = forger(&db).await;
    let without_checks = match db.backend() {
        DbBackend::Postgres => "ALTER TABLE operator_action DROP CONSTRAINT seq_positive",
        _ => "PRAGMA ignore_check_constraints = ON",
    };
    forger.execute_unprepared(without_checks).await.unwrap();
    let kept = operator_action::Entity::find().one(&forger).await.unwrap().unwrap();
    for seq in [-1, 0] {
        let row = operator_action::Model { seq, ..kept.clone() };
        operator_action::Entity::insert(row.into_active_model()).exec_without_returning(&forger).await.unwrap();
        let report = audit(&engine).await;
        assert_eq!((report.found, report.actions), (1, Some(2)), "{report:#?}");
        forge(&forger, "DELETE FROM operator_action WHERE seq = $1", [seq.into()]).await;
        clean(&engine).await;
    }
}

async fn put_back(forger: &DatabaseConnection, kept: &[operator_action::Model]) {
    operator_action::Entity::delete_many().exec(forger).await.unwrap();
    let rows = kept.iter().map(|row| row.clone().into_active_model());
    operator_action::Entity::insert_many(rows).exec_without_returning(forger).await.unwrap();
}

async fn a_tenant_is_what_it_was_made(db: TestDb) {
    let (db, engine) = prepare(db).await;
    let acme = create(&engine, "acme").await;
    tenant::create(&engine, &operator("ola"), &slug("bolt"), &[Slug::main()], bucket("bolt-files").as_ref())
        .await
        .unwrap();
    tenant::limit(&engine, &operator("ola"), acme, quota(7)).await.unwrap();
    let forger = forger(&db).await;
    clean(&engine).await;
    let created_at = tenant::named_so(&engine, "acme").await.unwrap().created_at;

    let changes: &[(&str, Value, Value)] = &[
        ("slug", text("evil"), text("acme")),
        ("bucket", text("evil-files"), Value::String(None)),
        ("quota_bytes", 8_i64.into(), 7_i64.into()),
        ("quota_bytes", Value::BigInt(None), 7_i64.into()),
        ("quota_live_sessions", 8_i64.into(), Value::BigInt(None)),
        ("suspended_at", moment().into(), Value::ChronoDateTimeUtc(None)),
        ("created_at", moment().into(), created_at.into()),
    ];
    for (column, forged, true_one) in changes {
        let sql = format!("UPDATE tenant SET {column} = $1 WHERE id = $2");
        forge(&forger, &sql, [forged.clone(), acme.0.into()]).await;
        let report = audit(&engine).await;
        assert!(!report.is_clean(), "{column} was changed, and nobody has noticed");
        assert!(report.findings.iter().all(|finding| finding.tenant_id == Some(acme)), "{column}: {report:#?}");
        forge(&forger, &sql, [true_one.clone(), acme.0.into()]).await;
        clean(&engine).await;
    }

    // What decides whether a limit is looked at, and what is weighed against it.
    for (forged, true_one) in [
        ("UPDATE tenant_usage SET limited = NOT limited", "UPDATE tenant_usage SET limited = NOT limited"),
        ("UPDATE tenant_usage SET bytes = bytes - 1", "UPDATE tenant_usage SET bytes = bytes + 1"),
        ("UPDATE tenant_usage SET live_sessions = -1", "UPDATE tenant_usage SET live_sessions = 0"),
        ("DELETE FROM tenant_usage", ""),
    ] {
        forge(&forger, forged, []).await;
        let report = audit(&engine).await;
        assert_eq!((report.found, report.findings[0].tenant_id), (1, Some(acme)), "{forged}: {report:#?}");
        if !true_one.is_empty() {
            forge(&forger, true_one, []).await;
            clean(&engine).await;
        }
    }
    tenant::limit(&engine, &operator("ola"), acme, quota(7)).await.unwrap();
    clean(&engine).await;

    let brand = Uuid::now_v7();
    let insert = "INSERT INTO brand (tenant_id, id, slug, created_at) VALUES ($1, $2, 'evil', $3)";
    forge(&forger, insert, [acme.0.into(), brand.into(), moment().into()]).await;
    assert_eq!(audit(&engine).await.found, 1, "a brand was added");
    forge(&forger, "DELETE FROM brand WHERE id = $1", [brand.into()]).await;
    let insert = "INSERT INTO tenant (id, slug, created_at) VALUES ($1, 'evil', $2)";
    forge(&forger, insert, [brand.into(), moment().into()]).await;
    assert_eq!(audit(&engine).await.found, 1, "a tenant was added");
    forge(&forger, "DELETE FROM tenant WHERE id = $1", [brand.into()]).await;
    clean(&engine).await;
    forge(&forger, "DELETE FROM brand WHERE tenant_id = $1", [acme.0.into()]).await;
    assert_eq!(audit(&engine).await.found, 1, "a brand was removed");
    forge(&forger, "DELETE FROM tenant WHERE id = $1", [acme.0.into()]).await;
    assert_eq!(audit(&engine).await.found, 1, "a tenant was removed");
}
