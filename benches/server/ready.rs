//! The time from start to ready, with a database that needs no migration.

use std::time::{Duration, Instant};

use crate::kit::{Database, Site, Store};
use crate::load::{median, millis};
use crate::table::Row;

const LIMIT_MS: f64 = 150.0;
const STARTS: usize = 10;

pub async fn run() -> Vec<Row> {
    vec![
        starts("SQLite + embedded store", Database::Sqlite, Store::Embedded).await,
        starts("PostgreSQL + Garage", Database::Postgres, Store::Garage).await,
    ]
}

async fn starts(name: &str, database: Database, store: Store) -> Row {
    let site = Site::new(database, store, &[]).await;
    let mut times = Vec::new();
    // The first start creates what the data folder still lacks, and is not measured.
    for start in 0..=STARTS {
        let begun = Instant::now();
        let mut server = site.spawn();
        assert!(server.ready_within(Duration::from_secs(30)).await, "the server did not become ready");
        if start > 0 {
            times.push(millis(begun.elapsed()));
        }
    }
    let most = times.iter().copied().fold(0.0, f64::max);
    let middle = median(&times);
    Row::new(format!("start to ready, {name}"), format!("p50 {middle:.0} ms, longest {most:.0} ms"))
        .limit(format!("{LIMIT_MS} ms"), middle <= LIMIT_MS)
}
