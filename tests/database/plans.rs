//! Every query of sessions reads about as many rows as it returns, however many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use entity::upload_session::Status;
use entity::{BrandId, SessionId, TenantId, asset, brand, tenant, upload_session};
use quaymaster::caller::{Actor, Brands, Caller, Permission, Permissions};
use quaymaster::event;
use quaymaster::finding;
use quaymaster::input::{Reference, Text as _};
use quaymaster::session::rows::{self, Filter, Queue, Scope};
use quaymaster::tenant::rows::{Count, count_by_day};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QueryResult, QuerySelect, QueryTrait, Select, Statement, Value,
};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::kit::TestDb;
use crate::kit::rows::moment;

on_both!(no_query_reads_much_more_than_it_returns);

const SESSIONS: usize = 100_000;

/// A table of sessions as a few years of use might leave it: one tenant has most, states and brands are skewed, batches
/// lie close together, some files come again and again.
struct World {
    /// The one with most of them.
    tenant: TenantId,
    /// The tenant's, the busiest first; the last two have old sessions only, and none.
    brands: Vec<BrandId>,
    /// Of all tenants, the newest first.
    ids: Vec<SessionId>,
    /// A large one of one user. Another one, `daily`, is used by everybody.
    batch: String,
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }

    /// Small numbers are more frequent: half of all rolls are 0, a quarter 1, and so on, and the rest is even.
    fn skewed(&mut self, sides: usize) -> usize {
        let mut n = 0;
        while n + 1 < sides && self.roll(2) == 1 {
            n += 1;
        }
        if self.roll(20) == 0 { self.roll(sides) } else { n }
    }
}

impl World {
    async fn create(db: &TestDb) -> Self {
        let id = |n: u128| Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + (n << 80));
        let is_postgres = db.backend() == DbBackend::Postgres;
        let literal = |id: Uuid| {
            if is_postgres { format!("'{id}'") } else { format!("X'{}'", id.simple()) }
        };
        let tenants: Vec<_> = (1..=4).map(id).collect();
        let brands: Vec<Vec<_>> = (1..=4).map(|tenant| (0..10).map(|n| id(100 * tenant + n)).collect()).collect();
        for (n, (tenant, brands)) in tenants.iter().zip(&brands).enumerate() {
            let tenant = literal(*tenant);
            let at = moment().to_rfc3339();
            db.execute(
                &format!(
                    "INSERT INTO tenant (id, slug, bucket, created_at) VALUES ({tenant}, 'tenant-{n}', NULL, '{at}')"
                ),
                [],
            )
            .await
            .unwrap();
            for (n, brand) in brands.iter().enumerate() {
                let brand = literal(*brand);
                db.execute(&format!("INSERT INTO brand VALUES ({tenant}, {brand}, 'brand-{n}', '{at}')"), [])
                    .await
                    .unwrap();
            }
        }

        // So many that they are worth an index.
        let at = moment().to_rfc3339();
        let more = (1_000..2_000).map(|n| (literal(id(n)), n));
        let (mut more_tenants, mut more_brands) = (Vec::new(), Vec::new());
        for (tenant, n) in more {
            more_tenants.push(format!("({tenant}, 'tenant-{n}', NULL, '{at}')"));
            more_brands.push(format!("({tenant}, {tenant}, 'main', '{at}')"));
        }
        db.execute(
            &format!("INSERT INTO tenant (id, slug, bucket, created_at) VALUES {}", more_tenants.join(", ")),
            [],
        )
        .await
        .unwrap();
        db.execute(&format!("INSERT INTO brand VALUES {}", more_brands.join(", ")), []).await.unwrap();

        let mut dice = Dice(7);
        let mut ids = Vec::new();
        let (mut batch, mut left) = (0, 0);
        let mut place = (0, 0, 0);
        for chunk in (0..SESSIONS).collect::<Vec<_>>().chunks(1_000) {
            let mut sql =
                "INSERT INTO upload_session (tenant_id, id, brand_id, created_by, status, version, event_seq, chain_head, \
                upload_type, profile, url_ttl_secs, bucket, file_name, file_size, mime_type, metadata, \
                batch_reference, client_reference, fingerprint, idempotency_key, \
                asset_id, created_at, updated_at, last_activity_at, expires_at) VALUES "
                    .to_owned();
            for n in chunk {
                let number = *n as u128 + 10_000;
                if left == 0 {
                    // A batch of 1 to 1,000 files; every other upload is alone.
                    batch += 1;
                    left = if dice.roll(30) == 0 { 1 + dice.roll(1_000) } else { 1 };
                    let tenant = dice.skewed(4);
                    let mut brand = dice.skewed(9);
                    if brand == 8 && *n > SESSIONS / 10 {
                        brand = 0;
                    }
                    place = (tenant, brand, dice.skewed(40));
                }
                left -= 1;
                let (tenant, brand, user) = place;
                let status = match dice.roll(1_000) {
                    0..5 if *n > SESSIONS / 2 => "INITIATING",
                    5..25 if *n > SESSIONS / 2 => "UPLOADING",
                    25..75 => "FAILED",
                    75..125 => "CANCELLED",
                    _ => "COMPLETED",
                };
                let batch_reference = match batch % 40 {
                    1 => "'daily'".to_owned(),
                    n if n % 2 == 0 => format!("'batch-{batch}'"),
                    _ => "NULL".to_owned(),
                };
                let fingerprint = match dice.roll(10) {
                    0 => format!("'again-{}'", dice.roll(200)),
                    1..5 => format!("'print-{n}'"),
                    _ => "NULL".to_owned(),
                };
                ids.push(id(number));
                let at = (moment() + chrono::TimeDelta::seconds(*n as i64)).to_rfc3339();
                if !sql.ends_with("VALUES ") {
                    sql.push_str(",\n");
                }
                write!(
                    sql,
                    "({}, {}, {}, 'user-{user}', 'INITIATING', 1, 1, {}, 'direct', 'default', 900, 'bucket', \
                     '{status}', 1000, 'image/png', '{{}}', {batch_reference}, 'row-{n}', {fingerprint}, 'key-{n}', \
                     {}, '{at}', '{at}', '{at}', '{at}')",
                    literal(tenants[tenant]),
                    literal(id(number)),
                    literal(brands[tenant][brand]),
                    // Any bytes will do.
                    literal(id(number)),
                    literal(id(number)),
                )
                .unwrap();
            }
            db.pool.execute_unprepared(&sql).await.unwrap();
        }
        // By legal steps; the file's name says where to.
        let step = "version = version + 1, event_seq = event_seq + 1";
        let steps = format!(
            "UPDATE upload_session SET status = 'UPLOADING', {step} WHERE file_name IN ('UPLOADING', 'COMPLETED');
             UPDATE upload_session SET status = 'COMPLETED', completed_at = updated_at, {step} WHERE file_name = 'COMPLETED';
             UPDATE upload_session SET status = 'CANCELLED', cancelled_at = updated_at, {step} WHERE file_name = 'CANCELLED';
             UPDATE upload_session SET status = 'FAILED', failed_at = updated_at, failure_reason = 'expired', {step}
                WHERE file_name = 'FAILED'"
        );
        db.pool.execute_unprepared(&steps).await.unwrap();
        // Most of what is over is cleared; the last ones are not yet, and of the COMPLETED their assets are elsewhere.
        let late = (moment() + chrono::TimeDelta::seconds(SESSIONS as i64 - 1_000)).to_rfc3339();
        let no = if is_postgres { "false" } else { "0" };
        // Of all that a cleanup has failed at once, only those last ones are still to be cleared, and tried again and again.
        let lost = format!("(created_at < '{late}' AND fingerprint LIKE 'again-7%')");
        let later = (4..=40).map(|n| format!("SELECT {n} AS seq")).collect::<Vec<_>>().join(" UNION ");
        let ends = format!(
            "UPDATE upload_session SET completing_at = updated_at, completing_by = created_by
                WHERE status = 'UPLOADING' AND fingerprint IS NULL;
             UPDATE upload_session SET storage_cleared_at = updated_at
                WHERE status IN ('COMPLETED', 'FAILED', 'CANCELLED') AND created_at < '{late}';
             UPDATE upload_session SET clear_failed_at = updated_at WHERE status IN ('FAILED', 'CANCELLED');
             INSERT INTO asset (tenant_id, id, upload_session_id, brand_id, created_by, status, title, file_name,
                    file_size, mime_type, bucket, object_key, etag, checksum_verified, metadata, created_at, ready_at)
                SELECT tenant_id, asset_id, id, brand_id, created_by, 'READY', file_name, file_name,
                    file_size, mime_type, bucket, 'assets/x', 'etag', {no}, metadata, created_at, updated_at
                FROM upload_session WHERE status = 'COMPLETED' AND NOT {lost};
             INSERT INTO asset (tenant_id, id, upload_session_id, brand_id, created_by, status, title, file_name,
                    file_size, mime_type, bucket, object_key, etag, checksum_verified, metadata, created_at, failure)
                SELECT tenant_id, asset_id, id, brand_id, created_by, 'FAILED', file_name, file_name,
                    file_size, mime_type, bucket, 'temp/x', 'etag', {no}, metadata, created_at, 'gone'
                FROM upload_session WHERE status = 'COMPLETED' AND {lost};
             INSERT INTO upload_event (tenant_id, upload_session_id, seq, at, event, actor, details, mac)
                SELECT tenant_id, id, number.seq, created_at, 'touch', created_by, metadata, chain_head
                FROM upload_session, (SELECT 1 AS seq UNION SELECT 2 UNION SELECT 3) AS number
                WHERE created_at >= '{late}';
             INSERT INTO upload_event (tenant_id, upload_session_id, seq, at, event, actor, details, mac)
                SELECT tenant_id, upload_session.id, number.seq, created_at, 'storage.clear_failed', created_by, metadata,
                    chain_head
                FROM upload_session, ({later}) AS number
                WHERE created_at >= '{late}' AND status IN ('FAILED', 'CANCELLED')"
        );
        db.pool.execute_unprepared(&ends).await.unwrap();
        ids.reverse();
        let tenant = TenantId(tenants[0]);
        let of_tenant = format!("SELECT batch_reference FROM upload_session WHERE tenant_id = {}", literal(tenant.0));
        let largest = format!("{of_tenant} AND batch_reference <> 'daily' GROUP BY 1 ORDER BY count(*) DESC LIMIT 1");
        Self {
            tenant,
            brands: brands[0].iter().copied().map(BrandId).collect(),
            ids: ids.into_iter().map(SessionId).collect(),
            batch: db.texts(&largest).await.remove(0),
        }
    }
}

/// What one run of a query cost.
#[derive(Debug)]
pub struct Cost {
    pub returned: u64,
    /// Rows and index entries that it stepped on.
    pub read: u64,
    pub plan: String,
    whole_table: bool,
}

/// One connection that tells what a query costs.
pub struct Probe {
    connection: DatabaseConnection,
    /// SQLite's virtual machine counts up with each step to a row, and with each row returned.
    steps: Arc<AtomicU64>,
}

const QUEUES: [&str; 4] = [
    "USING INDEX upload_session_unmoved",
    "USING INDEX upload_session_not_cleared_of_all",
    "USING INDEX asset_failed_of_all",
    "USING COVERING INDEX asset_failed",
];
const TABLES: [&str; 5] = ["upload_session", "upload_event", "asset", "brand", "tenant"];

/// What SQLite's virtual machine needs at the least to step on one row and to look at one column of it is 3; with a
/// lookup in the table it is some 10, and some 95 for a row that is merged and returned with all its columns.
const STEPS_FOR_A_ROW: u64 = 10;
/// To set up one arm of a merge, with a list of brands in it.
const STEPS_FOR_AN_ARM: u64 = 200;

impl Probe {
    pub async fn new(db: &TestDb) -> Self {
        let steps = Arc::new(AtomicU64::new(0));
        if db.backend() == DbBackend::Postgres {
            // As the program has it, since what it sets for a connection may change a plan.
            let connection = db.as_the_program_opens_it(3).await.search_conn().bare();
            // The driver keeps its statements prepared. After some runs the server would take a plan that is to fit any
            // values, and ours are skewed.
            let mode = Statement::from_string(DbBackend::Postgres, "SHOW plan_cache_mode");
            let mode = connection.query_one_raw(mode).await.unwrap().unwrap();
            assert_eq!(mode.try_get_by_index::<String>(0).unwrap(), "force_custom_plan");
            return Self { connection, steps };
        }
        let connection = db.one_connection().await;
        let mut sqlite = connection.get_sqlite_connection_pool().acquire().await.unwrap();
        let counter = Arc::clone(&steps);
        sqlite.lock_handle().await.unwrap().set_progress_handler(1, move || {
            counter.fetch_add(1, Ordering::Relaxed);
            true
        });
        drop(sqlite);
        Self { connection, steps }
    }

    pub async fn cost(&self, query: &Statement) -> Cost {
        if query.db_backend == DbBackend::Postgres {
            self.on_postgres(query).await
        } else {
            self.on_sqlite(query).await
        }
    }

    /// By the plan that is made once for any values.
    pub async fn cost_planned_once(&self, query: &Statement) -> Cost {
        if query.db_backend == DbBackend::Sqlite {
            return self.on_sqlite(query).await;
        }
        self.connection.execute_unprepared("SET plan_cache_mode = force_generic_plan").await.unwrap();
        let cost = self.on_postgres(query).await;
        self.connection.execute_unprepared("RESET plan_cache_mode").await.unwrap();
        cost
    }

    async fn on_sqlite(&self, query: &Statement) -> Cost {
        // Planning counts as well, and is as long for both.
        let explain = Statement { sql: format!("EXPLAIN QUERY PLAN {}", query.sql), ..query.clone() };
        let (lines, planning) = self.stepping(&explain).await;
        let (rows, steps) = self.stepping(query).await;
        let lines: Vec<String> = lines.iter().map(|line| line.try_get("", "detail").unwrap()).collect();
        let (returned, steps) = (rows.len() as u64, steps.saturating_sub(planning));
        let arms = lines.iter().filter(|line| line.starts_with("SEARCH")).count() as u64;
        Cost {
            returned,
            read: steps.saturating_sub(STEPS_FOR_AN_ARM * arms) / STEPS_FOR_A_ROW,
            whole_table: lines
                .iter()
                // Each of these indexes holds a queue, and nothing else.
                .filter(|line| !QUEUES.iter().any(|queue| line.ends_with(queue)))
                .any(|line| line.starts_with("SCAN") && TABLES.iter().any(|t| line[5..].starts_with(t))),
            plan: lines.join("\n"),
        }
    }

    async fn ids(&self, list: &Statement) -> Vec<Uuid> {
        let rows = self.connection.query_all_raw(list.clone()).await.unwrap();
        rows.iter().map(|row| row.try_get("", "id").unwrap()).collect()
    }

    async fn stepping(&self, statement: &Statement) -> (Vec<QueryResult>, u64) {
        let before = self.steps.load(Ordering::Relaxed);
        let rows = self.connection.query_all_raw(statement.clone()).await.unwrap();
        (rows, self.steps.load(Ordering::Relaxed) - before)
    }

    async fn on_postgres(&self, query: &Statement) -> Cost {
        let literal =
            |value: &Value| Statement::from_sql_and_values(DbBackend::Postgres, "$1", [value.clone()]).to_string();
        let values: Vec<_> = query.values.iter().flat_map(|values| &values.0).map(literal).collect();
        let arguments = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
        self.connection.execute_unprepared(&format!("PREPARE q AS {}", query.sql)).await.unwrap();
        let explain = format!("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE q{arguments}");
        let explain = Statement::from_string(DbBackend::Postgres, explain);
        let row = self.connection.query_one_raw(explain).await.unwrap().unwrap();
        self.connection.execute_unprepared("DEALLOCATE q").await.unwrap();

        let plan: Json = row.try_get_by_index(0).unwrap();
        let top = &plan[0]["Plan"];
        let (mut read, mut whole_table) = (0.0, false);
        walk(top, &mut |node| {
            let number = |key: &str| node[key].as_f64().unwrap_or(0.0);
            let kind = node["Node Type"].as_str().unwrap();
            whole_table |= kind == "Seq Scan";
            if kind.ends_with("Scan") && kind != "Subquery Scan" {
                let rows = ["Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"].map(number);
                read += rows.iter().sum::<f64>() * number("Actual Loops");
            }
        });
        let returned = top["Actual Rows"].as_f64().unwrap();
        Cost { returned: returned as u64, read: read as u64, plan: format!("{plan:#}"), whole_table }
    }
}

fn walk(node: &Json, see: &mut impl FnMut(&Json)) {
    see(node);
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, see);
    }
}

/// A query that the program makes, and how many rows it may read.
struct Case {
    label: String,
    query: Statement,
    allowance: Allowance,
    /// Finds the same, without a thought for how long that takes.
    plain: Option<Statement>,
    /// Asked on a connection whose plans are made once, so that one must be good for all values.
    planned_once: bool,
}

enum Allowance {
    /// Ten for each row that it returns, and as many for five rows where it returns fewer.
    TenForEach,
    /// So many, because it counts them.
    Rows(u64),
}

fn caller(tenant: TenantId, user: &str, brands: Brands, manages: bool) -> Caller {
    let view = Permissions::default().with(Permission::UploadsView);
    let permissions = if manages { view.with(Permission::UploadsManage) } else { view };
    Caller { tenant, actor: Actor::User(user.to_owned()), brands, permissions }
}

/// The lists of callers with many or few brands and sessions, filtered in every way.
fn lists(world: &World, backend: DbBackend) -> Vec<Case> {
    let of = |user: &str, brands: Brands, manages: bool| caller(world.tenant, user, brands, manages);
    let these = |numbers: &[usize]| Brands::These(numbers.iter().map(|n| world.brands[*n]).collect());
    let with_strangers = |strangers: usize| {
        let strangers = std::iter::repeat_with(BrandId::new).take(strangers);
        Brands::These(world.brands.iter().copied().chain(strangers).collect())
    };
    let (all, most) = ("all brands, manager", "70 brands, manager");
    let callers = [
        (all, of("chief", Brands::All, true)),
        ("3 brands, manager", of("chief", these(&[0, 4, 8, 4]), true)),
        ("1 brand, manager", of("chief", these(&[6]), true)),
        ("12 brands, manager", of("chief", with_strangers(2), true)),
        (most, of("chief", with_strangers(60), true)),
        ("all brands, busy user", of("user-0", Brands::All, false)),
        ("3 brands, busy user", of("user-0", these(&[0, 4, 8]), false)),
        ("all brands, quiet user", of("user-30", Brands::All, false)),
        ("1 brand, quiet user", of("user-9", these(&[2]), false)),
    ];
    let statuses = [vec![], vec![Status::Uploading], vec![Status::Failed, Status::Cancelled], vec![Status::Completed]];
    let brands = [None, Some(0), Some(5), Some(8), Some(9)];
    let users = [None, Some("user-0"), Some("user-30")];
    let (batch, fingerprint, client) = (Some(world.batch.as_str()), Some("again-7"), Some("row-99998"));
    let references = [
        (None, None, None),
        (batch, None, None),
        (Some("daily"), None, None),
        (None, None, fingerprint),
        (batch, None, fingerprint),
        (None, client, None),
        (Some("daily"), client, None),
        (batch, client, None),
    ];
    let cursors = [None, Some(world.ids[SESSIONS / 2]), Some(world.ids[SESSIONS - 500])];

    let mut cases = Vec::new();
    for (who, caller) in &callers {
        for (statuses, brand, user) in combinations(&statuses, &brands, &users) {
            let brand = brand.map(|n| world.brands[n]);
            let visible = brand.is_none_or(|brand| caller.brands.hold(brand));
            let allowed = user.is_none() || caller.permissions.has(Permission::UploadsManage);
            if !visible || !allowed {
                continue;
            }
            for (batch, client, fingerprint) in references {
                // The rows of a batch or a file that somebody else has are passed over one by one. There are few.
                let referenced = batch.is_some() || client.is_some() || fingerprint.is_some();
                let by_batch_or_file = referenced && client.is_none();
                if by_batch_or_file && !(*who == all && brand.is_none() && (user.is_none() || batch == Some("daily"))) {
                    continue;
                }
                for before in cursors {
                    let filter = Filter {
                        statuses: statuses.clone(),
                        brand,
                        created_by: user.map(reference),
                        batch_reference: batch.map(reference),
                        client_reference: client.map(reference),
                        fingerprint: fingerprint.map(reference),
                    };
                    cases.push(Case {
                        label: format!("{who}, {filter:?} before {before:?}"),
                        query: backend.build(&rows::page(backend, caller, &filter, before, 51)),
                        // With so many brands each state is one arm, which passes over other brands' sessions, or collects
                        // what matches and sorts it.
                        allowance: if *who == most { Allowance::Rows(1_000) } else { Allowance::TenForEach },
                        plain: Some(plain(caller, &filter, before).build(backend)),
                        planned_once: false,
                    });
                }
            }
        }
    }
    cases
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn plain(caller: &Caller, filter: &Filter, before: Option<SessionId>) -> Select<upload_session::Entity> {
    use upload_session::Column;
    let mut query = upload_session::Entity::find().filter(Column::TenantId.eq(caller.tenant));
    let own = (!caller.permissions.has(Permission::UploadsManage)).then(|| caller.user());
    if let Some(user) = own.or(filter.created_by.as_ref().map(Reference::as_str)) {
        query = query.filter(Column::CreatedBy.eq(user));
    }
    if let Brands::These(brands) = &caller.brands {
        query = query.filter(Column::BrandId.is_in(brands.clone()));
    }
    if !filter.statuses.is_empty() {
        query = query.filter(Column::Status.is_in(filter.statuses.clone()));
    }
    query
        .apply_if(filter.brand, |query, brand| query.filter(Column::BrandId.eq(brand)))
        .apply_if(filter.batch_reference.clone(), |query, batch| {
            query.filter(Column::BatchReference.eq(batch.as_str()))
        })
        .apply_if(filter.client_reference.clone(), |query, client| {
            query.filter(Column::ClientReference.eq(client.as_str()))
        })
        .apply_if(filter.fingerprint.clone(), |query, print| query.filter(Column::Fingerprint.eq(print.as_str())))
        .apply_if(before, |query, before| query.filter(Column::Id.lt(before)))
        .order_by_desc(Column::Id)
        .limit(51)
}

/// Every combination.
fn combinations<'a, A, B: Copy, C: Copy>(a: &'a [A], b: &'a [B], c: &'a [C]) -> impl Iterator<Item = (&'a A, B, C)> {
    a.iter().flat_map(move |a| b.iter().flat_map(move |b| c.iter().map(move |c| (a, *b, *c))))
}

/// The queries that find something by a key.
async fn lookups(db: &TestDb, world: &World) -> Vec<Case> {
    let backend = db.backend();
    let tenant = world.tenant;
    let of_tenant = || upload_session::Entity::find().filter(upload_session::Column::TenantId.eq(tenant));
    let newest = of_tenant().order_by_desc(upload_session::Column::Id).one(&db.pool).await.unwrap().unwrap();
    let made = of_tenant().filter(upload_session::Column::Status.eq(Status::Completed));
    let made = made.order_by_desc(upload_session::Column::Id).one(&db.pool).await.unwrap().unwrap();
    let events = event::rows::by_session(tenant, newest.id);
    assert_eq!(events.clone().count(&db.pool).await.unwrap(), 3);
    let scope = Scope { tenant, brand: newest.brand_id, user: &newest.created_by };
    let key = newest.idempotency_key.as_deref().unwrap();
    let (batch, client) = ("daily", "row-99999");
    let in_batch = |batch: &str| of_tenant().filter(upload_session::Column::BatchReference.eq(batch));
    let of_user = in_batch(batch).filter(upload_session::Column::CreatedBy.eq("user-4"));
    let of_user = of_user.count(&db.pool).await.unwrap();
    let daily = in_batch(batch).count(&db.pool).await.unwrap();
    let big = in_batch(&world.batch).count(&db.pool).await.unwrap();
    assert!(big > 500 && daily > 500 && of_user > 0, "{big} {daily} {of_user}");
    let chief = caller(tenant, "chief", Brands::All, true);
    let user = caller(tenant, "user-4", Brands::All, false);

    let ten = |label: &str, query: Statement| Case {
        label: label.to_owned(),
        query,
        allowance: Allowance::TenForEach,
        plain: None,
        planned_once: false,
    };
    let by_key = |label: &str, query: Statement| Case { planned_once: true, ..ten(label, query) };
    let counts = |label: &str, query: Statement, rows: u64| {
        // SQLite splits each size in two: that is counted as well.
        let allowance = Allowance::Rows(if backend == DbBackend::Sqlite { 2 * rows } else { rows });
        Case { label: label.to_owned(), query, allowance, plain: None, planned_once: false }
    };
    // As they lie in a bucket: from all over the table.
    let some: Vec<SessionId> = world.ids.iter().copied().step_by(SESSIONS / 200).collect();
    let brands = brand::Entity::find().filter(brand::Column::TenantId.eq(tenant)).order_by_asc(brand::Column::Slug);
    vec![
        by_key("session by id", rows::by_id(tenant, newest.id).build(backend)),
        by_key("a session's events", events.build(backend)),
        by_key("asset by id", asset::Entity::find_by_id((tenant, made.asset_id)).build(backend)),
        by_key("the first bucket in use", rows::next_bucket("").build(backend)),
        ten("sessions by ids alone", backend.build(&rows::claims(&some))),
        ten("session by key", rows::by_idempotency_key(scope, key).build(backend)),
        ten("session by references", rows::by_references(scope, batch, client).build(backend)),
        counts("a batch", rows::batch_summary(&chief, &world.batch).build(backend), big),
        counts("everybody's batch", rows::batch_summary(&chief, batch).build(backend), daily),
        counts("a user's part of it", rows::batch_summary(&user, batch).build(backend), of_user),
        by_key("tenant by slug", tenant::Entity::find().filter(tenant::Column::Slug.eq("tenant-1")).build(backend)),
        by_key("tenant by id", tenant::Entity::find_by_id(tenant).build(backend)),
        by_key("brands of a tenant", brands.build(backend)),
        by_key("brand by id", brand::Entity::find_by_id((tenant, newest.brand_id)).build(backend)),
    ]
}

/// What the scheduled passes go through. Nearly all sessions are over, and no pass may read them to find the others.
async fn queues(db: &TestDb) -> Vec<Case> {
    let end = moment() + chrono::TimeDelta::seconds(SESSIONS as i64);
    let middle = moment() + chrono::TimeDelta::seconds(SESSIONS as i64 * 3 / 4);
    let mut cases = Vec::new();
    for queue in [
        Queue::Idle(end),
        Queue::Idle(middle),
        Queue::Idle(moment()),
        Queue::Expired(end),
        Queue::Expired(moment() - chrono::TimeDelta::days(1)),
        Queue::Initiating(end),
        Queue::Initiating(moment()),
        Queue::Completing(end),
        Queue::Completing(moment()),
        Queue::Uncleared(end),
        Queue::Unmoved,
        Queue::Past(end),
        Queue::Past(moment()),
    ] {
        let first = rows::queued(queue, None, 51).all(&db.pool).await.unwrap();
        let last = first.last().cloned();
        for after in std::iter::once(None).chain(last.as_ref().map(Some)) {
            cases.push(Case {
                label: format!("{queue:?} after {:?}", after.map(|session| session.id)),
                query: rows::queued(queue, after, 51).build(db.backend()),
                // SQLite's steps are many for a row of so many columns, even if it is the only one.
                allowance: match db.backend() {
                    DbBackend::Postgres => Allowance::Rows(first.len() as u64),
                    _ => Allowance::TenForEach,
                },
                plain: None,
                // Its sessions are deleted in the transaction that reads them, on a connection that writes.
                planned_once: matches!(queue, Queue::Past(_)),
            });
        }
    }
    cases
}

/// What was found of sessions: a few among all of them, some with a long history.
async fn findings(db: &TestDb, world: &World) -> Vec<Case> {
    let backend = db.backend();
    let counted = async |query: Statement| -> u64 {
        let row = db.pool.query_one_raw(query).await.unwrap().unwrap();
        u64::try_from(row.try_get::<i64>("", "findings").unwrap()).unwrap()
    };
    let (count_assets, count_sessions) =
        (finding::rows::count_failed_assets().build(backend), finding::rows::count_not_cleared().build(backend));
    let (assets, sessions) = (counted(count_assets.clone()).await, counted(count_sessions.clone()).await);
    assert!((100..1_000).contains(&assets) && (70..1_000).contains(&sessions), "{assets} {sessions}");

    let chief = caller(world.tenant, "chief", Brands::All, true);
    let of_brand = caller(world.tenant, "chief", Brands::These(vec![world.brands[3]]), true);
    let nobody = caller(TenantId::new(), "nobody", Brands::All, true);
    let mut cases = Vec::new();
    for (who, caller) in
        [("all", None), ("chief", Some(&chief)), ("of a brand", Some(&of_brand)), ("no", Some(&nobody))]
    {
        for before in [None, Some(world.ids[300]), Some(world.ids[SESSIONS / 2]), Some(world.ids[SESSIONS - 1])] {
            for (what, query, all) in [
                ("failed assets", finding::rows::failed_assets(caller, before, 51).build(backend), assets),
                ("sessions not cleared", finding::rows::not_cleared(caller, before, 51).build(backend), sessions),
            ] {
                // PostgreSQL may go along the index of all, and pass over what is others'. There are few.
                let allowance = if caller.is_some() { Allowance::Rows(all) } else { Allowance::TenForEach };
                let label = format!("{what}, {who}, before {before:?}");
                cases.push(Case { label, query, allowance, plain: None, planned_once: false });
            }
        }
    }
    for (label, query, rows) in [("failed", count_assets, assets), ("not cleared", count_sessions, sessions)] {
        let (label, allowance) = (format!("count of {label}"), Allowance::Rows(rows));
        cases.push(Case { label, query, allowance, plain: None, planned_once: false });
    }
    cases
}

/// What happened to the tenant's sessions in a span of a few hours: they are counted, and no others are looked at.
async fn counts_by_day(db: &TestDb, world: &World) -> Vec<Case> {
    use upload_session::Column::{CancelledAt, CreatedAt, FailedAt};
    let (backend, tenant) = (db.backend(), world.tenant);
    let second = |n: i64| moment() + chrono::TimeDelta::seconds(n);
    let span = second(50_000)..second(64_000);
    let mut cases = Vec::new();
    for (count, at) in [(Count::Opened, CreatedAt), (Count::Failed, FailedAt), (Count::Cancelled, CancelledAt)] {
        let within = upload_session::Entity::find()
            .filter(upload_session::Column::TenantId.eq(tenant))
            .filter(at.gte(span.start))
            .filter(at.lt(span.end));
        let rows = within.count(&db.pool).await.unwrap();
        assert!(rows > 50, "only {rows} {count:?}");
        let query = backend.build(&count_by_day(backend, tenant, count, &span));
        let counted: i64 = db
            .pool
            .query_all_raw(query.clone())
            .await
            .unwrap()
            .iter()
            .map(|row| row.try_get::<i64>("", "uploads").unwrap())
            .sum();
        assert_eq!(counted, i64::try_from(rows).unwrap(), "{count:?}");
        // SQLite makes a text of each time, and groups by it: that is counted as well.
        let allowance = Allowance::Rows(if backend == DbBackend::Sqlite { 4 * rows } else { rows });
        cases.push(Case { label: format!("{count:?} by day"), query, allowance, plain: None, planned_once: false });
    }
    cases
}

/// No asset is there, so nothing but the plan can tell.
async fn completed_are_found_by_time(probe: &Probe, world: &World, backend: DbBackend) {
    let span = moment()..moment() + chrono::TimeDelta::days(1);
    let query = backend.build(&count_by_day(backend, world.tenant, Count::Completed, &span));
    let cost = probe.cost(&query).await;
    assert!(!cost.whole_table && cost.plan.contains("asset_by_time"), "{}", cost.plan);
}

async fn no_query_reads_much_more_than_it_returns(db: TestDb) {
    let db = db.migrated().await;
    let world = World::create(&db).await;
    let cases = || async {
        let mut cases = lists(&world, db.backend());
        cases.extend(lookups(&db, &world).await);
        cases.extend(queues(&db).await);
        cases.extend(findings(&db, &world).await);
        cases.extend(counts_by_day(&db, &world).await);
        cases
    };
    completed_are_found_by_time(&Probe::new(&db).await, &world, db.backend()).await;
    if db.backend() == DbBackend::Sqlite {
        // An embedded database may never have been analyzed.
        check(&Probe::new(&db).await, &cases().await).await;
    }
    let maintenance = if db.backend() == DbBackend::Postgres { "VACUUM ANALYZE" } else { "ANALYZE" };
    db.pool.execute_unprepared(maintenance).await.unwrap();
    let (probe, cases) = (Probe::new(&db).await, cases().await);
    let users = check(&probe, &cases).await;
    if db.backend() == DbBackend::Postgres {
        every_index_is_needed(&db, &probe, &cases, &users).await;
    }
}

/// Each index costs every session something: without it, a query that uses it reads more than it may.
async fn every_index_is_needed(db: &TestDb, probe: &Probe, cases: &[Case], users: &BTreeMap<String, Vec<usize>>) {
    /// Of those that use it, the ones that are tried, twice.
    const TRIED: usize = 60;
    let indexes = db.texts("SELECT indexname FROM pg_indexes WHERE tablename = 'upload_session' ORDER BY 1").await;
    let mut idle = Vec::new();
    for index in &indexes {
        let users = users.get(index).map(Vec::as_slice).unwrap_or_default();
        // What is unique has to be.
        if index.ends_with("_pkey") || index.ends_with("_unique") {
            assert!(!users.is_empty(), "{index}");
            continue;
        }
        probe.connection.execute_unprepared("BEGIN").await.unwrap();
        probe.connection.execute_unprepared(&format!("DROP INDEX {index}")).await.unwrap();
        let mut is_needed = false;
        // What is no list comes last.
        for user in users.iter().rev().take(TRIED).chain(users.iter().step_by(1 + users.len() / TRIED)) {
            let case = &cases[*user];
            let cost = case.cost(probe).await;
            if case.is_over(&cost) {
                is_needed = true;
                break;
            }
        }
        probe.connection.execute_unprepared("ROLLBACK").await.unwrap();
        if !is_needed {
            idle.push((index, users.len()));
        }
    }
    assert!(idle.is_empty(), "no query needs {idle:?} of {}", indexes.len());
}

/// The indexes that a plan names.
fn indexes_in(plan: &str) -> BTreeSet<String> {
    let names = plan.split("\"Index Name\": \"").skip(1).map(|rest| rest.split('"').next());
    names.flatten().map(str::to_owned).collect()
}

impl Case {
    async fn cost(&self, probe: &Probe) -> Cost {
        if self.planned_once { probe.cost_planned_once(&self.query).await } else { probe.cost(&self.query).await }
    }

    fn is_over(&self, cost: &Cost) -> bool {
        let most = match self.allowance {
            Allowance::TenForEach => 10 * cost.returned.max(5),
            // In an index and in the table.
            Allowance::Rows(rows) => 2 * rows + 10,
        };
        cost.whole_table || cost.read > most
    }
}

/// Returns which of the cases use which index.
async fn check(probe: &Probe, cases: &[Case]) -> BTreeMap<String, Vec<usize>> {
    // The probe sees what it is there for.
    let everything =
        Statement::from_string(cases[0].query.db_backend, "SELECT count(*) FROM upload_session WHERE file_size = 7");
    let cost = probe.cost(&everything).await;
    assert!(cost.whole_table && cost.read >= SESSIONS as u64 / 4, "{cost:?}");

    let mut wrong = Vec::new();
    let mut full = 0;
    let mut users: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (n, case) in cases.iter().enumerate() {
        let Case { label, query, plain, .. } = case;
        // All of them would take a while.
        if let Some(plain) = plain.as_ref().filter(|_| n % 10 == 0) {
            assert_eq!(probe.ids(query).await, probe.ids(plain).await, "{label}");
        }

        let cost = case.cost(probe).await;
        for index in indexes_in(&cost.plan) {
            users.entry(index).or_default().push(n);
        }
        full += u64::from(cost.returned == 51);
        if case.is_over(&cost) {
            wrong.push(format!("{label}: read {} for {}\n{}", cost.read, cost.returned, cost.plan));
        }
    }
    assert!(full > 100, "only {full} of the lists have a full page");
    assert!(wrong.is_empty(), "{} of {} queries:\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
    users
}
