//! The command line of `push`.

use std::path::PathBuf;

use clap::Args;
use reqwest::Url;

/// The batch of all pushes that name none, so that a file that is pushed again, alone or with others, is found.
const DEFAULT_BATCH: &str = "quaymaster-push";

/// Upload files and folders, and print the assets they became
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub struct PushArgs {
    /// Files and folders to upload
    ///
    /// Folders are walked in the order of names. Inside folders, names that begin with a dot (see --hidden) and symbolic
    /// links are left out. A file that is named here is always sent, even if it is hidden or a link to a file.
    #[arg(value_name = "FILE|FOLDER", required = true)]
    pub(super) paths: Vec<PathBuf>,

    /// The server's address
    #[arg(long, value_name = "URL", env = "QUAYMASTER_SERVER", value_parser = server_url)]
    pub(super) server: Url,

    /// The token; better set it in the environment, where other users of the machine do not see it
    #[arg(long, env = "QUAYMASTER_TOKEN", hide_env_values = true, value_parser = bearer_token)]
    pub(super) token: Token,

    /// The brand's id; may be left out if the token holds one brand
    #[arg(long, value_name = "ID")]
    pub(super) brand: Option<String>,

    /// Put the files into this batch
    ///
    /// A file is found and resumed in the batch that it was pushed to. With another REF it is sent again.
    #[arg(long, value_name = "REF", default_value = DEFAULT_BATCH, value_parser = batch_reference)]
    pub(super) batch: String,

    /// Maximum number of requests with file contents in flight, over all files
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) parallel: u16,

    /// Retry a request that fails temporarily until the pauses between the attempts add up to this
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) retry_for: u64,

    /// Include names that begin with a dot inside folders
    #[arg(long)]
    pub(super) hidden: bool,

    /// Print a line of JSON for each file, and one with a summary, instead of a table
    #[arg(long)]
    pub(super) json: bool,

    /// Print no progress on standard error, only errors
    #[arg(long, short)]
    pub(super) quiet: bool,
}

const LONG_ABOUT: &str = "\
Upload files and folders, and print the assets they became.

Run again, the same command continues where it stopped, whatever stopped it. A file that is an asset already is printed \
and not sent; of a file that was partly sent, only the missing parts are sent. Files up to 5 MiB are recognized by path \
and content, larger ones by path, size, time of last change and both ends. A file that changes while it is sent fails, \
and is a new file next time.

Each asset's size is compared with the file's, and its content as far as the store makes it possible. VERIFIED says how: \
\"sha256\": the store compared the bytes with their SHA-256 when it received them (files sent by one request); \"md5\": \
the ETags of all parts and of the whole are the MD5s of the bytes read here; \"size\": only the size was compared, \
because the store's ETags are not MD5s (as with a KMS key) or because an earlier run completed the upload. Parts that an \
earlier run sent are read again and compared too, and sent again if they differ.

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
  3    the token is missing, wrong, expired, or not allowed to do this
  130  stopped by Ctrl-C; the same command continues from there
  143  stopped by SIGTERM; the same command continues from there

When it is stopped, it prints the outcome of each file so far.";

/// A token that a header can carry.
#[derive(Clone)]
pub(super) struct Token(pub(super) String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[token]")
    }
}

fn bearer_token(text: &str) -> Result<Token, &'static str> {
    let text = text.trim();
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(Token(text.to_owned())) } else { Err("must be visible ASCII characters without spaces") }
}

fn server_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err("must begin with http:// or https://".into()) }
}

/// The same rule as the server's.
fn batch_reference(text: &str) -> Result<String, &'static str> {
    let fits = (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("must be 1 to 128 characters, without control characters") }
}
