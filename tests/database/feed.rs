//! The order of all events: by commits and not by beginnings, without a gap, whoever gives the places.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use entity::upload_event::{self, Column};
use quaymaster::caller::Actor;
use quaymaster::engine::Engine;
use quaymaster::feed::{BATCH, Interest, begin, run, sequence, stream};
use quaymaster::session::{Change, transition};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::kit::lives::{World, complete, moved, uploading, user};
use crate::kit::rows::{Kind, Place};
use crate::kit::{TestDb, engine_on};

on_both!(
    places_are_given_once_and_in_batches,
    several_at_once_leave_no_gap,
    a_reader_may_come_and_go_at_any_moment,
    a_failure_between_gives_nothing,
    a_session_deleted_before_its_turn_leaves_no_gap,
);

async fn placed(engine: &Engine, after: i64) -> Vec<upload_event::Model> {
    upload_event::Entity::find()
        .filter(Column::Position.gt(after))
        .order_by_asc(Column::Position)
        .all(engine.db.conn())
        .await
        .unwrap()
}

async fn last_position(engine: &Engine) -> i64 {
    entity::feed::Entity::find_by_id(1).one(engine.db.conn()).await.unwrap().unwrap().last_position
}

fn positions(events: &[upload_event::Model]) -> Vec<i64> {
    events.iter().map(|event| event.position.unwrap()).collect()
}

async fn places_are_given_once_and_in_batches(db: TestDb) {
    let world = World::begin(db).await;
    assert_eq!(sequence(&world.engine).await.unwrap(), 0);
    let place = Place::create(&world.db).await;
    let row = place.stored(&world.db, Kind::Direct, "INITIATING").await;
    for seq in 1..=2_500 {
        place.event(&row).with("seq", seq).insert(&world.db, "upload_event").await.unwrap();
    }
    for count in [u64::from(BATCH), u64::from(BATCH), 500, 0, 0] {
        assert_eq!(sequence(&world.engine).await.unwrap(), count);
    }
    let events = placed(&world.engine, 0).await;
    assert_eq!(positions(&events), (1..=2_500).collect::<Vec<i64>>());
    assert!(events.iter().all(|event| event.position == Some(i64::from(event.seq))));
    assert_eq!(last_position(&world.engine).await, 2_500);

    // The next ones go on from there.
    world.uploading().await;
    assert_eq!(sequence(&world.engine).await.unwrap(), 2);
    assert_eq!(positions(&placed(&world.engine, 2_500).await), [2_501, 2_502]);
}

/// Only here can a transaction that began earlier commit later: on SQLite writers take turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_commits_later_comes_later_however_early_it_began() {
    let world = World::begin(TestDb::postgres().await).await;
    // Of two tenants: of one, they may wait for each other over a row of its usage.
    let elsewhere = user(&world.engine, "globex").await;
    let (slow, quick) = (uploading(&world.engine, &elsewhere).await, world.uploading().await);
    assert_eq!(sequence(&world.engine).await.unwrap(), 4);

    // The slow one has written its event, at an earlier time, and does not commit yet.
    let (written, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow_one = {
        let (engine, written, go_on) = (world.engine.clone(), Arc::clone(&written), Arc::clone(&go_on));
        tokio::spawn(async move {
            let outcome = transition(&engine, &slow, Change::cancel(&Actor::System), async |_, _| {
                written.notify_one();
                go_on.notified().await;
                Ok(())
            });
            moved(outcome.await.unwrap())
        })
    };
    written.notified().await;
    let quick =
        moved(transition(&world.engine, &quick, Change::cancel(&Actor::System), async |_, _| Ok(())).await.unwrap());
    assert_eq!(sequence(&world.engine).await.unwrap(), 1);
    let seen = placed(&world.engine, 4).await;
    assert_eq!((positions(&seen), seen[0].upload_session_id), (vec![5], quick.id));

    // Nothing to do, and nobody waits for the slow one.
    assert_eq!(sequence(&world.engine).await.unwrap(), 0);
    go_on.notify_one();
    let slow = slow_one.await.unwrap();
    assert!(slow.updated_at <= quick.updated_at, "it is the older one");
    assert_eq!(sequence(&world.engine).await.unwrap(), 1);
    let seen = placed(&world.engine, 5).await;
    assert_eq!((positions(&seen), seen[0].upload_session_id), (vec![6], slow.id));
}

/// Two processes, each with writers and sequencers, and a reader that must never see a place before the one that goes
/// before it.
async fn several_at_once_leave_no_gap(db: TestDb) {
    const WRITERS: usize = 6;
    const SESSIONS: usize = 25;
    let world = World::begin(db).await;
    let processes = [world.engine.clone(), world.db.engine().await];
    let done = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let (engine, ann) = (processes[number % 2].clone(), world.ann.clone());
        writers.push(tokio::spawn(async move {
            for _ in 0..SESSIONS {
                let session = uploading(&engine, &ann).await;
                complete(&engine, &session).await;
            }
        }));
    }
    let mut sequencers = Vec::new();
    for number in 0..4 {
        let (engine, done) = (processes[number % 2].clone(), Arc::clone(&done));
        sequencers.push(tokio::spawn(async move {
            let mut given = 0;
            // Once more after the last writer.
            loop {
                let last = done.load(Ordering::SeqCst);
                given += sequence(&engine).await.unwrap();
                if last {
                    return given;
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    let reader = {
        let (engine, done) = (processes[0].clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut seen = 0;
            loop {
                let last = done.load(Ordering::SeqCst);
                for event in placed(&engine, seen).await {
                    assert_eq!(event.position, Some(seen + 1), "whoever sees a place sees the one before");
                    seen += 1;
                }
                if last {
                    return;
                }
            }
        })
    };
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let mut given = 0;
    for sequencer in sequencers {
        given += sequencer.await.unwrap();
    }
    reader.await.unwrap();
    given += sequence(&world.engine).await.unwrap();

    let all = i64::try_from(WRITERS * SESSIONS * 3).unwrap();
    assert_eq!(i64::try_from(given).unwrap(), all);
    let events = placed(&world.engine, 0).await;
    assert_eq!(positions(&events), (1..=all).collect::<Vec<i64>>());
    assert_eq!(last_position(&world.engine).await, all);
    let mut seqs: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for event in events {
        seqs.entry(event.upload_session_id.0).or_default().push(event.seq);
    }
    assert!(seqs.values().all(|seqs| seqs == &[1, 2, 3]), "each session's in its own order");
}

/// Passes bytes on, until it is told to hold them: nobody is told then that the line is dead.
async fn line_to(to: String, is_held: watch::Receiver<bool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(&to).await.unwrap();
            let mut is_held = is_held.clone();
            tokio::spawn(async move {
                tokio::select! {
                    // First: nothing that is said after the order passes.
                    biased;
                    _ = is_held.wait_for(|is_held| *is_held) => {}
                    _ = copy_bidirectional(&mut near, &mut far) => return,
                }
                // Both ends stay open.
                pending::<()>().await;
                drop((near, far));
            });
        }
    });
    addr
}

/// Only PostgreSQL has such a line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_line_does_not_answer_and_a_quiet_one_does() {
    const SOON: Duration = Duration::from_millis(500);
    let db = TestDb::postgres().await;
    let engine = engine_on(db.url()).await;
    let mut url = Url::parse(db.url()).unwrap();
    let to = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
    let (hold, is_held) = watch::channel(false);
    let line = line_to(to, is_held).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(line.port())).unwrap();
    let mut listener = engine_on(url.as_str()).await.db.listen("words").await.unwrap().unwrap();

    engine.db.announce("words").await.unwrap();
    listener.heard().await.unwrap();
    assert!(timeout(SOON, listener.heard()).await.is_err(), "it is quiet");
    listener.answers(Duration::from_secs(5)).await.unwrap();
    // What is said before the answer is not lost over it.
    engine.db.announce("words").await.unwrap();
    listener.answers(Duration::from_secs(5)).await.unwrap();
    timeout(SOON, listener.heard()).await.unwrap().unwrap();

    hold.send_replace(true);
    engine.db.announce("words").await.unwrap();
    let heard = timeout(SOON, listener.heard()).await;
    assert!(heard.is_err(), "it is as quiet as before: {heard:?}");
    assert!(listener.answers(SOON).await.unwrap_err().is_outage());
}

/// Only PostgreSQL tells anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_commits_others_hear_that_have_events_and_from_one_that_is_followed_nothing() {
    const QUIET: Duration = Duration::from_millis(300);
    let world = World::begin(TestDb::postgres().await).await;
    let other = world.db.engine().await;
    let mut listener = other.db.listen("quaymaster_feed").await.unwrap().unwrap();

    let tx = world.engine.db.begin().await.unwrap();
    tx.commit().await.unwrap();
    assert!(timeout(QUIET, listener.heard()).await.is_err(), "nothing has happened");

    let session = world.uploading().await;
    listener.heard().await.unwrap();
    assert_eq!(sequence(&other).await.unwrap(), 2, "whoever hears of a commit finds it");
    listener.heard().await.unwrap();

    // Its follower is to tell them, once for many.
    let follower = world.engine.db.follow();
    let places = sequence(&other).await.unwrap();
    while timeout(QUIET, listener.heard()).await.is_ok() {}
    for session in [session, world.uploading().await] {
        complete(&world.engine, &session).await;
    }
    assert!(timeout(QUIET, listener.heard()).await.is_err() && places == 0);
    follower.committed().await;
    assert!(timeout(QUIET, follower.committed()).await.is_err(), "several count as one");
    // Once it is gone, each is told of again.
    drop(follower);
    world.uploading().await;
    listener.heard().await.unwrap();
}

/// Readers that leave whenever nothing comes for a moment and are back at once: so they begin again and again while
/// something is being told, between what they read from the table and what they hear.
async fn a_reader_may_come_and_go_at_any_moment(db: TestDb) {
    const SESSIONS: i64 = 150;
    let world = World::begin(db).await;
    let stop = CancellationToken::new();
    begin(&world.engine).await.unwrap();
    let feed = tokio::spawn(run(world.engine.clone(), stop.clone()));
    let mut readers = Vec::new();
    for _ in 0..8 {
        let (engine, caller) = (world.engine.clone(), world.ann.clone());
        readers.push(tokio::spawn(async move {
            let (mut seen, mut came) = (0, 0);
            while seen < SESSIONS * 3 {
                let interest = Interest { caller: caller.clone(), batch_reference: None, session: None };
                let mut events = stream(&engine, interest, Some(seen)).await.unwrap();
                came += 1;
                while let Ok(next) = timeout(Duration::from_millis(3), events.next()).await {
                    let position = next.unwrap().expect("nobody is slow").position;
                    assert_eq!(position, seen + 1, "after coming {came} times");
                    seen = position;
                }
            }
            came
        }));
    }
    for _ in 0..SESSIONS {
        complete(&world.engine, &world.uploading().await).await;
    }
    for reader in readers {
        assert!(reader.await.unwrap() > 20, "they came and went");
    }
    stop.cancel();
    feed.await.unwrap();
}

async fn a_failure_between_gives_nothing(db: TestDb) {
    let world = World::begin(db).await;
    world.uploading().await;
    // The feed's row cannot move on.
    world.db.execute("DELETE FROM feed", []).await.unwrap();
    assert!(sequence(&world.engine).await.is_err());
    assert!(placed(&world.engine, 0).await.is_empty());
    world.db.execute("INSERT INTO feed (id, last_position) VALUES (1, 0)", []).await.unwrap();
    assert_eq!(sequence(&world.engine).await.unwrap(), 2);
}

async fn a_session_deleted_before_its_turn_leaves_no_gap(db: TestDb) {
    let world = World::begin(db).await;
    let (kept, gone) = (world.uploading().await, world.uploading().await);
    world.db.execute("DELETE FROM upload_event WHERE upload_session_id = $1", [gone.id.0.into()]).await.unwrap();
    assert_eq!(sequence(&world.engine).await.unwrap(), 2);
    let events = placed(&world.engine, 0).await;
    assert_eq!(positions(&events), [1, 2]);
    assert!(events.iter().all(|event| event.upload_session_id == kept.id));
}
