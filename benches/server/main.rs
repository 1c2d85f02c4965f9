//! What the server costs, compared with its limits, in one table. Run it by `scripts/bench`, which describes the parts.
//!
//! A plain driver: most figures are taken from outside a running server, from its answers and from `/proc`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod bare;
mod initiate;
mod kit;
mod load;
mod memory;
mod noise;
mod noisy;
mod part_url;
mod presign;
mod push;
mod push_small;
mod ready;
mod sdk;
mod share;
mod table;

use std::process::ExitCode;

use futures_util::future::BoxFuture;
use table::{Row, Table};

/// Every part of `scripts/bench`, in the order in which they run. `scripts/bench-noisy` runs those of `noisy.rs`.
const PARTS: [&str; 8] = ["presign", "part-url", "initiate", "share", "memory", "ready", "push", "push-small"];

fn main() -> ExitCode {
    // `cargo bench` adds --bench to the arguments.
    let (flags, names): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).filter(|arg| arg != "--bench").partition(|arg| arg.starts_with("--"));
    if let Some(unknown) = flags.iter().find(|flag| *flag != "--strict") {
        eprintln!("unknown option {unknown}; the only option is --strict");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let parts = match names[..] {
        [noisy::MAKE_NOISE, sort, place] => {
            runtime.block_on(noise::make(sort, place));
            return ExitCode::SUCCESS;
        }
        ["noisy", ref sorts @ ..] => {
            chosen(sorts, &noise::SORTS.map(|sort| sort.name)).map(|sorts| noisy::parts(&sorts))
        }
        _ => chosen(&names, &PARTS).map(|parts| parts.into_iter().map(|name| (name.to_owned(), part(name))).collect()),
    };
    let parts = match parts {
        Ok(parts) => parts,
        Err(unknown) => {
            eprintln!("{unknown}");
            return ExitCode::from(2);
        }
    };

    let mut table = Table::default();
    for (name, rows) in parts {
        eprintln!("bench: {name}");
        // A part that fails does not stop the others.
        match runtime.block_on(async { tokio::spawn(rows).await }) {
            Ok(rows) => table.extend(rows),
            Err(_) => table.failed(&name),
        }
    }
    table.print();
    if table.has_failure() || (flags.contains(&"--strict".to_owned()) && table.is_over()) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Returns the entries of `all` that are named, in the order of `all`; all of them if none is named.
fn chosen(names: &[&str], all: &[&'static str]) -> Result<Vec<&'static str>, String> {
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        return Err(format!("unknown name {unknown}; known are {}", all.join(", ")));
    }
    Ok(all.iter().copied().filter(|name| names.is_empty() || names.contains(name)).collect())
}

fn part(name: &'static str) -> BoxFuture<'static, Vec<Row>> {
    match name {
        "presign" => Box::pin(async { presign::run() }),
        "part-url" => Box::pin(part_url::run()),
        "initiate" => Box::pin(initiate::run()),
        "share" => Box::pin(share::run()),
        "memory" => Box::pin(memory::run()),
        "ready" => Box::pin(ready::run()),
        "push" => Box::pin(push::run()),
        "push-small" => Box::pin(push_small::run()),
        other => unreachable!("{other} is not a part"),
    }
}
