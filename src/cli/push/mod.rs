//! `quaymaster push`: uploads files as assets over the native API, retries through outages, and resumes where an earlier run
//! stopped.

mod api;
mod args;
mod completions;
mod error;
mod open;
mod plan;
mod progress;
mod report;
mod retry;
mod scan;
mod store;
mod upload;
mod urls;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use reqwest::{Client, redirect};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

pub use args::PushArgs;
pub(crate) use report::plain;

use api::Api;
use error::Error;
use open::Item;
use progress::Progress;
use report::{Outcome, Summary};
use scan::LocalFile;
use store::Store;
use wire::Session;

use super::out::{failed, print_with, tell};
use super::stop::Stop;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Batches that are announced at a time: while files of one batch are sent, the next one gets its sessions.
const BATCHES_AHEAD: usize = 2;
/// Files that are sent and wait for their assets, in addition to those being sent. This is more than arrive while
/// completions are gathered and a few requests are in flight; otherwise these would stall the sending.
const COMPLETED_AHEAD: usize = 256;

const FAILED: u8 = 1;
const NOTHING_TO_DO: u8 = 2;
const REFUSED: u8 = 3;

/// What all files of a run share.
struct Push {
    api: Api,
    store: Store,
    /// One permit for each PUT in flight.
    puts: Semaphore,
    /// One permit for each file of which bytes are sent.
    sending: Semaphore,
    parallel: usize,
    brand: Option<String>,
    batch: String,
    progress: Progress,
    /// Why no further file is announced.
    stop: OnceLock<Error>,
}

/// Pushes the files, prints the results, and returns the exit code. Waits for the network: minutes to days.
pub async fn run(args: PushArgs) -> ExitCode {
    let begun = Instant::now();
    let (paths, hidden) = (args.paths.clone(), args.hidden);
    let scan = spawn_blocking(move || scan::scan(&paths, hidden)).await.expect("the scan does not panic");
    if scan.found.is_empty() {
        tell(format_args!("no file to push{}", left_out(&scan).map(|why| format!(": {why}")).unwrap_or_default()));
        return ExitCode::from(NOTHING_TO_DO);
    }
    let bytes = scan.found.iter().filter_map(|(_, file)| Some(file.as_ref().ok()?.size)).sum();
    let push = match Push::new(&args, scan.found.len(), bytes) {
        Ok(push) => push,
        Err(error) => return failed(format_args!("cannot prepare the connections: {}", Error::from(error))),
    };
    let mut stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => return failed(format_args!("cannot listen for signals: {error}")),
    };
    if let Some(left_out) = left_out(&scan) {
        push.progress.note(&left_out);
    }

    let outcomes = Outcomes::new(scan.found.len());
    let sizes: Vec<_> =
        scan.found.iter().map(|(path, file)| (path.clone(), file.as_ref().ok().map(|f| f.size))).collect();
    let stopped = tokio::select! {
        () = push.all(scan.found, &outcomes) => None,
        () = push.progress.tell() => None,
        code = stop.asked() => Some(code),
    };
    push.progress.clear();
    let outcomes = outcomes.into_vec(sizes);
    if stopped.is_none() {
        push.suggest_brand(&outcomes).await;
    }

    let summary =
        Summary { batch: &push.batch, interrupted: stopped.is_some(), seconds: begun.elapsed().as_secs_f64() };
    let printed = print_with(|out| match args.json {
        true => report::write_json(out, &outcomes, &summary),
        false => report::write_table(out, &outcomes),
    });
    push.progress.note(&report::sentence(&outcomes, &summary));
    if printed != ExitCode::SUCCESS {
        return printed;
    }
    if let Some(code) = stopped {
        tell("stopped; what was sent is kept, and the same command continues from here");
        return ExitCode::from(code);
    }
    exit_code(&outcomes)
}

impl Push {
    fn new(args: &PushArgs, files: usize, bytes: u64) -> Result<Self, reqwest::Error> {
        let parallel = usize::from(args.parallel);
        let client = || {
            Client::builder()
                .user_agent(concat!("quaymaster-push/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_WITHIN)
                .redirect(redirect::Policy::none()) // a signature is for one address, a token for one server
                .pool_max_idle_per_host(parallel)
        };
        let patience = Duration::from_secs(args.retry_for);
        Ok(Self {
            api: Api::new(client().build()?, &args.server, &args.token.0, patience),
            store: Store::new(client().http1_only().build()?, patience),
            puts: Semaphore::new(parallel),
            sending: Semaphore::new(sending_at_once(parallel)),
            parallel,
            brand: args.brand.clone(),
            batch: args.batch.clone(),
            progress: Progress::new(args.quiet, files, bytes),
            stop: OnceLock::new(),
        })
    }

    /// Pushes batch by batch. While the last files of one batch are being sent, the next batch is read and announced.
    async fn all(&self, found: Vec<(PathBuf, Result<LocalFile, Error>)>, outcomes: &Outcomes) {
        let mut files = Vec::new();
        for (index, (path, file)) in found.into_iter().enumerate() {
            match file {
                Ok(file) => files.push((index, file)),
                Err(error) => self.settle(outcomes, index, Outcome::failed(path, None, error)),
            }
        }
        let sessions = stream::iter(open::batches(files, |(_, file)| file.size))
            .map(|batch| self.open(batch, outcomes))
            .buffered(BATCHES_AHEAD)
            .flat_map(stream::iter);
        let at_once = sending_at_once(self.parallel) + COMPLETED_AHEAD;
        let uploads = sessions.for_each_concurrent(at_once, async |(index, item, session)| {
            let outcome = Box::pin(upload::upload(self, item, session)).await;
            self.settle(outcomes, index, outcome);
        });
        uploads.await;
    }

    /// Opens the sessions of a batch. Files that get no session are settled here.
    async fn open(&self, batch: Vec<(usize, LocalFile)>, outcomes: &Outcomes) -> Vec<(usize, Item, Session)> {
        let readers = available_parallelism().map_or(1, |cores| cores.get());
        let identified = stream::iter(batch).map(async |(index, file)| {
            let reading = spawn_blocking(move || (file.identify(), file));
            (index, reading.await.expect("reading a file does not panic"))
        });
        let identified: Vec<_> = identified.buffered(readers).collect().await;
        let mut items = Vec::new();
        for (index, (identity, file)) in identified {
            match identity {
                Ok(identity) => items.push((index, Item::new(file, identity))),
                Err(error) => self.settle(outcomes, index, Outcome::failed(file.path, Some(file.size), error)),
            }
        }
        let fail = |index, item: Item, error| {
            let outcome = Outcome::failed(item.file.path, Some(item.file.size), error);
            self.settle(outcomes, index, outcome);
        };
        if let Some(error) = self.stop.get() {
            items.into_iter().for_each(|(index, item)| fail(index, item, error.clone()));
            return Vec::new();
        }
        let mut sessions = Vec::new();
        for (index, item, opened) in open::open(self, items).await {
            match opened {
                Ok(session) => sessions.push((index, item, session)),
                Err(error) => fail(index, item, error),
            }
        }
        sessions
    }

    /// Whether any file is being sent now.
    fn is_sending(&self) -> bool {
        self.sending.available_permits() < sending_at_once(self.parallel)
    }

    /// Stops announcing files: further ones would fail in the same way.
    fn stop_announcing(&self, error: &Error) {
        if self.stop.set(error.clone()).is_ok() {
            self.progress.error(&format!("no further file is announced: {error}"));
        }
    }

    /// Reports and stores the outcome of a file.
    fn settle(&self, outcomes: &Outcomes, index: usize, outcome: Outcome) {
        let told = |error: &Error| self.stop.get().is_some_and(|stop| stop.to_string() == error.to_string());
        if let Err(error) = &outcome.result
            && !told(error)
        {
            self.progress.error(&format!("{}: {error}", report::shown(&outcome.path)));
        }
        self.progress.finish(outcome.result.is_ok().then(|| outcome.line()));
        outcomes.set(index, outcome);
    }

    /// If a brand was missing, lists the brands to choose from.
    async fn suggest_brand(&self, outcomes: &[Outcome]) {
        let missing = |error: &Error| matches!(error, Error::Server(problem) if problem.lacks("/brand_id"));
        if self.brand.is_some() || !outcomes.iter().any(|outcome| outcome.result.as_ref().is_err_and(missing)) {
            return;
        }
        match self.api.brands().await {
            Ok(brands) => {
                self.progress.error("Name a brand with --brand; this token holds:");
                for brand in brands {
                    self.progress.error(&format!("  {}  {}", plain(&brand.brand_id), plain(&brand.slug)));
                }
            }
            Err(error) => self.progress.error(&format!("Name a brand with --brand (cannot list them: {error})")),
        }
    }
}

/// Returns the number of files that are being sent at a time. Twice the number of PUTs: while the sessions of some files are
/// read, the others keep the connections busy.
const fn sending_at_once(parallel: usize) -> usize {
    parallel * 2
}

/// One slot for each file, in the order of the arguments. Readable even if the work was stopped halfway.
struct Outcomes(Mutex<Vec<Option<Outcome>>>);

impl Outcomes {
    fn new(files: usize) -> Self {
        Self(Mutex::new((0..files).map(|_| None).collect()))
    }

    fn set(&self, index: usize, outcome: Outcome) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(outcome);
    }

    /// A file without an outcome was interrupted.
    fn into_vec(self, files: Vec<(PathBuf, Option<u64>)>) -> Vec<Outcome> {
        let outcomes = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let interrupted = |(path, size)| Outcome::failed(path, size, Error::Interrupted);
        outcomes.into_iter().zip(files).map(|(outcome, file)| outcome.unwrap_or_else(|| interrupted(file))).collect()
    }
}

fn exit_code(outcomes: &[Outcome]) -> ExitCode {
    let mut errors = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err()).peekable();
    if errors.peek().is_none() {
        ExitCode::SUCCESS
    } else if errors.any(Error::is_refusal) {
        ExitCode::from(REFUSED)
    } else {
        ExitCode::from(FAILED)
    }
}

fn left_out(scan: &scan::Scan) -> Option<String> {
    let hidden = (scan.hidden > 0).then(|| format!("{} hidden (see --hidden)", scan.hidden));
    let special = (scan.special > 0).then(|| format!("{} links or special files", scan.special));
    let both: Vec<_> = hidden.into_iter().chain(special).collect();
    (!both.is_empty()).then(|| format!("left out in folders: {}", both.join(", ")))
}
