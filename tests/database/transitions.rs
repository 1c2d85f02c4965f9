//! The state table, the one statement that follows it, and both under contention.

use std::sync::atomic::{AtomicU32, Ordering};

use entity::upload_session::{FailureReason, Status};
use entity::{SessionId, TenantId, upload_event};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use quaymaster::caller::Actor;
use quaymaster::engine::Engine;
use quaymaster::error::Error;
use quaymaster::session::state::{Event, Verdict, judge};
use quaymaster::session::{Change, Outcome, Session, transition};
use sea_orm::{ActiveEnum, ColumnTrait, EntityTrait, Iterable, QueryFilter, QueryOrder};
use uuid::Uuid;

use crate::kit::TestDb;
use crate::kit::lives::operator;
use crate::kit::rows::{ARROWS, Kind, Place};

on_both!(
    a_transition_does_what_the_table_says,
    a_failure_beside_a_move_takes_it_back,
    nobody_moves_what_is_not_theirs,
    of_many_callers_one_moves,
    complete_and_cancel_have_one_winner,
    any_events_in_any_order_leave_a_true_history,
);

/// The table of the design, written out: what each event does in each state.
const TABLE: [(Status, [Verdict; 4]); 5] = {
    use Status::{Cancelled, Completed, Failed, Initiating, Uploading};
    use Verdict::{Already, Move, Refused};
    [
        //            open             complete         cancel           fail
        (Initiating, [Move(Uploading), Refused, Move(Cancelled), Move(Failed)]),
        (Uploading, [Already, Move(Completed), Move(Cancelled), Move(Failed)]),
        (Completed, [Refused, Already, Already, Refused]),
        (Failed, [Refused, Refused, Already, Already]),
        (Cancelled, [Refused, Refused, Already, Refused]),
    ]
};

#[test]
fn the_judge_reads_the_table() {
    let mut judged = 0;
    for (state, verdicts) in TABLE {
        for (event, verdict) in Event::ALL.into_iter().zip(verdicts) {
            assert_eq!(judge(state, event), verdict, "{event} in {state:?}");
            judged += 1;
        }
    }
    assert_eq!(judged, Status::iter().count() * Event::ALL.len());
}

#[test]
fn the_databases_arrows_are_those_of_the_table() {
    let mut arrows: Vec<_> = Event::ALL
        .into_iter()
        .flat_map(|event| event.row().from.iter().map(move |from| (from.to_value(), event.row().to.to_value())))
        .collect();
    arrows.sort();
    let mut expected = ARROWS.map(|(from, to)| (from.to_owned(), to.to_owned()));
    expected.sort();
    assert_eq!(arrows, expected);
    for state in Status::iter() {
        assert_eq!(state.is_terminal(), !expected.iter().any(|(from, _)| *from == state.to_value()), "{state:?}");
    }
}

/// A change that has all that its event needs.
fn change(event: Event, kind: Kind, actor: &Actor) -> Change<'_> {
    match event {
        Event::Open => Change::open(actor, if kind == Kind::Multipart { Some("upload-1") } else { None }),
        Event::Complete => Change::complete(actor, "etag", false),
        Event::Cancel => Change::cancel(actor),
        Event::Fail => Change::fail(actor, FailureReason::Operator),
    }
}

/// A session in that state, with the event of its beginning only.
async fn begun(db: &TestDb, place: &Place, kind: Kind, status: &str) -> (TenantId, SessionId) {
    let row = place.stored(db, kind, status).await;
    place.event(&row).insert(db, "upload_event").await.unwrap();
    (TenantId(place.tenant), SessionId(row.id("id")))
}

async fn find(engine: &Engine, (tenant, id): (TenantId, SessionId)) -> Session {
    entity::upload_session::Entity::find_by_id((tenant, id)).one(engine.db.conn()).await.unwrap().unwrap()
}

async fn history(engine: &Engine, (_, id): (TenantId, SessionId)) -> Vec<upload_event::Model> {
    upload_event::Entity::find()
        .filter(upload_event::Column::UploadSessionId.eq(id))
        .order_by_asc(upload_event::Column::Seq)
        .all(engine.db.conn())
        .await
        .unwrap()
}

async fn send(engine: &Engine, session: (TenantId, SessionId), event: Event, kind: Kind, actor: &Actor) -> Outcome {
    let seen = find(engine, session).await;
    transition(engine, &seen, change(event, kind, actor), async |_, _| Ok(())).await.unwrap()
}

async fn a_transition_does_what_the_table_says(db: TestDb) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    let place = Place::create(&db).await;
    for kind in [Kind::Direct, Kind::Multipart] {
        for state in Status::iter() {
            for event in Event::ALL {
                let session = begun(&db, &place, kind, &state.to_value()).await;
                let before = find(&engine, session).await;
                let runs = AtomicU32::new(0);
                let outcome = transition(&engine, &before, change(event, kind, &operator("bob")), async |_, moved| {
                    assert_eq!(moved.status, event.row().to);
                    runs.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                })
                .await
                .unwrap();
                let after = find(&engine, session).await;
                let what = format!("{event} in {state:?}, {kind:?}");
                match (judge(state, event), outcome) {
                    (Verdict::Move(to), Outcome::Moved(answer)) => {
                        assert_eq!(answer, after, "{what}");
                        assert_eq!(after.status, to, "{what}");
                        assert_eq!(
                            (after.version, after.event_seq),
                            (before.version + 1, before.event_seq + 1),
                            "{what}"
                        );
                        assert_eq!(runs.into_inner(), 1, "{what}");
                        let last = history(&engine, session).await.pop().unwrap();
                        assert_eq!((last.seq, last.event.as_str()), (after.event_seq, event.name()), "{what}");
                        assert_eq!((last.from_status, last.to_status), (Some(state), Some(to)), "{what}");
                        assert_eq!((last.actor.as_str(), last.reason), ("bob", after.failure_reason), "{what}");
                        assert_eq!(last.at, after.updated_at, "{what}");
                    }
                    (Verdict::Already, Outcome::Already(answer)) | (Verdict::Refused, Outcome::Refused(answer)) => {
                        assert_eq!((&answer, &after), (&before, &before), "{what}");
                        assert_eq!(runs.into_inner(), 0, "{what}");
                        assert_eq!(history(&engine, session).await.len(), 1, "{what}");
                    }
                    (verdict, outcome) => panic!("{what}: {verdict:?}, but {outcome:?}"),
                }
            }
        }
    }
}

async fn a_failure_beside_a_move_takes_it_back(db: TestDb) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    let place = Place::create(&db).await;
    let session = begun(&db, &place, Kind::Direct, "UPLOADING").await;
    let before = find(&engine, session).await;
    let change = Change::complete(&Actor::System, "etag", false);
    let result = transition(&engine, &before, change, async |_, _| Err(Error::NotFound)).await;
    assert!(matches!(result, Err(Error::NotFound)), "{result:?}");
    assert_eq!(find(&engine, session).await, before);
    assert_eq!(history(&engine, session).await.len(), 1);

    // And nothing of it hinders the next one.
    assert!(matches!(send(&engine, session, Event::Complete, Kind::Direct, &operator("ann")).await, Outcome::Moved(_)));
}

async fn nobody_moves_what_is_not_theirs(db: TestDb) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    let (here, there) = (Place::create(&db).await, Place::create(&db).await);
    let (tenant, id) = begun(&db, &here, Kind::Direct, "UPLOADING").await;
    let seen = find(&engine, (tenant, id)).await;
    for (tenant_id, id) in [(TenantId(there.tenant), id), (tenant, SessionId(Uuid::now_v7()))] {
        let seen = Session { tenant_id, id, ..seen.clone() };
        for event in Event::ALL {
            let result =
                transition(&engine, &seen, change(event, Kind::Direct, &operator("eve")), async |_, _| Ok(())).await;
            assert!(matches!(result, Err(Error::NotFound)), "{result:?}");
        }
    }
    assert_eq!(find(&engine, (tenant, id)).await.version, 2);
}

/// Sends the events from a task each, all at once.
async fn race(engine: &Engine, session: (TenantId, SessionId), kind: Kind, events: &[Event]) -> Vec<Outcome> {
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(events.len()));
    let tasks: Vec<_> = events
        .iter()
        .map(|event| {
            let (engine, start, event) = (engine.clone(), start.clone(), *event);
            tokio::spawn(async move {
                start.wait().await;
                send(&engine, session, event, kind, &operator("ann")).await
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap());
    }
    outcomes
}

async fn of_many_callers_one_moves(db: TestDb) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    let place = Place::create(&db).await;
    for kind in [Kind::Direct, Kind::Multipart] {
        for (state, event) in [
            ("INITIATING", Event::Open),
            ("UPLOADING", Event::Complete),
            ("UPLOADING", Event::Cancel),
            ("INITIATING", Event::Fail),
        ] {
            let session = begun(&db, &place, kind, state).await;
            let outcomes = race(&engine, session, kind, &[event; 8]).await;
            let moved = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Moved(_))).count();
            let already = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Already(_))).count();
            assert_eq!((moved, already), (1, 7), "{event}");
            assert_eq!(history(&engine, session).await.len(), 2);
        }
    }
}

async fn complete_and_cancel_have_one_winner(db: TestDb) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    let place = Place::create(&db).await;
    for _ in 0..20 {
        let session = begun(&db, &place, Kind::Multipart, "UPLOADING").await;
        let events = [Event::Complete, Event::Cancel, Event::Fail];
        let outcomes = race(&engine, session, Kind::Multipart, &events).await;
        let after = find(&engine, session).await;
        let winners: Vec<_> = events.iter().zip(&outcomes).filter(|(_, o)| matches!(o, Outcome::Moved(_))).collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        assert_eq!(winners[0].0.row().to, after.status);
        for (event, outcome) in events.into_iter().zip(&outcomes) {
            match outcome {
                Outcome::Moved(answer) => assert_eq!(answer, &after),
                Outcome::Already(answer) => {
                    assert_eq!((judge(after.status, event), answer), (Verdict::Already, &after))
                }
                Outcome::Refused(answer) => {
                    assert_eq!((judge(after.status, event), answer), (Verdict::Refused, &after))
                }
                Outcome::GuardFailed(_) => panic!("{event} rests on no time"),
            }
        }
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec(proptest::sample::select(&Event::ALL[..]), 1..6)
}

async fn any_events_in_any_order_leave_a_true_history(db: TestDb) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    let place = Place::create(&db).await;
    let kinds = proptest::sample::select(&[Kind::Direct, Kind::Multipart][..]);
    let callers = proptest::collection::vec(events(), 1..5);
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let runtime = tokio::runtime::Handle::current();
    let result = tokio::task::block_in_place(|| {
        runner.run(&(kinds, callers), |(kind, callers)| {
            runtime.block_on(check_history(&db, &engine, &place, kind, callers));
            Ok(())
        })
    });
    result.unwrap();
}

/// Lets the callers send their events side by side, each its own in order, and compares what is left with the table.
async fn check_history(db: &TestDb, engine: &Engine, place: &Place, kind: Kind, callers: Vec<Vec<Event>>) {
    let session = begun(db, place, kind, "INITIATING").await;
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|events| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let mut seen = 1;
                let mut moves = 0;
                for event in events {
                    let outcome = send(&engine, session, event, kind, &operator("ann")).await;
                    let answer = match outcome {
                        Outcome::Moved(answer) => {
                            moves += 1;
                            assert_eq!(answer.status, event.row().to);
                            answer
                        }
                        Outcome::Already(answer) => {
                            assert_eq!(judge(answer.status, event), Verdict::Already);
                            answer
                        }
                        Outcome::Refused(answer) => {
                            assert_eq!(judge(answer.status, event), Verdict::Refused);
                            answer
                        }
                        Outcome::GuardFailed(_) => panic!("{event} rests on no time"),
                    };
                    assert!(answer.version >= seen, "nobody sees an older state than before");
                    seen = answer.version;
                }
                moves
            })
        })
        .collect();
    let mut moves = 0;
    for task in tasks {
        moves += task.await.unwrap();
    }

    let after = find(engine, session).await;
    let history = history(engine, session).await;
    let mut state = Status::Initiating;
    for (event, seq) in history.iter().zip(1..) {
        assert_eq!(event.seq, seq, "{history:#?}");
        if seq > 1 {
            let sent = Event::ALL.into_iter().find(|known| known.name() == event.event).unwrap();
            assert_eq!(event.from_status, Some(state), "{history:#?}");
            assert_eq!(event.to_status.map(Verdict::Move), Some(judge(state, sent)), "{history:#?}");
            state = event.to_status.unwrap();
        }
    }
    assert_eq!(after.status, state);
    assert_eq!(history.len(), moves + 1);
    assert_eq!(usize::try_from(after.version).unwrap(), moves + 1);
    assert_eq!(after.event_seq, after.version);
    let ends = history.iter().filter(|event| event.to_status.is_some_and(Status::is_terminal)).count();
    assert_eq!(ends, usize::from(after.status.is_terminal()));
}
