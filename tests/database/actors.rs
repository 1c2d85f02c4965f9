//! Of what sort an actor is stands in the record, and what was recorded before there were kinds is still believed.

use entity::upload_event::{self, Column};
use entity::{ActorKind, operator_action};
use quaymaster::audit::{Scope, VerifyReport, verify};
use quaymaster::caller::Actor;
use quaymaster::engine::Engine;
use quaymaster::input::{Slug, Text as _};
use quaymaster::keys::Entry;
use quaymaster::pass::{self, Options, Pass};
use quaymaster::session::{self, Session};
use quaymaster::work;
use quaymaster::{action, tenant};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};

use crate::kit::TestDb;
use crate::kit::forger::{forge, forger};
use crate::kit::lives::{World, operator};
use crate::kit::rows::text;

on_both!(
    a_person_of_the_machines_name_is_recorded_as_a_person,
    events_of_before_there_were_kinds_are_believed,
    the_database_knows_the_kinds,
);

async fn audit(engine: &Engine) -> VerifyReport {
    verify(engine, &Scope::default(), |_| {}).await.unwrap()
}

fn slug(name: &str) -> Slug {
    Slug::parse(name).unwrap()
}

async fn events(world: &World, session: &Session) -> Vec<upload_event::Model> {
    let events = upload_event::Entity::find().filter(Column::UploadSessionId.eq(session.id)).order_by_asc(Column::Seq);
    events.all(world.engine.db.conn()).await.unwrap()
}

/// Who did what was done last, and of what sort they are.
async fn last_actor(world: &World, session: &Session) -> (String, Option<ActorKind>) {
    let last = events(world, session).await.pop().unwrap();
    (last.actor, last.actor_kind)
}

async fn a_person_of_the_machines_name_is_recorded_as_a_person(db: TestDb) {
    let mut world = World::begin(db).await;
    let failed = world.failed().await;
    assert_eq!(last_actor(&world, &failed).await, ("system".to_owned(), Some(ActorKind::System)));
    // No door lets such a name in. Where one comes in all the same, it is a person's.
    world.ann.actor = Actor::User("system".to_owned());
    let theirs = world.uploading().await;
    assert_eq!(last_actor(&world, &theirs).await, ("system".to_owned(), Some(ActorKind::User)));
    session::cancel(&world.engine, &world.ann, theirs.id).await.unwrap();
    assert_eq!(events(&world, &theirs).await[2].actor_kind, Some(ActorKind::User));

    // The same of what operators do, of what they order, and of the runs that come of it.
    let engine = &world.engine;
    for (actor, kind) in [
        (operator("system"), ActorKind::Operator),
        (operator("cli"), ActorKind::Operator),
        (Actor::Command, ActorKind::Command),
    ] {
        tenant::create(engine, &actor, &slug(&format!("of-{}", kind.name())), &[slug(actor.name())], None)
            .await
            .unwrap();
        let done = action::list(engine, None, None, 1).await.unwrap().items.remove(0);
        assert_eq!((done.actor.as_str(), done.actor_kind), (actor.name(), Some(kind)));
        let stop = Default::default();
        let run =
            pass::by_hand(engine, work::pass, Pass::Cleanup, Options::default(), &actor, &stop).await.unwrap().unwrap();
        assert_eq!((run.actor.as_str(), run.actor_kind), (actor.name(), Some(kind)));
        let ordered = pass::enqueue(engine, Pass::Orphans, Options::default(), &actor).await.unwrap().unwrap();
        let job = entity::job::Entity::find_by_id(ordered).one(engine.db.conn()).await.unwrap().unwrap();
        assert_eq!((&job.payload["actor"], &job.payload["actor_kind"]), (&actor.name().into(), &kind.name().into()));
        quaymaster::jobs::discard(engine, &actor, ordered).await.unwrap();
    }
    let report = audit(engine).await;
    assert!(report.is_clean(), "{report:#?}");
}

async fn events_of_before_there_were_kinds_are_believed(db: TestDb) {
    let world = World::begin(db).await;
    let (session, newer) = (world.failed().await, world.failed().await);
    let forger = forger(&world.db).await;
    // As a server of the version before has written it: no kind in the rows, and none in the chain.
    let keys = &world.engine.keys;
    let mut head = keys.genesis(session.tenant_id, session.id);
    for event in events(&world, &session).await {
        let entry = Entry {
            event: &event.event,
            from: event.from_status,
            to: event.to_status,
            actor: &event.actor,
            actor_kind: None,
            reason: event.reason,
            details: event.details.clone(),
            at: event.at,
        };
        let link = keys.link(&head, session.tenant_id, session.id, event.seq, &entry);
        let sql = "UPDATE upload_event SET actor_kind = NULL, mac = $1 WHERE upload_session_id = $2 AND seq = $3";
        forge(&forger, sql, [link.mac.into(), session.id.0.into(), event.seq.into()]).await;
        head = link.head;
    }
    let sql = "UPDATE upload_session SET chain_head = $1 WHERE id = $2";
    forge(&forger, sql, [head.into(), session.id.0.into()]).await;
    let report = audit(&world.engine).await;
    assert!(report.is_clean(), "{report:#?}");

    // Nobody can give them one afterwards, nor take one away.
    let sql = "UPDATE upload_event SET actor_kind = $1 WHERE upload_session_id = $2 AND seq = 1";
    forge(&forger, sql, [text("system"), session.id.0.into()]).await;
    assert_eq!(audit(&world.engine).await.found, 1);
    let sql = "UPDATE upload_event SET actor_kind = NULL WHERE upload_session_id = $1 AND seq = 1";
    forge(&forger, sql, [session.id.0.into()]).await;
    assert_eq!(audit(&world.engine).await.found, 0);
    forge(&forger, sql, [newer.id.0.into()]).await;
    assert_eq!(audit(&world.engine).await.found, 1);
    let sql = "UPDATE operator_action SET actor_kind = $1 WHERE seq = 1";
    forge(&forger, sql, [text("system")]).await;
    assert_eq!(audit(&world.engine).await.found, 2);
}

async fn the_database_knows_the_kinds(db: TestDb) {
    let world = World::begin(db).await;
    world.failed().await;
    let stop = Default::default();
    pass::by_hand(&world.engine, work::pass, Pass::Cleanup, Options::default(), &Actor::Command, &stop)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(operator_action::Entity::find().all(world.engine.db.conn()).await.unwrap().len(), 2);
    for table in ["upload_event", "operator_action", "pass_run"] {
        let sql = format!("UPDATE {table} SET actor_kind = 'root'");
        let refused = world.db.execute(&sql, []).await;
        assert!(refused.is_err(), "{table}");
        let known = world.db.execute(&format!("UPDATE {table} SET actor_kind = 'user'"), []).await;
        assert!(known.unwrap() > 0, "{table}");
    }
}
