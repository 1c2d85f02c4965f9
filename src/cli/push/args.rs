//! The command line of `push`.

use std::path::PathBuf;

use clap::Args;
use reqwest::Url;

/// The batch of all pushes that name none: a file pushed again, alone or among others, is found there.
const DEFAULT_BATCH: &str = "quaymaster-push";

/// Upload files and folders, and print the assets they became
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub struct PushArgs {
    /// Files, and folders to be walked
    ///
    /// Folders are walked in order of names. In them, names that begin with a dot are left out (see --hidden), and
    /// so are symbolic links. What is named here is sent as it is: a hidden file, or the file that a link points to.
    #[arg(value_name = "FILE|FOLDER", required = true)]
    pub(super) paths: Vec<PathBuf>,

    /// The server's address
    #[arg(long, value_name = "URL", env = "QUAYMASTER_SERVER", value_parser = server_url)]
    pub(super) server: Url,

    /// The token to show; better given in the environment, where other users of the machine do not see it
    #[arg(long, env = "QUAYMASTER_TOKEN", hide_env_values = true, value_parser = bearer_token)]
    pub(super) token: Token,

    /// The brand's id; may be left out where the token holds one brand
    #[arg(long, value_name = "ID")]
    pub(super) brand: Option<String>,

    /// Put the files into this batch
    ///
    /// A file is looked for, and resumed, in the batch that it was pushed to. Another REF sends it again.
    #[arg(long, value_name = "REF", default_value = DEFAULT_BATCH, value_parser = batch_reference)]
    pub(super) batch: String,

    /// Requests with file contents in flight, over all files
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) parallel: u16,

    /// Keep trying a request that fails for the moment until the pauses between the tries add up to this
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) retry_for: u64,

    /// In folders, take names that begin with a dot too
    #[arg(long)]
    pub(super) hidden: bool,

    /// Print a line of JSON for each file, and one that sums up, instead of a table
    #[arg(long)]
    pub(super) json: bool,

    /// No progress on standard error, only errors
    #[arg(long, short)]
    pub(super) quiet: bool,
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
  130  stopped by Ctrl-C; the same command goes on from there
  143  stopped by SIGTERM; likewise

However it is stopped, it prints what came of each file so far.";

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
