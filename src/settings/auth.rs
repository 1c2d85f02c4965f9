use std::path::PathBuf;

use serde::Deserialize;

use super::{Complaints, Secret};

/// Which tokens are believed. Several kinds of key may be set; a token is checked with those of its own algorithm.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// For HS256.
    pub jwt_secret: Option<Secret>,
    /// A PEM file with a public key: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA).
    pub public_key_file: Option<PathBuf>,
    /// Where an identity provider publishes its keys (RFC 7517).
    pub jwks_url: Option<String>,
    /// `iss` must be this, where set.
    pub issuer: Option<String>,
    /// `aud` must hold this, where set.
    pub audience: Option<String>,
    /// Tolerance for clocks that disagree, applied to `exp` and `nbf`.
    pub leeway_secs: u64,
    /// Fetched keys are fetched again after this long.
    pub jwks_cache_secs: u64,
    /// Never fetched more often than this, whatever key ids tokens name.
    pub jwks_min_refetch_secs: u64,
}

impl Auth {
    pub fn has_key(&self) -> bool {
        self.jwt_secret.is_some() || self.public_key_file.is_some() || self.jwks_url.is_some()
    }

    pub(super) fn check(&self, complaints: &mut Complaints) {
        // RFC 7518, section 3.2: a key for HS256 has at least the 256 bits of its hash.
        let long_enough = self
            .jwt_secret
            .as_ref()
            .is_none_or(|secret| secret.expose().len() >= 32);
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
        complaints.unless(self.leeway_secs <= 3600, || {
            format!("auth.leeway_secs ({}) is more than an hour (3600)", self.leeway_secs)
        });
    }
}
