//! Lists of sessions and sums over batches, as a caller may see them.

use chrono::{DateTime, Utc};
use entity::upload_session::{Column, Entity, Status};
use entity::{BrandId, SessionId, TenantId};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Order, Query, SelectStatement, UnionType};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, IdenStatic, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select,
};

use super::Session;
use crate::caller::{Brands, Caller, Permission};
use crate::database::db_error;
use crate::error::Result;
use crate::input::Reference;
use crate::tenant::rows::{halves, total};

/// Above this many (brand, status) pairs a list has one short query for each status only, and IN for the brands. PostgreSQL
/// plans this many in 3 ms, and twice as many in far more than twice the time.
const ARMS_MAX: usize = 64;

/// The filter of a list; an empty field matches any value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub statuses: Vec<Status>,
    pub brand: Option<BrandId>,
    pub created_by: Option<Reference>,
    pub batch_reference: Option<Reference>,
    pub client_reference: Option<Reference>,
    pub fingerprint: Option<Reference>,
}

/// Selects up to `limit` sessions that the caller may see, newest first, older than `before`.
///
/// A list is the merge of one short keyset query for each state, and for each brand if brands are limited. Each query
/// follows one index and fixes all its columns but the last, the id. So a list reads only what it returns, however many
/// sessions there are. A query with IN would read and sort all matches.
pub fn page(
    backend: DbBackend,
    caller: &Caller,
    filter: &Filter,
    before: Option<SessionId>,
    limit: u64,
) -> SelectStatement {
    let brands = match (&caller.brands, filter.brand) {
        (_, Some(brand)) if !caller.brands.hold(brand) => Some(vec![]),
        (_, Some(brand)) => Some(vec![brand]),
        (Brands::All, None) => None,
        (Brands::These(held), None) => Some(without_repeats(held)),
    };
    let user = visible_user(caller, filter.created_by.as_ref().map(Reference::as_str));
    // SQLite uses the index that fixes most columns, regardless of their values. A plus before a column hides it from its
    // index: then SQLite searches by the client reference, which few sessions have, and not through all sessions of a user
    // or a batch.
    let by_client_reference = backend == DbBackend::Sqlite && filter.client_reference.is_some();
    let beside = |column: Column| match by_client_reference {
        true => Expr::cust(format!("+{}", column.as_str())),
        false => Expr::col(column),
    };

    let mut common = Condition::all().add(Column::TenantId.eq(caller.tenant));
    if let Some(before) = before {
        common = common.add(Column::Id.lt(before));
    }
    common = match user {
        Visible::Anyone => common,
        Visible::Only(user) => common.add(beside(Column::CreatedBy).eq(user)),
        // A caller who sees only their own sessions has asked for another user's.
        Visible::Nobody => common.add(Expr::value(false)),
    };
    if let Some(batch) = &filter.batch_reference {
        common = common.add(beside(Column::BatchReference).eq(batch.as_str()));
    }
    if let Some(reference) = &filter.client_reference {
        common = common.add(Column::ClientReference.eq(reference.as_str()));
    }
    if let Some(fingerprint) = &filter.fingerprint {
        common = common.add(Column::Fingerprint.eq(fingerprint.as_str()));
    }

    let references = [&filter.batch_reference, &filter.client_reference, &filter.fingerprint];
    let referenced = references.into_iter().any(Option::is_some);
    if matches!(user, Visible::Anyone) && brands.is_none() && filter.statuses.is_empty() && !referenced {
        // All sessions of the tenant: follows the primary key.
        return merge(backend, vec![common], caller.tenant, limit);
    }
    let statuses = if filter.statuses.is_empty() { all_statuses() } else { without_repeats(&filter.statuses) };
    let by_brand = match brands {
        None => vec![common],
        // The sessions of a batch, or of one file, are few and mostly of one brand.
        Some(brands) if referenced || brands.len() * statuses.len() > ARMS_MAX => {
            vec![common.add(beside(Column::BrandId).is_in(brands.into_iter().map(Expr::value)))]
        }
        Some(brands) => brands.into_iter().map(|brand| common.clone().add(Column::BrandId.eq(brand))).collect(),
    };
    let arms = by_brand
        .into_iter()
        .flat_map(|arm| statuses.iter().map(move |status| arm.clone().add(Column::Status.eq(*status))))
        .collect();
    merge(backend, arms, caller.tenant, limit)
}

/// Removes duplicates: two equal arms would list their sessions twice.
fn without_repeats<T: PartialEq + Copy>(items: &[T]) -> Vec<T> {
    let mut seen = Vec::with_capacity(items.len());
    for item in items {
        if !seen.contains(item) {
            seen.push(*item);
        }
    }
    seen
}

/// Selects the sessions that match any of `arms`, newest first. No session may match two.
fn merge(backend: DbBackend, arms: Vec<Condition>, tenant: TenantId, limit: u64) -> SelectStatement {
    let arm_ids = |arm: Condition| {
        let mut ids = Query::select().column(Column::Id).from(Entity).cond_where(arm).to_owned();
        if backend == DbBackend::Postgres {
            // The limit makes the planner follow an index instead of collecting and sorting all matches. SQLite follows the
            // index anyway, and reads only as far as the merge needs; with a limit it would read up to the limit.
            ids.order_by(Column::Id, Order::Desc).limit(limit);
            ids = Query::select().column(Column::Id).from_subquery(ids, Alias::new("arm")).to_owned();
        }
        ids
    };
    let mut arms = arms.into_iter().map(arm_ids);
    let mut ids = arms.next().unwrap_or_else(|| arm_ids(Condition::all().add(Expr::value(false))));
    ids.unions(arms.map(|arm| (UnionType::All, arm))).order_by(Column::Id, Order::Desc).limit(limit);

    Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .filter(
            Column::Id
                .in_subquery(Query::select().column(Column::Id).from_subquery(ids, Alias::new("newest")).to_owned()),
        )
        .order_by_desc(Column::Id)
        .limit(limit)
        .into_query()
}

fn all_statuses() -> Vec<Status> {
    vec![Status::Initiating, Status::Uploading, Status::Completed, Status::Failed, Status::Cancelled]
}

enum Visible<'a> {
    Anyone,
    Only(&'a str),
    Nobody,
}

fn visible_user<'a>(caller: &'a Caller, asked: Option<&'a str>) -> Visible<'a> {
    match (caller.permissions.has(Permission::UploadsManage), asked) {
        (true, None) => Visible::Anyone,
        (true, Some(user)) => Visible::Only(user),
        (false, Some(user)) if user != caller.user() => Visible::Nobody,
        (false, _) => Visible::Only(caller.user()),
    }
}

/// Runs [`page`].
pub(in crate::session) async fn list(
    conn: &impl ConnectionTrait,
    caller: &Caller,
    filter: &Filter,
    before: Option<SessionId>,
    limit: u64,
) -> Result<Vec<Session>> {
    let backend = conn.get_database_backend();
    Session::find_by_statement(backend.build(&page(backend, caller, filter, before, limit)))
        .all(conn)
        .await
        .map_err(db_error)
}

/// One line of a batch's summary.
#[derive(Clone, Debug, FromQueryResult)]
pub(crate) struct StatusCount {
    pub(crate) status: Status,
    pub(crate) sessions: i64,
    bytes_upper: i64,
    bytes_lower: i64,
    pub(crate) first_at: DateTime<Utc>,
    pub(crate) last_at: DateTime<Utc>,
}

impl StatusCount {
    /// At most `i64::MAX`.
    pub(crate) fn bytes(&self) -> i64 {
        total(self.bytes_upper, self.bytes_lower)
    }
}

/// Selects a line for each state that occurs among the sessions of one batch that the caller may see.
pub fn batch_summary(caller: &Caller, batch: &str) -> Select<Entity> {
    let [upper, lower] = halves(Column::FileSize);
    let mut query = Entity::find()
        .select_only()
        .column(Column::Status)
        .column_as(Column::Id.count(), "sessions")
        .column_as(upper, "bytes_upper")
        .column_as(lower, "bytes_lower")
        .column_as(Column::CreatedAt.min(), "first_at")
        .column_as(Column::LastActivityAt.max(), "last_at")
        .filter(Column::TenantId.eq(caller.tenant))
        .filter(Column::BatchReference.eq(batch))
        .group_by(Column::Status);
    if let Visible::Only(user) = visible_user(caller, None) {
        query = query.filter(Column::CreatedBy.eq(user));
    }
    if let Brands::These(held) = &caller.brands {
        query = query.filter(Column::BrandId.is_in(held.iter().copied()));
    }
    query
}

pub(crate) async fn summarize(conn: &impl ConnectionTrait, caller: &Caller, batch: &str) -> Result<Vec<StatusCount>> {
    batch_summary(caller, batch).into_model::<StatusCount>().all(conn).await.map_err(db_error)
}
