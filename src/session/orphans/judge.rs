//! Judges what was found by the rows, which are read after the store.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use entity::upload_session::Status;
use entity::{SessionId, asset as asset_row};

use super::{Found, FoundKind, Sweep, Verdict};
use crate::action::{self, Act};
use crate::asset;
use crate::clock::believed;
use crate::error::Result;
use crate::session::rows::{self, Claim};

impl Sweep<'_> {
    /// Reads the rows for one page, and removes its orphans. Orphans under no session's key are recorded before that.
    /// `false` if the time was up before the end of the page.
    pub(super) async fn judge(&mut self, page: Vec<Found<'_>>, store_time: DateTime<Utc>) -> Result<bool> {
        let store_time = believed(store_time, self.engine.clock.now());
        let claims = self.claims(&page).await?;
        let mut orphans = Vec::new();
        for found in page {
            if self.is_over() {
                return Ok(false);
            }
            match self.verdict(&found, &claims).await? {
                Verdict::Explained => {}
                Verdict::Waiting => self.report.skipped += 1,
                Verdict::Orphan if is_younger(found.since, store_time, self.older_than) => self.report.skipped += 1,
                Verdict::Orphan => {
                    self.note_orphan(&found.at);
                    orphans.push(found);
                }
            }
        }
        if self.run.options.dry_run {
            return Ok(true);
        }
        self.announce(&orphans, &claims).await?;
        for found in orphans {
            if self.is_over() {
                return Ok(false);
            }
            self.remove(&found).await?;
        }
        Ok(true)
    }

    /// Records the orphans to be removed that are under no session's key: they have no other record.
    async fn announce(&self, orphans: &[Found<'_>], claims: &HashMap<SessionId, Claim>) -> Result<()> {
        let mut keys = Vec::new();
        for found in orphans {
            if self.owner_of(found, claims).await?.is_none() {
                keys.push(found.at.key.as_str());
            }
        }
        let Some(first) = orphans.first().filter(|_| !keys.is_empty()) else { return Ok(()) };
        let tx = self.engine.db.begin().await?;
        let act = Act::removing_orphans(&first.at.bucket, &keys);
        action::record(self.engine, &tx, &self.run.actor, act).await?;
        tx.commit().await
    }

    pub(super) async fn claims(&self, page: &[Found<'_>]) -> Result<HashMap<SessionId, Claim>> {
        let ids: Vec<SessionId> = page.iter().filter_map(|found| found.what.session()).collect();
        let size = usize::try_from(self.engine.settings.lifecycle.batch_rows).unwrap_or(usize::MAX);
        let mut claims = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(size) {
            let read = rows::find_claims(self.engine.db.search_conn(), ids).await?;
            claims.extend(read.into_iter().map(|claim| (claim.id, claim)));
        }
        Ok(claims)
    }

    pub(super) async fn verdict(&self, found: &Found<'_>, claims: &HashMap<SessionId, Claim>) -> Result<Verdict> {
        // A session explains only data in the bucket that it was opened in.
        let claim_of = |session| claims.get(&session).filter(|claim: &&Claim| claim.bucket == found.at.bucket);
        Ok(match found.what {
            FoundKind::Object(session) => claim_of(session).map_or(Verdict::Orphan, of_object),
            FoundKind::Upload(session, id) => claim_of(session).map_or(Verdict::Orphan, |claim| of_upload(claim, id)),
            FoundKind::Copy(tenant, id, _) => {
                let asset = asset::rows::find(self.engine.db.conn(), tenant, id).await?;
                match asset.filter(|asset| asset.bucket == found.at.bucket).map(|asset| asset.status) {
                    Some(asset_row::Status::Uploaded) => Verdict::Explained,
                    Some(asset_row::Status::Ready | asset_row::Status::Failed) | None => Verdict::Orphan,
                }
            }
        })
    }
}

fn of_object(claim: &Claim) -> Verdict {
    match claim.status {
        Status::Initiating | Status::Uploading => Verdict::Explained,
        // The asset is still to be copied from it, or it is kept for an operator.
        Status::Completed if claim.asset_status != Some(asset_row::Status::Ready) => Verdict::Explained,
        Status::Completed | Status::Failed | Status::Cancelled => of_ended(claim),
    }
}

fn of_upload(claim: &Claim, upload_id: &str) -> Verdict {
    match claim.status {
        // The answer with its id may still be on its way.
        Status::Initiating => Verdict::Explained,
        Status::Uploading if claim.multipart_upload_id.as_deref() == Some(upload_id) => Verdict::Explained,
        // If two calls opened the session at once, one upload was not recorded.
        Status::Uploading => Verdict::Orphan,
        Status::Completed | Status::Failed | Status::Cancelled => of_ended(claim),
    }
}

fn of_ended(claim: &Claim) -> Verdict {
    if claim.storage_cleared_at.is_none() { Verdict::Waiting } else { Verdict::Orphan }
}

/// Compares whole seconds, which is the precision of the store's `Date`.
fn is_younger(since: DateTime<Utc>, store_time: DateTime<Utc>, span: TimeDelta) -> bool {
    store_time.timestamp() - since.timestamp() < span.num_seconds()
}
