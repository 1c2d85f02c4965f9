//! Verifies tokens (RFC 7519), and reads the bearer's identity from them.
//!
//! Algorithms belong to the key, never to the token: a key checks only tokens that name one of its own algorithms, so that
//! a public key is never used as a secret, and no key accepts `none` (RFC 8725, sections 3.1 and 3.2).

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use entity::TenantId;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::claims::Claims;
use super::jwks::Jwks;
use crate::caller::{Actor, Brands, Permission, Permissions};
use crate::clock::Clock;
use crate::settings;

/// The longest `sub`, in Unicode scalars; it becomes `created_by`.
const USER_CHARS_MAX: usize = 128;

/// Algorithms that a token's header may name, if there is a key for them.
const ACCEPTED: [(&str, Algorithm); 10] = [
    ("HS256", Algorithm::HS256),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// The algorithms of each kind of key, for a key that does not name its own.
pub(super) const HMAC: &[Algorithm] = &[Algorithm::HS256];
pub(super) const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
pub(super) const P256: &[Algorithm] = &[Algorithm::ES256];
pub(super) const P384: &[Algorithm] = &[Algorithm::ES384];
pub(super) const ED25519: &[Algorithm] = &[Algorithm::EdDSA];

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no key for tokens is set: set auth.jwt_secret (JWT_SECRET), auth.public_key_file or auth.jwks_url")]
    NoKey,
    #[error("auth.public_key_file: cannot read {0}")]
    File(PathBuf, #[source] std::io::Error),
    #[error(
        "auth.public_key_file: {0} is not a public key in PEM format: RSA (2048 bits or more), P-256, P-384 or Ed25519"
    )]
    Key(PathBuf),
    #[error("auth.public_key_file: {0} holds a private key; give the server only the public key")]
    PrivateKey(PathBuf),
    #[error("{0}")]
    Settings(String),
    #[error("auth.jwks_url: cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// What is wrong with the token, in plain ASCII without quotes.
    Invalid(&'static str),
    /// The token may be valid, but the identity provider's keys cannot be fetched now; `retry_after_secs` is 1 or more.
    KeysUnavailable { retry_after_secs: u64 },
}

/// A key and its algorithms, all of one family.
#[derive(Clone)]
pub(super) struct Key {
    pub algorithms: &'static [Algorithm],
    pub key: DecodingKey,
}

impl Key {
    pub fn takes(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    fn signed(&self, algorithm: Algorithm, token: &Parts) -> bool {
        crypto::verify(token.signature, token.message.as_bytes(), &self.key, algorithm).unwrap_or(false)
    }
}

/// Checks tokens with every key that is configured.
pub struct Verifier {
    keys: Vec<Key>,
    jwks: Option<Jwks>,
    issuer: Option<String>,
    audience: Option<String>,
    claims: settings::Claims,
    leeway_secs: f64,
    clock: Clock,
}

/// The bearer of a token, as the token names them.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `None` only for an operator's token.
    pub tenant: Option<TenantId>,
    pub user: String,
    pub brands: Brands,
    pub permissions: Permissions,
    /// When the token expires, leeway included, on the engine's clock.
    pub expires_at: DateTime<Utc>,
}

impl Verifier {
    /// Fetches nothing yet, so that a server can start while the identity provider is down.
    ///
    /// # Errors
    /// No key is set, a key file cannot be used, or no HTTP client can be made.
    pub fn new(settings: &settings::Auth, clock: Clock) -> Result<Self, StartError> {
        let mut keys = Vec::new();
        if let Some(secret) = &settings.jwt_secret {
            let key = DecodingKey::from_secret(secret.expose().as_bytes());
            keys.push(Key { algorithms: HMAC, key });
        }
        if let Some(path) = &settings.public_key_file {
            keys.push(read_pem(path)?);
        }
        let jwks = match &settings.jwks_url {
            Some(url) => Some(Jwks::new(url, settings, clock.clone()).map_err(StartError::Client)?),
            None => None,
        };
        if keys.is_empty() && jwks.is_none() {
            return Err(StartError::NoKey);
        }
        Ok(Self {
            keys,
            jwks,
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            claims: settings.claims.clone(),
            leeway_secs: settings.leeway_secs as f64,
            clock,
        })
    }

    /// Waits only if keys of the identity provider must be fetched first.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] for a wrong token; [`Rejection::KeysUnavailable`] if the keys to check it cannot be fetched.
    pub async fn verify(&self, token: &str) -> Result<Identity, Rejection> {
        let parts = Parts::split(token).ok_or(Rejection::Invalid("the token is not a signed JWT"))?;
        let header = decode(parts.header).ok_or(Rejection::Invalid("the token is not a signed JWT"))?;
        let header: TokenHeader =
            serde_json::from_slice(&header).map_err(|_| Rejection::Invalid("the token is not a signed JWT"))?;
        // RFC 7515, section 4.1.11: a critical header that is not understood makes the token invalid.
        if header.crit.is_some() {
            return Err(Rejection::Invalid("the token has a crit header"));
        }
        let algorithm = ACCEPTED.into_iter().find(|(name, _)| *name == header.alg).map(|(_, algorithm)| algorithm);
        let algorithm = algorithm.ok_or(Rejection::Invalid("the algorithm of the token is not accepted"))?;

        let mut own = self.keys.iter().filter(|key| key.takes(algorithm)).peekable();
        let has_own = own.peek().is_some();
        if !own.any(|key| key.signed(algorithm, &parts)) {
            match &self.jwks {
                Some(jwks) if algorithm != Algorithm::HS256 => {
                    let kid = header.kid.as_deref();
                    if !jwks.any_key(algorithm, kid, |key| key.signed(algorithm, &parts)).await? {
                        return Err(Rejection::Invalid("no key of the issuer has signed the token"));
                    }
                }
                Some(_) | None if has_own => return Err(Rejection::Invalid("the signature of the token is wrong")),
                Some(_) | None => return Err(Rejection::Invalid("the algorithm of the token is not accepted")),
            }
        }
        let claims = decode(parts.claims).ok_or(Rejection::Invalid("the token has no JSON claims"))?;
        self.check_claims(&claims).map_err(Rejection::Invalid)
    }

    /// Checks the claims of a signed token: its time, issuer, audience and bearer.
    fn check_claims(&self, claims: &[u8]) -> Result<Identity, &'static str> {
        let claims = Claims::read(claims)?;
        let now = self.clock.now().timestamp_micros() as f64 / 1e6;
        let expires = claims.time("exp")?.ok_or("the token has no exp")? + self.leeway_secs;
        if now >= expires {
            return Err("the token has expired");
        }
        if claims.time("nbf")?.is_some_and(|nbf| now + self.leeway_secs < nbf) {
            return Err("the token is not valid yet");
        }
        if self.issuer.is_some() && claims.text("iss")? != self.issuer.as_deref() {
            return Err("the token is from another issuer");
        }
        if let Some(audience) = &self.audience
            && !claims.text_or_texts("aud")?.is_some_and(|names| names.contains(&audience.as_str()))
        {
            return Err("the token is for another audience");
        }
        let user = claims.text(&self.claims.sub)?.ok_or("the token has no sub")?;
        may_be_a_user(user)?;
        let names = claims.texts(&self.claims.permissions)?.ok_or("the token has no permissions")?;
        let permissions = Permissions::parse(names);
        let tenant = match claims.text(&self.claims.tenant_id)? {
            Some(text) => Some(text.parse().map_err(|_| "the tenant_id of the token is not a UUID")?),
            None if permissions.has(Permission::Operator) => None,
            None => return Err("the token has no tenant_id"),
        };
        let brands = claims.brands(&self.claims.brand_ids)?.ok_or("the token has no brand_ids")?;
        // A cast to i64 saturates.
        let expires_at = DateTime::from_timestamp_micros((expires * 1e6) as i64).unwrap_or(DateTime::<Utc>::MAX_UTC);
        Ok(Identity { tenant, user: user.to_owned(), brands, permissions, expires_at })
    }
}

/// Checks the name of a token's bearer: 1 to 128 Unicode scalars without control characters, and none of the names that the
/// record uses for the server and its commands.
///
/// # Errors
/// What is wrong with the name, in plain ASCII.
pub fn may_be_a_user(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.chars().nth(USER_CHARS_MAX).is_some() || name.chars().any(char::is_control) {
        return Err("the sub of the token must be 1 to 128 characters without control characters");
    }
    if Actor::is_the_machines(name) {
        return Err("the sub of the token is a name that is reserved for the server's own actors");
    }
    Ok(())
}

/// The three parts of a JWS in compact form (RFC 7515, section 7.1).
struct Parts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// The signed text: the first two parts with the dot between them.
    message: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        (!claims.contains('.') && !signature.is_empty()).then_some(Self { header, claims, signature, message })
    }
}

fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn read_pem(path: &Path) -> Result<Key, StartError> {
    let pem = fs::read_to_string(path).map_err(|error| StartError::File(path.to_owned(), error))?;
    if pem.contains("PRIVATE KEY") {
        return Err(StartError::PrivateKey(path.to_owned()));
    }
    let bytes = pem.as_bytes();
    // RSA: a DER sequence of modulus and exponent, long enough for the 2048 bits of RFC 7518, section 3.3. EC: an
    // uncompressed point, whose length tells the curve.
    let kinds = [
        (RSA, DecodingKey::from_rsa_pem(bytes), 257..=usize::MAX),
        (P256, DecodingKey::from_ec_pem(bytes), 65..=65),
        (P384, DecodingKey::from_ec_pem(bytes), 97..=97),
        (ED25519, DecodingKey::from_ed_pem(bytes), 32..=32),
    ];
    let read = kinds.into_iter().find_map(|(algorithms, key, lengths)| {
        let key = key.ok().filter(|key| key.try_get_as_bytes().is_ok_and(|bytes| lengths.contains(&bytes.len())))?;
        Some(Key { algorithms, key })
    });
    read.ok_or_else(|| StartError::Key(path.to_owned()))
}

#[derive(Deserialize)]
struct TokenHeader<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    crit: Option<IgnoredAny>,
}
