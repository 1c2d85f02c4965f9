//! Which tokens are believed (RFC 7519), and what they say of their bearer.
//!
//! The algorithm belongs to the key, never to the token: a key is asked only about tokens that name its own algorithm,
//! so that a public key is never taken for a secret, and `none` finds no key at all (RFC 8725, sections 3.1 and 3.2).

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use entity::{BrandId, TenantId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, crypto};
use serde::de::{self, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::jwks::Jwks;
use crate::caller::{Brands, Permission, Permissions};
use crate::clock::Clock;
use crate::settings;

/// The longest `sub`, in Unicode scalars; it becomes `created_by`.
const USER_CHARS_MAX: usize = 128;

/// What a token's header may name, where there is a key for it.
const ACCEPTED: [(&str, Algorithm); 4] = [
    ("HS256", Algorithm::HS256),
    ("RS256", Algorithm::RS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no key for tokens is set: auth.jwt_secret (JWT_SECRET), auth.public_key_file or auth.jwks_url")]
    NoKey,
    #[error("auth.public_key_file: cannot read {0}")]
    File(PathBuf, #[source] std::io::Error),
    #[error("auth.public_key_file: {0} is not a public key in PEM form of RSA (2048 bits or more), P-256 or Ed25519")]
    Key(PathBuf),
    #[error("auth.public_key_file: {0} holds a private key; give the server the public one alone")]
    PrivateKey(PathBuf),
    #[error("{0}")]
    Settings(String),
    #[error("auth.jwks_url: cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// What is wrong with it; plain ASCII, without quotes.
    Invalid(&'static str),
    /// The token may be good, but the identity provider's keys cannot be fetched now.
    KeysUnavailable,
}

/// A key and the one algorithm that it is for.
#[derive(Clone)]
pub(super) struct Key {
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

impl Key {
    fn signed(&self, token: &Parts) -> bool {
        crypto::verify(token.signature, token.message.as_bytes(), &self.key, self.algorithm).unwrap_or(false)
    }
}

/// Checks tokens with every kind of key that is set.
pub struct Verifier {
    keys: Vec<Key>,
    jwks: Option<Jwks>,
    issuer: Option<String>,
    audience: Option<String>,
    leeway_secs: f64,
    clock: Clock,
}

/// Who a token says its bearer is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// None for an operator's token only.
    pub tenant: Option<TenantId>,
    pub user: String,
    pub brands: Brands,
    pub permissions: Permissions,
    /// When the token is no good any more, leeway and all; on the engine's clock.
    pub expires_at: DateTime<Utc>,
}

impl Verifier {
    /// Fetches nothing yet: a server starts while the identity provider is away.
    ///
    /// # Errors
    /// No key is set, or the file of one cannot be used.
    pub fn new(settings: &settings::Auth, clock: Clock) -> Result<Self, StartError> {
        let mut keys = Vec::new();
        if let Some(secret) = &settings.jwt_secret {
            let key = DecodingKey::from_secret(secret.expose().as_bytes());
            keys.push(Key { algorithm: Algorithm::HS256, key });
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
            leeway_secs: settings.leeway_secs as f64,
            clock,
        })
    }

    /// Waits for nothing unless the token names a key of the identity provider's that is not there yet.
    ///
    /// # Errors
    /// What is wrong with the token, or that nobody can tell.
    pub async fn verify(&self, token: &str) -> Result<Identity, Rejection> {
        let parts = Parts::split(token).ok_or(Rejection::Invalid("the token is not a signed JWT"))?;
        let header = decode(parts.header).ok_or(Rejection::Invalid("the token is not a signed JWT"))?;
        let header: TokenHeader =
            serde_json::from_slice(&header).map_err(|_| Rejection::Invalid("the token is not a signed JWT"))?;
        // RFC 7515, section 4.1.11: what must be understood and is not makes the token invalid.
        if header.crit.is_some() {
            return Err(Rejection::Invalid("the token has a crit header"));
        }
        let algorithm = ACCEPTED.into_iter().find(|(name, _)| *name == header.alg).map(|(_, algorithm)| algorithm);
        let algorithm = algorithm.ok_or(Rejection::Invalid("the algorithm of the token is not accepted"))?;

        let mut own = self.keys.iter().filter(|key| key.algorithm == algorithm).peekable();
        let has_own = own.peek().is_some();
        if !own.any(|key| key.signed(&parts)) {
            match &self.jwks {
                Some(jwks) if algorithm != Algorithm::HS256 => {
                    let kid = header.kid.as_deref();
                    if !jwks.any_key(algorithm, kid, |key| key.signed(&parts)).await? {
                        return Err(Rejection::Invalid("no key of the issuer has signed the token"));
                    }
                }
                Some(_) | None if has_own => return Err(Rejection::Invalid("the signature of the token is wrong")),
                Some(_) | None => return Err(Rejection::Invalid("the algorithm of the token is not accepted")),
            }
        }
        let claims = decode(parts.claims).ok_or(Rejection::Invalid("the token has no JSON claims"))?;
        self.believe(&claims).map_err(Rejection::Invalid)
    }

    /// What signed claims are worth now, and to this service.
    fn believe(&self, claims: &[u8]) -> Result<Identity, &'static str> {
        let claims: Claims = serde_json::from_slice(claims).map_err(|_| "a claim of the token has the wrong type")?;
        let now = self.clock.now().timestamp_micros() as f64 / 1e6;
        let expires = claims.exp.ok_or("the token has no exp")? + self.leeway_secs;
        if now >= expires {
            return Err("the token has expired");
        }
        if claims.nbf.is_some_and(|nbf| now + self.leeway_secs < nbf) {
            return Err("the token is not valid yet");
        }
        if self.issuer.is_some() && claims.iss.as_deref() != self.issuer.as_deref() {
            return Err("the token is of another issuer");
        }
        if let Some(audience) = &self.audience
            && !claims.aud.is_some_and(|aud| aud.0.iter().any(|name| name.0 == **audience))
        {
            return Err("the token is for another audience");
        }
        let user = claims.sub.ok_or("the token has no sub")?;
        if user.is_empty() || user.chars().nth(USER_CHARS_MAX).is_some() || user.chars().any(char::is_control) {
            return Err("the sub of the token is empty, too long or has control characters");
        }
        let names = claims.permissions.ok_or("the token has no permissions")?;
        let permissions = Permissions::parse(names.iter().map(|name| name.0.as_ref()));
        let tenant = match claims.tenant_id {
            Some(text) => Some(text.parse().map_err(|_| "the tenant_id of the token is not a UUID")?),
            None if permissions.has(Permission::Operator) => None,
            None => return Err("the token has no tenant_id"),
        };
        let brands = claims.brand_ids.ok_or("the token has no brand_ids")?.0;
        // A cast to i64 stops at its bounds.
        let expires_at = DateTime::from_timestamp_micros((expires * 1e6) as i64).unwrap_or(DateTime::<Utc>::MAX_UTC);
        Ok(Identity { tenant, user: user.into_owned(), brands, permissions, expires_at })
    }
}

/// The three parts of a JWS in compact form (RFC 7515, section 7.1).
struct Parts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// What is signed: the first two with the dot between them.
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
    // RS256: a DER sequence of modulus and exponent, for the 2048 bits of RFC 7518, section 3.3. ES256: an uncompressed
    // point of P-256 and no longer curve.
    let kinds = [
        (Algorithm::RS256, DecodingKey::from_rsa_pem(bytes), 257..=usize::MAX),
        (Algorithm::ES256, DecodingKey::from_ec_pem(bytes), 65..=65),
        (Algorithm::EdDSA, DecodingKey::from_ed_pem(bytes), 32..=32),
    ];
    let read = kinds.into_iter().find_map(|(algorithm, key, lengths)| {
        let key = key.ok().filter(|key| key.try_get_as_bytes().is_ok_and(|bytes| lengths.contains(&bytes.len())))?;
        Some(Key { algorithm, key })
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

#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    sub: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tenant_id: Option<Cow<'a, str>>,
    brand_ids: Option<BrandIds>,
    #[serde(borrow)]
    permissions: Option<Vec<Text<'a>>>,
    /// Seconds since the epoch; a NumericDate may have a fraction.
    exp: Option<f64>,
    nbf: Option<f64>,
    #[serde(borrow)]
    iss: Option<Cow<'a, str>>,
    #[serde(borrow)]
    aud: Option<Audience<'a>>,
}

/// Borrows from the token where JSON has no escapes; serde borrows a `Cow` only as a field.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// One name or several.
struct Audience<'a>(Vec<Text<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Audience<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMore<'a> {
            One(#[serde(borrow)] Text<'a>),
            More(#[serde(borrow)] Vec<Text<'a>>),
        }
        Ok(match OneOrMore::deserialize(deserializer)? {
            OneOrMore::One(name) => Self(vec![name]),
            OneOrMore::More(names) => Self(names),
        })
    }
}

struct BrandIds(Brands);

impl<'de> Deserialize<'de> for BrandIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BrandsVisitor;

        impl<'de> Visitor<'de> for BrandsVisitor {
            type Value = BrandIds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of brand ids, or \"*\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BrandIds, E> {
                if text == "*" { Ok(BrandIds(Brands::All)) } else { Err(E::custom("only * may stand alone")) }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<BrandIds, A::Error> {
                let mut ids = Vec::new();
                while let Some(Text(id)) = access.next_element()? {
                    ids.push(id.parse().map_err(de::Error::custom)?);
                }
                Ok(BrandIds(Brands::These(ids)))
            }
        }

        deserializer.deserialize_any(BrandsVisitor)
    }
}

/// What a new token is to say.
pub struct Grant<'a> {
    pub user: &'a str,
    pub tenant: Option<TenantId>,
    pub brands: Brands,
    /// As the claim has them; `*` is all but `operator`.
    pub permissions: &'a [String],
    pub expires_at: DateTime<Utc>,
    pub issuer: Option<&'a str>,
    pub audience: Option<&'a str>,
}

/// Makes an HS256 token, for the `token` command and for tests.
pub fn mint(secret: &settings::Secret, grant: &Grant) -> String {
    #[derive(Serialize)]
    struct Minted<'a> {
        sub: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        tenant_id: Option<TenantId>,
        brand_ids: Named<'a>,
        permissions: &'a [String],
        exp: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        iss: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        aud: Option<&'a str>,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Named<'a> {
        All(&'static str),
        These(&'a [BrandId]),
    }
    let claims = Minted {
        sub: grant.user,
        tenant_id: grant.tenant,
        brand_ids: match &grant.brands {
            Brands::All => Named::All("*"),
            Brands::These(ids) => Named::These(ids),
        },
        permissions: grant.permissions,
        exp: grant.expires_at.timestamp(),
        iss: grant.issuer,
        aud: grant.audience,
    };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("texts and numbers are JSON, and HMAC takes any key")
}

#[cfg(test)]
mod tests;
