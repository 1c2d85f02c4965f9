//! The keys of an identity provider (RFC 7517): fetched when first needed, kept, and fetched again when they are old or
//! a token names one that is not among them. Nobody can make the server fetch more often than the settings say.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::auth::{Key, Rejection};
use crate::clock::Clock;
use crate::settings;

/// A key set has a few kilobytes.
const BYTES_MAX: usize = 256 << 10;
/// A fetch stands in the way of the requests that need its keys.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Jwks(Arc<Inner>);

struct Inner {
    url: String,
    client: reqwest::Client,
    cache_for: TimeDelta,
    min_refetch: TimeDelta,
    clock: Clock,
    held: RwLock<Arc<Held>>,
    /// Held by the one fetch that is under way.
    fetching: Arc<Mutex<()>>,
}

#[derive(Default)]
struct Held {
    keys: Arc<[Published]>,
    /// Of the last fetch that brought a key set.
    fetched_at: Option<DateTime<Utc>>,
    /// Of the last fetch, whatever it brought.
    tried_at: Option<DateTime<Utc>>,
}

struct Published {
    kid: Option<String>,
    key: Key,
}

impl Jwks {
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new(url: &str, settings: &settings::Auth, clock: Clock) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            // The URL in the settings is the one that is trusted.
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let span =
            |secs: u64| TimeDelta::try_seconds(i64::try_from(secs).unwrap_or(i64::MAX)).unwrap_or(TimeDelta::MAX);
        Ok(Self(Arc::new(Inner {
            url: url.to_owned(),
            client,
            cache_for: span(settings.jwks_cache_secs),
            min_refetch: span(settings.jwks_min_refetch_secs),
            clock,
            held: RwLock::default(),
            fetching: Arc::default(),
        })))
    }

    /// Whether one of the published keys for this algorithm, and of this id where the token names one, passes the test.
    ///
    /// # Errors
    /// The key is not among those held, and no newer ones are to be had now.
    pub async fn any_key(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        test: impl Fn(&Key) -> bool,
    ) -> Result<bool, Rejection> {
        let inner = &self.0;
        let fits = |published: &&Published| {
            published.key.algorithm == algorithm && kid.is_none_or(|kid| published.kid.as_deref() == Some(kid))
        };
        let mut held = inner.held();
        if inner.passed(held.fetched_at, inner.cache_for) {
            held = match held.fetched_at {
                // Old keys serve while one request fetches new ones.
                Some(_) => match Arc::clone(&inner.fetching).try_lock_owned() {
                    Ok(turn) => inner.fetch(turn).await,
                    Err(_) => held,
                },
                None => inner.fetch_in_turn().await,
            };
        }
        if held.keys.iter().filter(fits).any(|published| test(&published.key)) {
            return Ok(true);
        }
        // A signature that its own key refuses is wrong. Where the key is not there, it may be a new one.
        if kid.is_some() && held.keys.iter().any(|published| fits(&published)) {
            return Ok(false);
        }
        held = inner.fetch_in_turn().await;
        if held.keys.iter().filter(fits).any(|published| test(&published.key)) {
            return Ok(true);
        }
        if held.fetched_at == held.tried_at { Ok(false) } else { Err(Rejection::KeysUnavailable) }
    }
}

impl Inner {
    fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether at least this long has passed since; a clock that went back counts as a long time.
    fn passed(&self, since: Option<DateTime<Utc>>, span: TimeDelta) -> bool {
        since.is_none_or(|since| {
            let age = self.clock.now() - since;
            age >= span || age < TimeDelta::zero()
        })
    }

    /// Waits for the fetch that is under way. Its result is recent enough, so that no second one follows.
    async fn fetch_in_turn(self: &Arc<Self>) -> Arc<Held> {
        let turn = Arc::clone(&self.fetching).lock_owned().await;
        self.fetch(turn).await
    }

    /// Fetches once, unless the last try was too recent. In a task of its own: a client that hangs up must not be able
    /// to end a fetch that others wait for.
    async fn fetch(self: &Arc<Self>, turn: OwnedMutexGuard<()>) -> Arc<Held> {
        let held = self.held();
        if !self.passed(held.tried_at, self.min_refetch) {
            return held;
        }
        let inner = Arc::clone(self);
        let fetch = actix_web::rt::spawn(async move {
            let result = inner.get().await;
            let tried_at = Some(inner.clock.now());
            let new = match result {
                Ok(keys) => {
                    if keys.is_empty() {
                        tracing::warn!("the key set at auth.jwks_url has no key for RS256, ES256 or EdDSA");
                    }
                    Held { keys: keys.into(), fetched_at: tried_at, tried_at }
                }
                Err(reason) => {
                    tracing::warn!(error = reason, "cannot fetch the key set at auth.jwks_url");
                    Held { keys: Arc::clone(&held.keys), fetched_at: held.fetched_at, tried_at }
                }
            };
            *inner.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
            drop(turn);
        });
        if let Err(error) = fetch.await {
            tracing::error!(error = error.to_string(), "fetching the key set ended early");
        }
        self.held()
    }

    async fn get(&self) -> Result<Vec<Published>, String> {
        // The URL stays out of the message: it may hold a key of the provider's.
        let failed = |error: reqwest::Error| error.without_url().to_string();
        let mut response = self.client.get(&self.url).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > BYTES_MAX {
                return Err(format!("more than {BYTES_MAX} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        #[derive(Deserialize)]
        struct KeySet {
            keys: Vec<serde_json::Value>,
        }
        let set: KeySet = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        // RFC 7517, section 5: what is not understood is left out, the rest counts.
        let known = set.keys.into_iter().filter_map(|value| serde_json::from_value::<Jwk>(value).ok());
        Ok(known.filter_map(|jwk| Published::read(&jwk)).collect())
    }
}

impl Published {
    /// `None` for a key that is not for signatures, or of a kind that is not accepted; a symmetric one never is.
    fn read(jwk: &Jwk) -> Option<Self> {
        let (algorithm, named) = match &jwk.algorithm {
            // RFC 7518, section 3.3: 2048 bits or more, here in base64url.
            AlgorithmParameters::RSA(rsa) if rsa.n.len() >= 342 => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            AlgorithmParameters::RSA(_)
            | AlgorithmParameters::EllipticCurve(_)
            | AlgorithmParameters::OctetKeyPair(_)
            | AlgorithmParameters::OctetKey(_)
            | AlgorithmParameters::Other(_) => return None,
            #[allow(clippy::wildcard_enum_match_arm, reason = "the enum is non-exhaustive")]
            _ => return None,
        };
        let common = &jwk.common;
        let for_signatures = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
        let to_verify = common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
        if !for_signatures || !to_verify || common.key_algorithm.is_some_and(|alg| alg != named) {
            return None;
        }
        let key = Key { algorithm, key: DecodingKey::from_jwk(jwk).ok()? };
        Some(Self { kid: common.key_id.clone(), key })
    }
}
