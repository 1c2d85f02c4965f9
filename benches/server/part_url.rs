//! One part URL per request, under load: what a request costs the server in processor time.

use std::time::Duration;

use serde_json::json;

use crate::kit::{Database, MIB, Site, Store, id_of};
use crate::load::{keep_asking, median, millis};
use crate::presign::Presigner;
use crate::table::Row;

/// In units of one presign by the SDK. The URL itself costs a tenth of that; the rest is for the request, its token and
/// the session's row.
const LIMIT: f64 = 4.0;
const CLIENTS: usize = 16;
const SESSIONS: usize = 100;
/// 100 parts each.
const FILE_BYTES: u64 = 800 * MIB;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(4);

pub async fn run() -> Vec<Row> {
    let site = Site::new(Database::Sqlite, Store::Embedded, &[]).await;
    let server = site.start().await;
    let api = server.client();
    let mut paths = Vec::new();
    for number in 0..SESSIONS {
        let session = api.initiate(&format!("reel-{number}.mov"), FILE_BYTES).await;
        paths.push(format!("/app/uploads/{}/multipart-part-url", id_of(&session)));
    }

    let (mut each_ms, mut sdk_ms, mut last) = (Vec::new(), Vec::new(), None);
    for round in 0..=ROUNDS {
        let (api, paths) = (api.clone(), paths.clone());
        let (presigner, before) = (Presigner::start(), server.cpu());
        let times = keep_asking(CLIENTS, ROUND, move |number| {
            let (api, path) = (api.clone(), paths[number % SESSIONS].clone());
            async move {
                let part = number / SESSIONS % 100 + 1;
                api.post(&path, &json!({ "part_number": part })).await;
            }
        })
        .await;
        let (cpu, presign_ms) = (server.cpu() - before, presigner.end());
        // The first round warms up.
        if round > 0 {
            each_ms.push(millis(cpu) / times.count() as f64);
            sdk_ms.push(presign_ms);
            last = Some(times);
        }
    }
    let (each_ms, sdk_ms, times) = (median(&each_ms), median(&sdk_ms), last.unwrap());
    let rate = format!(
        "{:.0} a second, p50 {:.2} ms, p99 {:.2} ms",
        times.per_second(),
        millis(times.percentile(50)),
        millis(times.percentile(99))
    );
    vec![
        Row::new("part URL, processor time of the server", format!("{each_ms:.3} ms"))
            .beside(format!("{sdk_ms:.3} ms, one presign by the SDK meanwhile"))
            .ratio(each_ms / sdk_ms)
            .limit(format!("{LIMIT} ×"), each_ms <= LIMIT * sdk_ms),
        Row::new(format!("part URL, {CLIENTS} clients on the same machine"), rate),
    ]
}
