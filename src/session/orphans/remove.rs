//! Removes what no session explains.

use std::collections::HashMap;

use entity::{SessionId, TenantId};
use serde_json::json;
use tracing::{info, warn};

use super::{EXAMPLES_MAX, Found, FoundKind, Sweep, Verdict};
use crate::asset;
use crate::error::Result;
use crate::event::{Effect, record_effect};
use crate::session::Session;
use crate::session::rows::{self, Claim};
use crate::storage::{ErrorKind, Location};

impl Sweep<'_> {
    pub(super) async fn remove(&mut self, found: &Found<'_>) -> Result<()> {
        // Checked again right before the removal, because nothing that is in use may be removed.
        let claims = self.claims(std::slice::from_ref(found)).await?;
        if self.verdict(found, &claims).await? != Verdict::Orphan {
            self.report.skipped += 1;
            return Ok(());
        }
        let removed = match found.what.upload_id() {
            None => self.engine.storage.delete(&found.at).await,
            Some(id) => self.engine.storage.abort_multipart(&found.at, id).await,
        };
        let Location { bucket, key } = &found.at;
        if let Some(session) = self.session_of(found, &claims).await? {
            let about = json!({ "bucket": bucket, "object_key": key, "upload_id": found.what.upload_id() });
            let outcome = removed.as_ref().copied();
            record_effect(self.engine, &session, &self.run.actor, Effect::RemoveOrphan, about, outcome).await;
        }
        match removed {
            Ok(()) => {
                info!(bucket, key, upload_id = found.what.upload_id(), "removed an orphan");
                self.report.done += 1;
                Ok(())
            }
            // A lock or a policy on this orphan does not affect the others.
            Err(error) if matches!(error.kind, ErrorKind::Refused | ErrorKind::Invalid | ErrorKind::Changed) => {
                warn!(bucket, key, %error, "could not remove an orphan");
                if self.errors.len() < EXAMPLES_MAX {
                    self.errors.insert(format!("{bucket}/{key}"), error.to_string());
                }
                self.report.failed += 1;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the session that the key belongs to, if its row exists.
    async fn session_of(&self, found: &Found<'_>, claims: &HashMap<SessionId, Claim>) -> Result<Option<Session>> {
        match self.owner_of(found, claims).await? {
            Some((tenant, session)) => rows::find(self.engine.db.conn(), tenant, session).await,
            None => Ok(None),
        }
    }

    pub(super) async fn owner_of(
        &self,
        found: &Found<'_>,
        claims: &HashMap<SessionId, Claim>,
    ) -> Result<Option<(TenantId, SessionId)>> {
        Ok(match found.what {
            FoundKind::Object(session) | FoundKind::Upload(session, _) => {
                claims.get(&session).map(|claim| (claim.tenant_id, session))
            }
            FoundKind::Copy(tenant, asset, _) => {
                let asset = asset::rows::find(self.engine.db.conn(), tenant, asset).await?;
                asset.map(|asset| (tenant, asset.upload_session_id))
            }
        })
    }
}
