use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::rows;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::storage::{self, ErrorKind, Location, Op};

/// A marker has about 60 bytes; a larger object is not a marker.
const MARKER_BYTES_MAX: i64 = 4_096;

/// The content of a marker.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    deployment_id: Uuid,
}

/// Returns the id of this deployment. The first call creates it.
pub async fn id(engine: &Engine) -> Result<Uuid> {
    if let Some(id) = rows::find(engine.db.conn()).await? {
        return Ok(id);
    }
    rows::insert(&engine.db, engine.clock.now()).await?;
    rows::find(engine.db.conn()).await?.ok_or(Error::NotFound)
}

/// Checks that this deployment may delete the bucket's uploads. Marks a bucket that has no marker.
///
/// # Errors
/// [`Error::ForeignBucket`] if the marker is another deployment's or cannot be parsed. [`Error::Storage`] if the store does
/// not answer or there is no such bucket.
pub async fn must_own(engine: &Engine, bucket: &str) -> Result<()> {
    let mine = id(engine).await?;
    let at = Location::owner(bucket);
    let owner = match owner(engine, &at).await? {
        Some(owner) => owner,
        None => {
            // Not every store honours the condition below, and one stale answer must not let this deployment take another's
            // bucket.
            if !engine.storage.is_gone(&at).await? {
                // Another replica may have created it a moment ago.
                let unread = || storage::Error::unclear(Op::Get, format!("{} exists, but was not read", at.key));
                let owner = owner(engine, &at).await?.ok_or_else(unread)?;
                return judge(bucket, &owner, mine);
            }
            let marker = serde_json::to_vec(&Marker { deployment_id: mine }).expect("an id is JSON");
            engine.storage.put_if_absent(&at, &marker).await?;
            // Another deployment may have been faster, and not every store honours the condition.
            let gone = || storage::Error { op: Op::Get, kind: ErrorKind::NotFound, code: format!("no {}", at.key) };
            owner(engine, &at).await?.ok_or_else(gone)?
        }
    };
    judge(bucket, &owner, mine)
}

/// As [`must_own`], but leaves a bucket without a marker as it is.
///
/// # Errors
/// As [`must_own`].
pub async fn refuse_foreign(engine: &Engine, bucket: &str) -> Result<()> {
    match owner(engine, &Location::owner(bucket)).await? {
        Some(owner) => judge(bucket, &owner, id(engine).await?),
        None => Ok(()),
    }
}

/// Returns the owner that the marker names; `None` if there is no marker.
async fn owner(engine: &Engine, at: &Location) -> Result<Option<String>> {
    match engine.storage.read(at, MARKER_BYTES_MAX).await {
        Ok(bytes) => Ok(Some(match serde_json::from_slice::<Marker>(&bytes) {
            Ok(marker) => marker.deployment_id.to_string(),
            Err(_) => "one that cannot be read".to_owned(),
        })),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn judge(bucket: &str, owner: &str, mine: Uuid) -> Result<()> {
    if owner == mine.to_string() {
        return Ok(());
    }
    Err(Error::ForeignBucket { bucket: bucket.to_owned(), owner: owner.to_owned() })
}
