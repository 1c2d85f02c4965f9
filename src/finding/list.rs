use std::cmp::Reverse;

use entity::SessionId;
use tracing::instrument;

use super::{Finding, FindingKind, rows};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::Result;
use crate::page::Page;

/// Which findings to list; by default all, of every tenant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    pub kind: Option<FindingKind>,
    /// Only findings of this caller's tenant, in the caller's brands. The caller must be allowed to manage uploads; this is
    /// not checked here.
    pub caller: Option<&'a Caller>,
}

/// Returns findings, those of the newest session first; `limit` must be 1 to 1,000.
///
/// # Errors
/// The database does not answer.
#[instrument(name = "finding.list", skip_all)]
pub async fn list(
    engine: &Engine,
    filter: Filter<'_>,
    before: Option<SessionId>,
    limit: u64,
) -> Result<Page<Finding, SessionId>> {
    let mut conn = engine.db.search_conn().clone();
    if let Some(caller) = filter.caller {
        conn = conn.of(caller.tenant);
    }
    let mut findings = Vec::new();
    for kind in FindingKind::ALL.into_iter().filter(|kind| filter.kind.is_none_or(|only| only == *kind)) {
        findings.extend(rows::list(&conn, kind, filter.caller, before, limit + 1).await?);
    }
    findings.sort_by_key(|finding| Reverse(finding.session));
    Ok(Page::cut(findings, limit, |last| last.session))
}
