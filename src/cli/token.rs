use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::{failed, open, print};
use crate::caller::{Brands, Permission};
use crate::engine::Engine;
use crate::http::auth::{Grant, mint};
use crate::tenant;

/// Prints an HS256 token and nothing else, signed with the secret of the settings or of the data folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quaymaster token --tenant acme
  quaymaster token --tenant acme --brand shoes --user ann --permission uploads.create --permission uploads.view --ttl 8h
  quaymaster token --operator --user ola --ttl 15m")]
pub(super) struct Args {
    /// The tenant's slug
    #[arg(long, value_name = "SLUG", required_unless_present = "operator")]
    tenant: Option<String>,
    /// For the /admin routes of every tenant, and nothing else
    #[arg(long, conflicts_with_all = ["tenant", "brand", "permission"])]
    operator: bool,
    /// A brand's slug; all of the tenant's where none is named
    #[arg(long, value_name = "SLUG")]
    brand: Vec<String>,
    /// Recorded as `created_by`
    #[arg(long, default_value = "cli")]
    user: String,
    /// `*` (all but operator) where none is named
    #[arg(long, value_name = "NAME", value_parser = permission)]
    permission: Vec<String>,
    /// How long it is good for: 90s, 15m, 8h, 30d
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
}

pub(super) async fn run(args: Args, config: Option<&Path>) -> ExitCode {
    match token(args, config).await {
        Ok(token) => print(&token),
        Err(error) => failed(error),
    }
}

async fn token(args: Args, config: Option<&Path>) -> Result<String, String> {
    let engine = open(config).await?;
    let secret = engine.settings.auth.jwt_secret.clone();
    let secret = secret.ok_or("there is no JWT_SECRET to sign with: tokens come from your own issuer")?;
    let (tenant, brands) = match &args.tenant {
        None => (None, Brands::All),
        Some(slug) => {
            let tenant = tenant::by_slug(&engine, slug).await.map_err(|error| error.to_string())?;
            let tenant = tenant.ok_or_else(|| {
                format!("there is no tenant {slug:?}; make it with `quaymaster tenant create {slug}`")
            })?;
            (Some(tenant.id), brands(&engine, &tenant, &args.brand).await?)
        }
    };
    let permissions = match args.permission {
        _ if args.operator => vec![Permission::Operator.name().to_owned()],
        named if named.is_empty() => vec!["*".to_owned()],
        named => named,
    };
    Ok(mint(
        &secret,
        &Grant {
            user: &args.user,
            tenant,
            brands,
            permissions: &permissions,
            expires_at: engine.clock.now() + args.ttl,
            issuer: engine.settings.auth.issuer.as_deref(),
            audience: engine.settings.auth.audience.as_deref(),
        },
    ))
}

async fn brands(engine: &Engine, tenant: &entity::tenant::Model, slugs: &[String]) -> Result<Brands, String> {
    if slugs.is_empty() {
        return Ok(Brands::All);
    }
    let known = tenant::brands_of(engine, tenant.id).await.map_err(|error| error.to_string())?;
    let find = |slug: &String| {
        let brand = known.iter().find(|brand| brand.slug == *slug);
        brand.map(|brand| brand.id).ok_or_else(|| format!("{} has no brand {slug:?}", tenant.slug))
    };
    Ok(Brands::These(slugs.iter().map(find).collect::<Result<_, _>>()?))
}

fn permission(name: &str) -> Result<String, String> {
    let known: Vec<_> = Permission::ALL.into_iter().map(Permission::name).chain(["*"]).collect();
    if known.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("not one of {}", known.join(", ")))
}

/// A whole number and its unit: `90s`, `15m`, `8h`, `30d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a whole number and s, m, h or d, such as 8h".to_owned();
    let unit = match text.chars().last().ok_or_else(wrong)? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    // A century is as long as for ever, and no sum of it overflows.
    let seconds = number.checked_mul(unit).filter(|seconds| (1..=3_155_760_000).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "between 1s and 36525d".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("30d").unwrap(), Duration::from_secs(30 * 86_400));
        for wrong in ["", "h", "0s", "-1h", "1", "1w", "1.5h", "99999999999999999999h", "1ü"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
