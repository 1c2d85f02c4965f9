use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{failed, open, print, warn};
use crate::error::Error;
use crate::{start, tenant};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a tenant and its brands, and print their ids; again: the same ids, new brands added
    #[command(after_help = "\
Examples:
  quaymaster tenant create acme
  quaymaster tenant create acme --brand shoes --brand hats
  quaymaster tenant create acme --bucket acme-uploads      (dedicated strategy)")]
    Create {
        /// What people call the tenant: 1 to 63 of a-z, 0-9 and inner hyphens
        slug: String,
        /// A brand of the tenant; `main` where none is named
        #[arg(long, value_name = "SLUG")]
        brand: Vec<String>,
        /// The tenant's own bucket, under the dedicated provision strategy
        #[arg(long, value_name = "NAME")]
        bucket: Option<String>,
    },
}

pub(super) async fn run(args: Args, config: Option<&Path>) -> ExitCode {
    let Command::Create { slug, brand, bucket } = args.command;
    let engine = match open(config).await {
        Ok(engine) => engine,
        Err(error) => return failed(error),
    };
    let brands = if brand.is_empty() { vec!["main".to_owned()] } else { brand };
    match tenant::create(&engine, &slug, &brands, bucket.as_deref()).await {
        Ok(created) => {
            // With the embedded store, a bucket named here is ours to make. A server that does not run makes it when it
            // starts.
            if let (Some(bucket), true) = (&bucket, engine.settings.storage.bucket.is_none())
                && let Err(error) = start::prepare_bucket(&engine, bucket).await
            {
                warn(format_args!("{error}; the next start of the server does it"));
            }
            print(&json!({ "tenant_id": created.tenant_id, "brands": created.brands }).to_string())
        }
        Err(Error::Invalid(fields)) => {
            failed(fields.into_iter().map(|field| field.detail).collect::<Vec<_>>().join("\n"))
        }
        Err(error) => failed(error),
    }
}
