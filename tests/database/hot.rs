//! Rows that are changed again and again, on PostgreSQL: without a new entry in any index.

use sea_orm::{ConnectionTrait, TransactionTrait, Value};

use crate::kit::TestDb;
use crate::kit::rows::Place;

const TENANTS: i32 = 200;
const CHANGES: i32 = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_usage_is_changed_in_place() {
    let db = TestDb::postgres().await.migrated().await;
    let mut tenants = Vec::new();
    for _ in 0..TENANTS {
        tenants.push(Place::create(&db).await.tenant);
    }
    let fill = "INSERT INTO tenant_usage (tenant_id, stripe, live_sessions, bytes, limited)
        SELECT tenant.id, s, 0, 0, false FROM tenant, generate_series(0, 15) AS s";
    db.execute(fill, []).await.unwrap();
    let change = "UPDATE tenant_usage SET live_sessions = live_sessions + 1, bytes = bytes + 1
        WHERE tenant_id = $1 AND stripe = $2";
    for number in 0..CHANGES {
        let tenant = tenants[usize::try_from(number * 7_919 % TENANTS).unwrap()];
        db.execute(change, [Value::from(tenant), (number * 31 % 16).into()]).await.unwrap();
    }
    // What a connection has counted is told when it is idle, or asked to.
    let mut told = Vec::new();
    for _ in 0..8 {
        let connection = db.pool.begin().await.unwrap();
        connection.execute_unprepared("SELECT pg_stat_force_next_flush()").await.unwrap();
        told.push(connection);
    }
    for connection in told {
        connection.commit().await.unwrap();
    }
    let counted = "SELECT n_tup_upd || ' ' || n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'tenant_usage'";
    let counted = db.texts(counted).await.remove(0);
    let (changed, hot) = counted.split_once(' ').unwrap();
    let [changed, hot] = [changed, hot].map(|number| number.parse::<i32>().unwrap());
    assert!(changed >= CHANGES * 9 / 10, "only {changed} of {CHANGES} were counted");
    assert!(hot * 100 >= changed * 99, "{hot} of {changed} in place");
}
