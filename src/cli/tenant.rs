use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Subcommand;
use serde_json::json;

use super::size::bytes;
use super::table::{lines, or_dash, size, table, time};
use super::{ACTOR, failed, make, open, print, said, warn};
use crate::engine::Engine;
use crate::error::{Error, with_causes};
use crate::input::{BucketName, Slug};
use crate::tenant::usage::{DAYS_DEFAULT, DAYS_MAX, last_days};
use crate::tenant::{self, Limits, Standing};
use crate::views::{TenantView, UsageView};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a tenant and its brands, and print their ids; run again, it prints the same ids and adds new brands
    #[command(after_help = "\
Examples:
  quaymaster tenant create acme
  quaymaster tenant create acme --brand shoes --brand hats
  quaymaster tenant create acme --bucket acme-uploads      (dedicated strategy)")]
    Create {
        /// The tenant's name: 1 to 63 characters of a-z, 0-9 and inner hyphens
        #[arg(value_parser = Slug::from_str)]
        slug: Slug,
        /// A brand of the tenant; by default `main`
        #[arg(long, value_name = "SLUG", value_parser = Slug::from_str)]
        brand: Vec<Slug>,
        /// The tenant's own bucket, under the dedicated provision strategy
        #[arg(long, value_name = "NAME", value_parser = BucketName::from_str)]
        bucket: Option<BucketName>,
    },
    /// List all tenants with their limits and usage
    #[command(after_help = "\
Examples:
  quaymaster tenant list
  quaymaster tenant list --json | jq -r 'select(.suspended_at) | .slug'")]
    List {
        /// Print a line of JSON for each tenant
        #[arg(long)]
        json: bool,
    },
    /// Stop a tenant from opening new sessions; open sessions may finish
    #[command(after_help = "\
Examples:
  quaymaster tenant suspend acme")]
    Suspend {
        slug: String,
        #[arg(long)]
        json: bool,
    },
    /// Let a suspended tenant open sessions again
    #[command(after_help = "\
Examples:
  quaymaster tenant resume acme")]
    Resume {
        slug: String,
        #[arg(long)]
        json: bool,
    },
    /// Show a tenant's quotas, or set them
    #[command(after_help = "\
Examples:
  quaymaster tenant quota acme
  quaymaster tenant quota acme --bytes 10GiB --live-sessions 500
  quaymaster tenant quota acme --bytes none")]
    Quota {
        slug: String,
        /// Maximum bytes that the tenant may hold: 10GiB, 500MB, 1048576, or `none`
        #[arg(long, value_name = "SIZE", value_parser = bytes_or_none)]
        bytes: Option<Quota>,
        /// Maximum number of sessions that may be open at a time, or `none`
        #[arg(long, value_name = "N", value_parser = number_or_none)]
        live_sessions: Option<Quota>,
        #[arg(long)]
        json: bool,
    },
    /// Show a tenant's usage, and its sessions on each of the last days, in UTC
    #[command(after_help = "\
Examples:
  quaymaster tenant usage acme
  quaymaster tenant usage acme --days 7 --json")]
    Usage {
        slug: String,
        /// Number of days, 1 to 92, including today
        #[arg(long, value_name = "N", default_value_t = DAYS_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX))]
        days: u64,
        #[arg(long)]
        json: bool,
    },
}

/// A limit from the command line. clap would read a bare `Option` as an argument that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota(Option<i64>);

fn bytes_or_none(text: &str) -> Result<Quota, String> {
    if text == "none" { Ok(Quota(None)) } else { bytes(text).map(|bytes| Quota(Some(bytes))) }
}

fn number_or_none(text: &str) -> Result<Quota, String> {
    let number = |text: &str| text.parse().ok().filter(|number: &i64| *number >= 0);
    match text {
        "none" => Ok(Quota(None)),
        text => {
            number(text).map(|number| Quota(Some(number))).ok_or_else(|| "must be a whole number or none".to_owned())
        }
    }
}

pub(super) async fn run(command: Command, config: Option<&Path>) -> ExitCode {
    let opened = match &command {
        Command::Create { .. } => make(config).await,
        Command::List { .. }
        | Command::Suspend { .. }
        | Command::Resume { .. }
        | Command::Quota { .. }
        | Command::Usage { .. } => open(config).await,
    };
    let engine = match opened {
        Ok(engine) => engine,
        Err(error) => return failed(error),
    };
    let answer = match command {
        Command::Create { slug, brand, bucket } => create(&engine, &slug, brand, bucket).await,
        Command::List { json } => list(&engine, json).await,
        Command::Suspend { slug, json } => {
            limit(&engine, &slug, Limits { suspended: Some(true), ..Limits::default() }, json).await
        }
        Command::Resume { slug, json } => {
            limit(&engine, &slug, Limits { suspended: Some(false), ..Limits::default() }, json).await
        }
        Command::Quota { slug, bytes, live_sessions, json } => {
            let (quota_bytes, quota_live_sessions) = (bytes.map(|quota| quota.0), live_sessions.map(|quota| quota.0));
            if quota_bytes.is_none() && quota_live_sessions.is_none() {
                show(&engine, &slug, json).await
            } else {
                limit(&engine, &slug, Limits { suspended: None, quota_bytes, quota_live_sessions }, json).await
            }
        }
        Command::Usage { slug, days, json } => usage(&engine, &slug, days, json).await,
    };
    match answer {
        Ok(text) => print(&text),
        Err(error) => failed(error),
    }
}

async fn create(
    engine: &Engine,
    slug: &Slug,
    mut brands: Vec<Slug>,
    bucket: Option<BucketName>,
) -> Result<String, String> {
    if brands.is_empty() {
        brands.push(Slug::main());
    }
    let created = tenant::create(engine, ACTOR, slug, &brands, bucket.as_ref()).await.map_err(said)?;
    if let Err(error) = &created.prepared {
        warn(format_args!(
            "the bucket could not be created in the embedded store: {}; the next start of the server creates it",
            with_causes(error)
        ));
    }
    Ok(json!({ "tenant_id": created.tenant_id, "brands": created.brands }).to_string())
}

async fn list(engine: &Engine, json: bool) -> Result<String, String> {
    let mut tenants = Vec::new();
    let mut after = None;
    loop {
        let page = tenant::list(engine, after.as_deref(), 200).await.map_err(said)?;
        tenants.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if json {
        return Ok(lines(tenants.into_iter().map(TenantView::from)));
    }
    Ok(tenants_table(&tenants))
}

async fn limit(engine: &Engine, slug: &str, limits: Limits, json: bool) -> Result<String, String> {
    let tenant = named(engine, slug).await?.id;
    let standing = tenant::limit(engine, ACTOR, tenant, limits).await.map_err(said)?;
    Ok(one(standing, json))
}

async fn show(engine: &Engine, slug: &str, json: bool) -> Result<String, String> {
    let tenant = named(engine, slug).await?.id;
    Ok(one(tenant::standing(engine, tenant).await.map_err(said)?, json))
}

async fn usage(engine: &Engine, slug: &str, days: u64, json: bool) -> Result<String, String> {
    let tenant = named(engine, slug).await?.id;
    let (from, to) = last_days(engine, days);
    let by_day = tenant::usage::daily(engine, tenant, Some(from), Some(to)).await.map_err(said)?;
    let standing = tenant::standing(engine, tenant).await.map_err(said)?;
    if json {
        return Ok(json!(UsageView::new(standing, by_day)).to_string());
    }
    let rows: Vec<_> = by_day
        .into_iter()
        .map(|(day, of)| {
            let counts = [of.opened, of.completed, of.failed, of.cancelled].map(|count| count.to_string());
            std::iter::once(day.to_string()).chain(counts).chain([size(of.bytes_completed)]).collect()
        })
        .collect();
    let days = table(&["DAY", "OPENED>", "COMPLETED>", "FAILED>", "CANCELLED>", "BYTES>"], &rows);
    Ok(format!("{}\n\n{days}", tenants_table(&[standing])))
}

/// Returns the tenant with this slug or id.
pub(super) async fn named(engine: &Engine, name: &str) -> Result<entity::tenant::Model, String> {
    match tenant::named_so(engine, name).await {
        Ok(tenant) => Ok(tenant),
        Err(Error::NotFound) => {
            Err(format!("there is no tenant {name:?}; create it with `quaymaster tenant create {name}`"))
        }
        Err(error) => Err(said(error)),
    }
}

fn one(standing: Standing, json: bool) -> String {
    if json { json!(TenantView::from(standing)).to_string() } else { tenants_table(&[standing]) }
}

fn tenants_table(tenants: &[Standing]) -> String {
    let titles = ["TENANT", "ID", "SUSPENDED", "LIVE>", "QUOTA>", "BYTES>", "QUOTA>"];
    let rows: Vec<_> = tenants
        .iter()
        .map(|Standing { tenant, usage }| {
            vec![
                tenant.slug.clone(),
                tenant.id.to_string(),
                or_dash(tenant.suspended_at, time),
                usage.live_sessions.to_string(),
                or_dash(tenant.quota_live_sessions, |quota| quota.to_string()),
                size(usage.bytes),
                or_dash(tenant.quota_bytes, size),
            ]
        })
        .collect();
    table(&titles, &rows)
}
