//! The steps after the copy: the asset becomes READY, and the uploaded object is deleted. For many small files these steps
//! would cost more than all others, so assets whose copies are made at the same time go through them together.

use entity::asset::Status;
use entity::upload_session::Model as Session;
use futures_util::FutureExt as _;
use serde_json::json;

use super::promote::{ACTOR, already};
use super::{Asset, Promoted, rows};
use crate::engine::Engine;
use crate::error::Result;
use crate::event::{self, Effect, Note, record_done, record_effect};
use crate::outage::Outage;
use crate::storage::{self, Location, Storage};
use crate::together::{Together, Way};

/// The maximum number of assets that one statement changes, and of objects that one request deletes.
const AT_ONCE: usize = 64;

/// The work that waits for each step.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    ready: Together<(), Copied, Result<ReadyOutcome>>,
    /// By bucket, so that a bucket that does not answer does not delay the others.
    deleted: Together<String, Location, Result<(), storage::Error>>,
    recorded: Together<(), Session, ()>,
}

/// An asset whose copy is complete.
#[derive(Clone, Debug)]
struct Copied {
    session: Session,
    asset: Asset,
    to: Location,
}

/// The result, and the session's new row if this call made the asset READY.
struct ReadyOutcome(Promoted, Option<Session>);

/// Makes the asset READY and deletes the uploaded object, best effort: the passes delete what is left.
pub(super) async fn make_ready(engine: &Engine, session: Session, asset: Asset, to: Location) -> Result<Promoted> {
    let copied = Copied { session, asset, to: to.clone() };
    let ready = |engine, copied| async move { all_ready(&engine, copied).await }.boxed();
    let way = Way::in_background(|_, ()| AT_ONCE, ready);
    let ReadyOutcome(promoted, session) = engine.promotions.ready.done((), engine, copied, way).await?;
    if let (Promoted::Ready(asset), Some(session)) = (&promoted, session) {
        let cleared = clear(engine, asset, &session, &to).await;
        record_cleared(engine, session, cleared).await;
    }
    Ok(promoted)
}

async fn all_ready(engine: &Engine, copied: Vec<Copied>) -> Vec<Result<ReadyOutcome>> {
    match record(engine, &copied).await {
        Ok(made) => made.into_iter().map(Ok).collect(),
        Err(error) if copied.len() == 1 => vec![Err(error)],
        Err(error) => match error.for_each(copied.len()) {
            Some(answers) => answers,
            // An asset that the database refuses must not fail the others: each is tried alone.
            None => {
                let (outage, mut each) = (Outage::default(), Vec::with_capacity(copied.len()));
                for one in copied {
                    let one = [one];
                    each.push(outage.attempt(Box::pin(record(engine, &one))).await.map(|mut made| made.remove(0)));
                }
                each
            }
        },
    }
}

/// Makes the assets READY and records their events, in one transaction.
async fn record(engine: &Engine, copied: &[Copied]) -> Result<Vec<ReadyOutcome>> {
    let now = engine.clock.now();
    let tx = engine.db.begin().await?;
    let rows: Vec<_> = copied.iter().map(|one| (&one.asset, one.to.key.as_str())).collect();
    let mut ready = rows::make_ready(&tx, &rows, now).await?;
    // If several entries name the same asset, the first one made it READY.
    let are_ready: Vec<_> = copied.iter().map(|one| ready.remove(&one.asset.id)).collect();
    let note = |one: &Copied| {
        let details = json!({ "asset_id": one.asset.id, "object_key": one.to.key });
        Note { event: "asset.ready", actor: ACTOR, details, at: now }
    };
    let first = copied.iter().zip(&are_ready).filter(|(_, is_ready)| **is_ready);
    let notes: Vec<_> = first.map(|(one, _)| (&one.session, note(one))).collect();
    let sessions = event::record_all(engine, &tx, &notes).await?;
    tx.commit().await?;

    let mut sessions = sessions.into_iter();
    let mut made = Vec::with_capacity(copied.len());
    for (one, is_ready) in copied.iter().zip(are_ready) {
        made.push(if is_ready {
            let asset = Asset {
                status: Status::Ready,
                object_key: one.to.key.clone(),
                ready_at: Some(now),
                ..one.asset.clone()
            };
            ReadyOutcome(Promoted::Ready(asset), sessions.next().flatten())
        } else {
            ReadyOutcome(already(engine, &one.asset).await?, None)
        });
    }
    Ok(made)
}

/// Deletes the uploaded object, and aborts the uploads that unfinished copies by parts left behind.
async fn clear(engine: &Engine, asset: &Asset, session: &Session, to: &Location) -> Result<(), storage::Error> {
    let delete = |storage: Storage, all: Vec<Location>| async move { storage.delete_all(&all).await }.boxed();
    let way = Way::in_background(|_, _| AT_ONCE, delete);
    let at = Location::upload(&session.bucket, session.id);
    let deleted = engine.promotions.deleted.done(at.bucket.clone(), &engine.storage, at, way).await;
    if asset.file_size.unsigned_abs() > engine.storage.limits().max_copy_bytes {
        for upload_id in engine.storage.list_uploads(to).await? {
            engine.storage.abort_multipart(to, &upload_id).await?;
        }
    }
    deleted
}

async fn record_cleared(engine: &Engine, session: Session, cleared: Result<(), storage::Error>) {
    if let Err(error) = cleared {
        return record_effect(engine, &session, ACTOR, Effect::Discard, json!({}), Err(&error)).await;
    }
    let record = |engine, sessions: Vec<Session>| {
        async move {
            record_done(&engine, &sessions, ACTOR, Effect::Discard).await;
            sessions.iter().map(|_| ()).collect()
        }
        .boxed()
    };
    let way = Way::in_background(|_, ()| AT_ONCE, record);
    engine.promotions.recorded.done((), engine, session, way).await;
}
