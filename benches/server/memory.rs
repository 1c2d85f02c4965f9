//! Memory that the server uses, including its embedded store.

use std::time::Duration;

use serde_json::json;

use crate::kit::{Database, MIB, Server, Site, Store, new_upload};
use crate::table::Row;

const IDLE_LIMIT_MIB: f64 = 40.0;
const OPEN_LIMIT_MIB: f64 = 64.0;
/// Half of the 10,000 sessions are opened in batches, half by single requests.
const BATCHES: usize = 5;
const BATCH: usize = 1_000;
const SINGLE: usize = 5_000;
const CLIENTS: usize = 16;

pub async fn run() -> Vec<Row> {
    let site = Site::new(Database::Sqlite, Store::Embedded, &[]).await;
    let server = site.start().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = row("memory, idle", &server, IDLE_LIMIT_MIB);

    open_sessions(&server).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    vec![idle, row("memory, 10,000 sessions open", &server, OPEN_LIMIT_MIB)]
}

/// Opens multipart sessions, because the store has state for these, too.
async fn open_sessions(server: &Server) {
    let api = server.client();
    for batch in 0..BATCHES {
        let file = |number| new_upload(&format!("reel-{batch}-{number}.mov"), 700 * MIB);
        let files: Vec<_> = (0..BATCH).map(file).collect();
        let answer = api.post("/app/uploads/initiate-batch", &json!({ "files": files })).await;
        assert_eq!(answer["accepted"], BATCH);
    }
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|task| {
            let api = api.clone();
            tokio::spawn(async move {
                for number in (task..SINGLE).step_by(CLIENTS) {
                    api.initiate(&format!("reel-{number}.mov"), 700 * MIB).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn row(name: &str, server: &Server, limit_mib: f64) -> Row {
    let mib = |field| server.memory_mib(field);
    let resident = mib("VmRSS");
    Row::new(name, format!("{resident:.1} MiB"))
        .beside(format!(
            "{:.1} MiB of it heap, {:.1} program; peak {:.1}",
            mib("RssAnon"),
            mib("RssFile"),
            mib("VmHWM")
        ))
        .limit(format!("{limit_mib} MiB"), resident <= limit_mib)
}
