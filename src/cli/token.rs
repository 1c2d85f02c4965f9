use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::duration::duration;
use super::tenant::named;
use super::{failed, open, print, said};
use crate::caller::{Brands, Permission};
use crate::engine::Engine;
use crate::tenant;
use crate::token::{Grant, may_be_a_user, mint};

/// Prints an HS256 token and nothing else, signed with the secret of the settings or of the data folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quaymaster token --tenant acme
  quaymaster token --tenant acme --brand shoes --user ann --permission uploads.create --permission uploads.view --ttl 8h
  quaymaster token --operator --user ola --ttl 15m")]
pub(super) struct Args {
    /// The tenant's slug or id
    #[arg(long, value_name = "SLUG", required_unless_present = "operator")]
    tenant: Option<String>,
    /// Make a token for the /admin routes of every tenant, and nothing else
    #[arg(long, conflicts_with_all = ["tenant", "brand", "permission"])]
    operator: bool,
    /// A brand's slug; by default all brands of the tenant
    #[arg(long, value_name = "SLUG")]
    brand: Vec<String>,
    /// Recorded as `created_by`
    #[arg(long, default_value = "local", value_parser = user)]
    user: String,
    /// A permission; by default `*` (all but operator)
    #[arg(long, value_name = "NAME", value_parser = permission)]
    permission: Vec<String>,
    /// How long the token is valid: 90s, 15m, 8h, 30d
    #[arg(long, default_value = "1h", value_parser = ttl)]
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
    let auth = &engine.settings.auth;
    let secret =
        auth.jwt_secret.as_ref().ok_or("there is no JWT_SECRET to sign with: get tokens from your own issuer")?;
    let (tenant, brands) = match &args.tenant {
        None => (None, Brands::All),
        Some(slug) => {
            let tenant = named(&engine, slug).await?;
            (Some(tenant.id), brands(&engine, &tenant, &args.brand).await?)
        }
    };
    let permissions = match args.permission {
        _ if args.operator => vec![Permission::Operator.name().to_owned()],
        named if named.is_empty() => vec!["*".to_owned()],
        named => named,
    };
    Ok(mint(
        auth,
        secret,
        &Grant {
            user: &args.user,
            tenant,
            brands,
            permissions: &permissions,
            expires_at: engine.clock.now() + args.ttl,
        },
    ))
}

async fn brands(engine: &Engine, tenant: &entity::tenant::Model, slugs: &[String]) -> Result<Brands, String> {
    if slugs.is_empty() {
        return Ok(Brands::All);
    }
    let known = tenant::brands_of(engine, tenant.id).await.map_err(said)?;
    let find = |slug: &String| {
        let brand = known.iter().find(|brand| brand.slug == *slug);
        brand.map(|brand| brand.id).ok_or_else(|| format!("{} has no brand {slug:?}", tenant.slug))
    };
    Ok(Brands::These(slugs.iter().map(find).collect::<Result<_, _>>()?))
}

fn user(name: &str) -> Result<String, String> {
    may_be_a_user(name)?;
    Ok(name.to_owned())
}

fn permission(name: &str) -> Result<String, String> {
    let known: Vec<_> = Permission::ALL.into_iter().map(Permission::name).chain(["*"]).collect();
    if known.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("must be one of {}", known.join(", ")))
}

/// Parses one whole number with its unit: `90s`, `15m`, `8h`, `30d`.
fn ttl(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix(['s', 'm', 'h', 'd']).unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("must be a whole number with s, m, h or d, such as 8h".to_owned());
    }
    duration(text).and_then(|ttl| if ttl.is_zero() { Err("must be at least 1s".to_owned()) } else { Ok(ttl) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(ttl("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(ttl("30d").unwrap(), Duration::from_secs(30 * 86_400));
        for wrong in ["", "h", "0s", "-1h", "1", "1w", "1.5h", "99999999999999999999h", "1ü"] {
            assert!(ttl(wrong).is_err(), "{wrong:?}");
        }
    }
}
