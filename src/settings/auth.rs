use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Complaints, Secret};

/// Maximum bytes of a claim's name, including the names of the claims around it.
const PLACE_BYTES_MAX: usize = 256;

/// Where a token holds the values that this server reads: the name of a claim, or names joined by dots for a nested claim. A
/// claim with exactly this name takes precedence, so that names that contain dots can be set as they are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The user: text.
    pub sub: String,
    /// The id of the tenant.
    pub tenant_id: String,
    /// A list of ids of brands, or `"*"`.
    pub brand_ids: String,
    /// A list of names.
    pub permissions: String,
}

/// Which tokens are accepted. Several kinds of key may be set; a token is checked with the keys for its algorithm.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// For HS256.
    pub jwt_secret: Option<Secret>,
    /// A PEM file with a public key: RSA (RS256 to RS512, PS256 to PS512), P-256 (ES256), P-384 (ES384) or Ed25519 (EdDSA).
    pub public_key_file: Option<PathBuf>,
    /// Where an identity provider publishes its keys (RFC 7517).
    pub jwks_url: Option<String>,
    /// If set, `iss` must be this.
    pub issuer: Option<String>,
    /// If set, `aud` must contain this.
    pub audience: Option<String>,
    /// Tolerance for clock differences, applied to `exp` and `nbf`.
    pub leeway_secs: u64,
    /// The keys are fetched again after this time.
    pub jwks_cache_secs: u64,
    /// Minimum time between two fetches, whatever key ids tokens name.
    pub jwks_min_refetch_secs: u64,
    pub claims: Claims,
}

impl Auth {
    pub fn has_key(&self) -> bool {
        self.jwt_secret.is_some() || self.public_key_file.is_some() || self.jwks_url.is_some()
    }

    pub(super) fn check(&self, complaints: &mut Complaints) {
        // RFC 7518, section 3.2: a key for HS256 has at least the 256 bits of its hash.
        let long_enough = self.jwt_secret.as_ref().is_none_or(|secret| secret.expose().len() >= 32);
        complaints.unless(long_enough, || {
            "auth.jwt_secret (JWT_SECRET) is shorter than 32 bytes; `openssl rand -hex 32` makes a good one".into()
        });
        complaints.http_url("auth.jwks_url", self.jwks_url.as_deref());
        complaints.at_least_one("auth.jwks_min_refetch_secs", self.jwks_min_refetch_secs);
        complaints.unless(self.jwks_min_refetch_secs <= self.jwks_cache_secs, || {
            format!(
                "auth.jwks_min_refetch_secs ({}) is more than auth.jwks_cache_secs ({})",
                self.jwks_min_refetch_secs, self.jwks_cache_secs
            )
        });
        self.claims.check(complaints);
        complaints.unless(self.leeway_secs <= 3600, || {
            format!("auth.leeway_secs ({}) is more than an hour (3600)", self.leeway_secs)
        });
    }
}

impl Claims {
    fn check(&self, complaints: &mut Complaints) {
        let all = [
            ("sub", &self.sub),
            ("tenant_id", &self.tenant_id),
            ("brand_ids", &self.brand_ids),
            ("permissions", &self.permissions),
        ];
        for (key, place) in all {
            let fits = (1..=PLACE_BYTES_MAX).contains(&place.len()) && !place.chars().any(char::is_control);
            complaints.unless(fits, || {
                format!(
                    "auth.claims.{key} must be the name of a claim: 1 to {PLACE_BYTES_MAX} bytes, no control characters"
                )
            });
        }
        let places: BTreeSet<_> = all.iter().map(|(_, place)| place).collect();
        complaints.unless(places.len() == all.len(), || {
            "two of auth.claims.sub, .tenant_id, .brand_ids and .permissions are the same claim".into()
        });
    }
}
