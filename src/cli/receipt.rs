use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use super::{failed, print};
use crate::error::with_causes;
use crate::session::{self, PublicKeys};
use crate::start;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Verify a receipt and print what it attests; exits with 1 if it was forged or changed. Works offline
    #[command(after_help = "\
Examples:
  curl -H \"Authorization: Bearer $TOKEN\" $SERVER/app/uploads/$ID/receipt > receipt.json
  quaymaster receipt verify receipt.json
  curl $SERVER/.well-known/quaymaster-keys.json > keys.json
  quaymaster receipt verify receipt.json --keys keys.json      (elsewhere, years later)")]
    Verify {
        /// The server's JSON answer or the bare JWS; - for standard input
        file: PathBuf,
        /// The keys of `/.well-known/quaymaster-keys.json`; by default this deployment's own, from its settings
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
    },
}

pub(super) fn run(command: Command, config: Option<&Path>) -> ExitCode {
    let Command::Verify { file, keys } = command;
    match verify(&file, keys.as_deref(), config) {
        Ok(claims) => match serde_json::to_string_pretty(&claims) {
            Ok(text) => print(&text),
            Err(error) => failed(with_causes(&error)),
        },
        Err(error) => failed(error),
    }
}

fn verify(file: &Path, keys: Option<&Path>, config: Option<&Path>) -> Result<Value, String> {
    let keys = match keys {
        Some(path) => {
            let text = read(path)?;
            serde_json::from_str(&text).map_err(|error| format!("{} is not a set of keys: {error}", path.display()))?
        }
        None => own_keys(config)?,
    };
    session::verify_receipt(&read(file)?, &keys).map_err(|doubt| doubt.to_string())
}

fn own_keys(config: Option<&Path>) -> Result<PublicKeys, String> {
    let keys = start::keys(&super::settings(config)?).map_err(|error| with_causes(&error))?;
    Ok(session::public_keys(&keys))
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(path).map(|read| text = read)
    };
    read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    // Some editors and shells begin a file with a byte-order mark.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
