//! A verb whose caller goes away at any of its awaits: what it had begun is over, and its connection is fit for the next.

use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use entity::{tenant_usage, upload_event, upload_session};
use quaymaster::audit;
use quaymaster::caller::{Actor, Caller};
use quaymaster::error::Error;
use quaymaster::session::{self, BatchFile};
use quaymaster::tenant::{self, Limits};
use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use url::Url;
use uuid::Uuid;

use crate::kit::lives::{World, complete, new, uploading, user};
use crate::kit::{TestDb, engine_on};

on_both!(a_verb_dropped_at_any_await_leaves_nothing_half_done);

/// Polls a future so often at most, and then drops it.
async fn dropped_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // Not asked again before something happened.
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn suspended(world: &World) -> Caller {
    let eve = user(&world.engine, "globex").await;
    let limits = Limits { suspended: Some(true), ..Limits::default() };
    tenant::limit(&world.engine, &Actor::Operator("ola".to_owned()), eve.tenant, limits).await.unwrap();
    eve
}

/// Files that are opened together.
async fn batch(world: &World) {
    let files = (0..5).map(|_| BatchFile { client_reference: None, file: Some(new("note.txt", 7)) });
    for item in session::initiate_batch(&world.engine, &world.ann, files.collect()).await {
        assert!(item.result.unwrap().created);
    }
}

async fn a_verb_dropped_at_any_await_leaves_nothing_half_done(db: TestDb) {
    let world = World::begin(db).await;
    let eve = suspended(&world).await;
    let other = world.db.another_pool().await;
    for verb in ["initiate", "batch", "complete"] {
        // Several times: what is ready when is up to threads.
        for _ in 0..5 {
            for polls in 1.. {
                let subject = uploading(&world.engine, &world.ann).await;
                let is_done = match verb {
                    "initiate" => dropped_after(polls, Box::pin(uploading(&world.engine, &world.ann))).await.is_some(),
                    "batch" => dropped_after(polls, Box::pin(batch(&world))).await.is_some(),
                    _ => dropped_after(polls, Box::pin(complete(&world.engine, &subject))).await.is_some(),
                };
                let refused = session::initiate(&world.engine, &eve, new("note.txt", 7)).await;
                assert!(matches!(refused, Err(Error::TenantSuspended)), "{verb} after {polls}: {:?}", refused.err());
                let after = uploading(&world.engine, &world.ann).await;
                let found = upload_session::Entity::find_by_id((after.tenant_id, after.id)).one(&other).await;
                assert!(found.unwrap().is_some(), "{verb} after {polls}: a session that nobody else sees");
                if is_done {
                    break;
                }
            }
        }
    }
    // Sums and sessions agree: no transaction was half there.
    let live = upload_session::Entity::find().all(&other).await.unwrap();
    let live = live.iter().filter(|session| !session.status.is_terminal()).count();
    let usage = tenant_usage::Entity::find().all(&other).await.unwrap();
    let counted: i64 = usage.iter().map(|row| row.live_sessions).sum();
    assert_eq!(counted, i64::try_from(live).unwrap());
    assert!(upload_event::Entity::find().count(&other).await.unwrap() > 0);
    let report = audit::verify(&world.engine, &audit::Scope::default(), |_| {}).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    other.close().await.unwrap();
}

/// PostgreSQL answers the COMMIT of a transaction that has failed with a ROLLBACK, and no error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_has_failed_is_not_said_to_be_committed() {
    let home = TestDb::postgres().await.migrated().await;
    let db = home.as_the_program_opens_it(3).await;
    let tx = db.begin().await.unwrap();
    let id = Uuid::now_v7();
    let insert = format!("INSERT INTO deployment (id, deployment_id, created_at) VALUES (1, '{id}', now())");
    tx.conn().execute_unprepared(&insert).await.unwrap();
    tx.conn().execute_unprepared("SELECT 1 / 0").await.unwrap_err();
    tx.commit().await.unwrap_err();
    // Its connection is fit for the next one.
    let tx = db.begin().await.unwrap();
    tx.conn().execute_unprepared(&insert).await.unwrap();
    tx.commit().await.unwrap();
    db.close().await.unwrap();
}

/// A line to PostgreSQL on which these words are replaced by others, as long as they.
async fn line_that_says(to: String, words: &'static str, others: &'static str) -> SocketAddr {
    assert_eq!(words.len(), others.len());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let (mut asks, mut hears) = near.into_split();
            let (mut answers, mut is_asked) = TcpStream::connect(&to).await.unwrap().into_split();
            tokio::spawn(async move { copy(&mut answers, &mut hears).await });
            tokio::spawn(async move {
                let mut bytes = vec![0; 64 << 10];
                // A statement as short as these comes in one piece.
                while let Ok(count @ 1..) = asks.read(&mut bytes).await {
                    let said = &mut bytes[..count];
                    if let Some(at) = said.windows(words.len()).position(|window| window == words.as_bytes()) {
                        said[at..at + words.len()].copy_from_slice(others.as_bytes());
                    }
                    is_asked.write_all(said).await.unwrap();
                }
            });
        }
    });
    addr
}

/// BEGIN and what is set in the transaction are one step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_begins_half_leaves_no_connection_in_it() {
    let home = TestDb::postgres().await.migrated().await;
    let mut url = Url::parse(home.url()).unwrap();
    let to = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
    let (words, others) = ("LOCAL idle_in_transaction_session_timeout", "LOCAL no_such_setting_has_been_made_by_any");
    let line = line_that_says(to, words, &others[..words.len()]).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(line.port())).unwrap();
    let db = engine_on(url.as_str()).await.db;
    let refused = db.snapshot().await.unwrap_err();
    assert!(!refused.is_outage(), "{refused:?}");
    // Its connection goes back to the pool a moment later, and is the only one there.
    for _ in 0..20 {
        db.search_conn().execute_unprepared("SELECT 1").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    db.close().await.unwrap();
}
