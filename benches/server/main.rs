//! What the server costs, in one table, beside what it should cost: `scripts/bench`, which see for the parts.
//!
//! A plain driver: most figures are taken from outside a running server, from its answers and from `/proc`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod bare;
mod initiate;
mod kit;
mod load;
mod memory;
mod part_url;
mod presign;
mod push;
mod push_small;
mod ready;
mod share;
mod table;

use std::process::ExitCode;

use table::{Row, Table};

/// Every part, in the order in which they run.
const PARTS: [&str; 8] = ["presign", "part-url", "initiate", "share", "memory", "ready", "push", "push-small"];

fn main() -> ExitCode {
    // `cargo bench` adds --bench to whatever is asked for.
    let (flags, mut parts): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).filter(|arg| arg != "--bench").partition(|arg| arg.starts_with("--"));
    if let Some(unknown) = flags.iter().find(|flag| *flag != "--strict") {
        eprintln!("there is no {unknown}");
        return ExitCode::from(2);
    }
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        eprintln!("there is no part {unknown}, only {}", PARTS.join(", "));
        return ExitCode::from(2);
    }
    if parts.is_empty() {
        parts = PARTS.map(str::to_owned).to_vec();
    }

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut table = Table::default();
    for name in PARTS.into_iter().filter(|name| parts.iter().any(|part| part == name)) {
        eprintln!("bench: {name}");
        // A part that fails leaves the others their turn.
        match runtime.block_on(async { tokio::spawn(part(name)).await }) {
            Ok(rows) => table.extend(rows),
            Err(_) => table.failed(name),
        }
    }
    table.print();
    if table.has_failure() || (flags.contains(&"--strict".to_owned()) && table.is_over()) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn part(name: &str) -> Vec<Row> {
    match name {
        "presign" => presign::run(),
        "part-url" => part_url::run().await,
        "initiate" => initiate::run().await,
        "share" => share::run().await,
        "memory" => memory::run().await,
        "ready" => ready::run().await,
        "push" => push::run().await,
        "push-small" => push_small::run().await,
        other => unreachable!("{other} is no part"),
    }
}
