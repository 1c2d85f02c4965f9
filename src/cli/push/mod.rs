//! `quaymaster push`: files to assets over the native API, through outages and from where an earlier run stopped.

mod api;
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

use std::io::stdout;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::{StreamExt, stream};
use reqwest::{Client, Url, redirect};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use api::{Api, Session};
use error::Error;
use open::Item;
use progress::Progress;
use report::{Outcome, Summary};
use scan::LocalFile;
use store::Store;

/// The batch of all pushes that name none: a file pushed again, alone or among others, is found there.
const DEFAULT_BATCH: &str = "quaymaster-push";
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

const FAILED: u8 = 1;
const NOTHING_TO_DO: u8 = 2;
const REFUSED: u8 = 3;
/// As a shell has it for a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Upload files and folders, and print the assets they became
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub struct PushArgs {
    /// Files, and folders to be walked
    ///
    /// Folders are walked in order of names. In them, names that begin with a dot are left out (see --hidden), and
    /// so are symbolic links. What is named here is sent as it is: a hidden file, or the file that a link points to.
    #[arg(value_name = "FILE|FOLDER", required = true)]
    paths: Vec<PathBuf>,

    /// The server's address
    #[arg(long, value_name = "URL", env = "QUAYMASTER_SERVER", value_parser = server_url)]
    server: Url,

    /// The token to show; better given in the environment, where other users of the machine do not see it
    #[arg(long, env = "QUAYMASTER_TOKEN", hide_env_values = true, value_parser = bearer_token)]
    token: Token,

    /// The brand's id; may be left out where the token holds one brand
    #[arg(long, value_name = "ID")]
    brand: Option<String>,

    /// Put the files into this batch
    ///
    /// A file is looked for, and resumed, in the batch that it was pushed to. Another REF sends it again.
    #[arg(long, value_name = "REF", default_value = DEFAULT_BATCH, value_parser = batch_reference)]
    batch: String,

    /// Requests with file contents in flight, over all files
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,

    /// Keep trying a request that fails for the moment until the pauses between the tries add up to this
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    retry_for: u64,

    /// In folders, take names that begin with a dot too
    #[arg(long)]
    hidden: bool,

    /// Print a line of JSON for each file, and one that sums up, instead of a table
    #[arg(long)]
    json: bool,

    /// No progress on standard error, only errors
    #[arg(long, short)]
    quiet: bool,
}

const LONG_ABOUT: &str = "\
Upload files and folders, and print the assets they became.

Run again, the same command goes on where it stopped, whatever ended it: what is an asset already is printed and not \
sent, of a file that was on its way only the missing parts are. Files up to 5 MiB are known again by path and content, \
larger ones by path, size, time of last change and both ends. A file that changes while it is sent fails, and is a new \
file next time.

Each asset's size is compared with the file's, and its content as far as the store gives means to. VERIFIED says how: \
\"sha256\", the store has compared the bytes with their SHA-256 when it took them (files sent by one request); \"md5\", \
the ETags of all parts and of the whole are the MD5s of what was read here; \"size\", neither, because the store's ETags \
are no MD5s (as under encryption with a KMS key) or because an earlier run had completed it. Parts that an earlier run \
sent are read again and compared too, and sent again where they differ.

Results go to standard output, progress and errors to standard error.";

const EXAMPLES: &str = "\
Examples:
  quaymaster push reel.mov --server https://uploads.example.com
  quaymaster push photos/ --batch spring-2026 --parallel 8
  quaymaster push photos/ --json | jq -r 'select(.asset) | .asset.asset_id'

Exit codes:
  0    every file is an asset
  1    a file failed; the others are assets
  2    wrong usage, or no file to push
  3    the token is missing, wrong, over, or not allowed to do this
  130  stopped by Ctrl-C; the same command goes on from there";

/// What all files of a run share.
struct Push {
    api: Api,
    store: Store,
    /// One permit for each PUT in flight.
    puts: Semaphore,
    parallel: usize,
    brand: Option<String>,
    batch: String,
    progress: Progress,
    /// Why no further file is announced.
    stop: OnceLock<Error>,
}

/// Pushes, prints the results, and says how it went by the exit code. Waits for the network: minutes to days.
pub async fn run(args: PushArgs) -> ExitCode {
    let begun = Instant::now();
    let (paths, hidden) = (args.paths.clone(), args.hidden);
    let scan = spawn_blocking(move || scan::scan(&paths, hidden)).await.expect("the scan does not panic");
    if scan.found.is_empty() {
        eprintln!("no file to push{}", left_out(&scan).map(|why| format!(": {why}")).unwrap_or_default());
        return ExitCode::from(NOTHING_TO_DO);
    }
    let bytes = scan.found.iter().filter_map(|(_, file)| Some(file.as_ref().ok()?.size)).sum();
    let push = match Push::new(&args, scan.found.len(), bytes) {
        Ok(push) => push,
        Err(error) => {
            eprintln!("cannot prepare the connections: {}", Error::from(error));
            return ExitCode::from(FAILED);
        }
    };
    if let Some(left_out) = left_out(&scan) {
        push.progress.note(&left_out);
    }

    let outcomes = Outcomes::new(scan.found.len());
    let sizes: Vec<_> =
        scan.found.iter().map(|(path, file)| (path.clone(), file.as_ref().ok().map(|f| f.size))).collect();
    let interrupted = tokio::select! {
        () = push.all(scan.found, &outcomes) => false,
        () = push.progress.tell() => false,
        () = ctrl_c() => true,
    };
    push.progress.clear();
    let outcomes = outcomes.into_vec(sizes);
    push.suggest_brand(&outcomes).await;

    let summary = Summary { batch: &push.batch, interrupted, seconds: begun.elapsed().as_secs_f64() };
    let printed = if args.json {
        report::write_json(&mut stdout().lock(), &outcomes, &summary)
    } else {
        report::write_table(&mut stdout().lock(), &outcomes)
    };
    push.progress.note(&report::sentence(&outcomes, &summary));
    if let Err(error) = printed {
        eprintln!("cannot print the results: {error}");
        return ExitCode::from(FAILED);
    }
    if interrupted {
        eprintln!("stopped; what is sent is kept, and the same command goes on from here");
        return ExitCode::from(INTERRUPTED);
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
            parallel,
            brand: args.brand.clone(),
            batch: args.batch.clone(),
            progress: Progress::new(args.quiet, files, bytes),
            stop: OnceLock::new(),
        })
    }

    /// Batch by batch; while the last files of one are on their way, the next is read and announced.
    async fn all(&self, found: Vec<(PathBuf, Result<LocalFile, Error>)>, outcomes: &Outcomes) {
        let mut files = Vec::new();
        for (index, (path, file)) in found.into_iter().enumerate() {
            match file {
                Ok(file) => files.push((index, file)),
                Err(error) => self.settle(outcomes, index, Outcome::failed(path, None, error)),
            }
        }
        let sessions = stream::iter(open::batches(files, |(_, file)| file.size))
            .then(|batch| self.open(batch, outcomes))
            .flat_map(stream::iter);
        // Twice as many files as PUTs: while some are completed, the others keep the line busy.
        let uploads = sessions.for_each_concurrent(self.parallel * 2, async |(index, item, session)| {
            let outcome = Box::pin(upload::upload(self, item, session)).await;
            self.settle(outcomes, index, outcome);
        });
        uploads.await;
    }

    /// The sessions of a batch; files that get none are settled here.
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

    /// No further file is announced: it would fare the same.
    fn stop_announcing(&self, error: &Error) {
        if self.stop.set(error.clone()).is_ok() {
            self.progress.error(&format!("no further file is announced: {error}"));
        }
    }

    /// The last word on a file.
    fn settle(&self, outcomes: &Outcomes, index: usize, outcome: Outcome) {
        let told = |error: &Error| self.stop.get().is_some_and(|stop| stop.to_string() == error.to_string());
        if let Err(error) = &outcome.result
            && !told(error)
        {
            self.progress.error(&format!("{}: {error}", report::shown(&outcome.path)));
        }
        self.progress.finish(&outcome.line());
        outcomes.set(index, outcome);
    }

    /// Where a brand was missing, the ones to choose from.
    async fn suggest_brand(&self, outcomes: &[Outcome]) {
        let missing = |error: &Error| matches!(error, Error::Server(problem) if problem.lacks("/brand_id"));
        if self.brand.is_some() || !outcomes.iter().any(|outcome| outcome.result.as_ref().is_err_and(missing)) {
            return;
        }
        match self.api.brands().await {
            Ok(brands) => {
                self.progress.error("Name a brand with --brand; this token holds:");
                for brand in brands {
                    self.progress.error(&format!(
                        "  {}  {}",
                        report::plain(&brand.brand_id),
                        report::plain(&brand.slug)
                    ));
                }
            }
            Err(error) => self.progress.error(&format!("Name a brand with --brand (cannot list them: {error})")),
        }
    }
}

/// One place for each file, in the order of the arguments; read even where the work was stopped half way.
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
    let hidden = (scan.hidden > 0).then(|| format!("{} hidden files and folders (see --hidden)", scan.hidden));
    let special = (scan.special > 0).then(|| format!("{} links and special files", scan.special));
    let both: Vec<_> = hidden.into_iter().chain(special).collect();
    (!both.is_empty()).then(|| format!("left out in folders: {}", both.join(", ")))
}

async fn ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await // no handler: then Ctrl-C ends the process, and the sessions stay as well
    }
}

/// A token that a header can carry.
#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[token]")
    }
}

fn bearer_token(text: &str) -> Result<Token, &'static str> {
    let text = text.trim();
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(Token(text.to_owned())) } else { Err("not a token") }
}

fn server_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err("must begin with http:// or https://".into()) }
}

/// The server's rule.
fn batch_reference(text: &str) -> Result<String, &'static str> {
    let fits = (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("must have 1 to 128 characters, no control character") }
}
