//! Opening direct sessions, compared with commits of the bare database. A session takes one transaction; requests that
//! arrive during a transaction of their tenant share the next one.

use std::time::Duration;

use crate::bare::Bare;
use crate::kit::{Database, Site, Store};
use crate::load::{Times, keep_asking, median, millis};
use crate::table::Row;

/// Number of concurrent requests for which there is a limit.
const MANY: usize = 16;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);

pub async fn run() -> Vec<Row> {
    let mut rows = Vec::new();
    for database in [Database::Sqlite, Database::Postgres] {
        let site = Site::new(database, Store::Garage, &[]).await;
        let server = site.start().await;
        let bare = match database {
            Database::Sqlite => Bare::sqlite(site.dir()).await,
            Database::Postgres => Bare::postgres(MANY as u32).await,
        };
        for tasks in [1, MANY] {
            // In turns, so that other load on the machine affects both.
            let (mut here, mut there) = (Vec::new(), Vec::new());
            for round in 0..=ROUNDS {
                let commits = bare.commits(tasks, ROUND).await;
                let api = server.client();
                let opened = keep_asking(tasks, ROUND, move |number| {
                    let api = api.clone();
                    async move {
                        api.initiate(&format!("still-{number}.jpg"), 400_000).await;
                    }
                })
                .await;
                // The first round warms up.
                if round > 0 {
                    here.push(opened);
                    there.push(commits);
                }
            }
            rows.push(row(database, tasks, &here, &there));
        }
    }
    rows
}

fn row(database: Database, tasks: usize, here: &[Times], there: &[Times]) -> Row {
    let rate = |rounds: &[Times]| median(&rounds.iter().map(Times::per_second).collect::<Vec<_>>());
    let time = |percent: usize| median(&here.iter().map(|times| millis(times.percentile(percent))).collect::<Vec<_>>());
    let figure = format!("{:.0}/s, p50 {:.2} ms, p99 {:.2} ms", rate(here), time(50), time(99));
    let ratio = rate(here) / rate(there);
    let row = Row::new(format!("initiate direct, {}, {tasks} at once", database.name()), figure)
        .beside(format!("{:.0}/s, one INSERT per commit", rate(there)))
        .ratio(ratio);
    // SQLite commits one after the other, so the sync to disk takes most of the time in both. PostgreSQL syncs many
    // commits at once; what remains is the data that a statement writes: a session with its usage, events and indexes.
    let least = match database {
        Database::Sqlite => 0.4,
        Database::Postgres => 0.2,
    };
    if tasks == MANY { row.limit(format!("at least {least} ×"), ratio >= least) } else { row }
}
