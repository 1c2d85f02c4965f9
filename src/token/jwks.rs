//! The keys of an identity provider (RFC 7517): fetched when first needed, cached, and fetched again when they are old or
//! when a token names an unknown key. No client can make the server fetch more often than the settings allow, and no token
//! is refused for an unknown key by keys that were fetched before the request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;

use super::Rejection;
use super::verify::{ED25519, Key, P256, P384, RSA};
use crate::clock::Clock;
use crate::settings;

/// The largest key set that is read. Usual ones have a few kilobytes.
const BYTES_MAX: usize = 256 << 10;
/// Requests that need the keys wait for the fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How many withdrawn keys are remembered by their ids. A provider withdraws one now and then.
const RETIRED_MAX: usize = 100;

pub(super) struct Jwks(Arc<Inner>);

struct Inner {
    url: String,
    client: reqwest::Client,
    cache_for: TimeDelta,
    min_refetch: TimeDelta,
    clock: Clock,
    held: RwLock<Arc<Held>>,
    /// How many fetches have begun.
    begun: AtomicU64,
    /// Held by the one fetch that is under way.
    fetching: Arc<Mutex<()>>,
}

#[derive(Clone, Default)]
struct Held {
    /// The last valid set: a failed fetch removes nothing.
    keys: Arc<[Published]>,
    /// Ids of keys that were published once and no longer are, the latest first.
    retired: Arc<[String]>,
    /// The number of the fetch that brought the keys, counted from 1.
    brought_by: u64,
    /// When the last fetch ended that brought a key set.
    fetched_at: Option<DateTime<Utc>>,
    /// When the last fetch ended, successful or not.
    tried_at: Option<DateTime<Utc>>,
}

struct Published {
    kid: Option<String>,
    key: Key,
}

/// What the keys say about a token.
enum Verdict {
    Signed,
    /// The key that the token names has not signed it, or has been withdrawn.
    Refused,
    /// No key that is held fits the token. There may be a new one.
    UnknownKey,
}

impl Held {
    fn judge(&self, algorithm: Algorithm, kid: Option<&str>, test: &impl Fn(&Key) -> bool) -> Verdict {
        let fits = |published: &&Published| {
            published.key.takes(algorithm) && kid.is_none_or(|kid| published.kid.as_deref() == Some(kid))
        };
        if self.keys.iter().filter(fits).any(|published| test(&published.key)) {
            return Verdict::Signed;
        }
        let Some(kid) = kid else { return Verdict::UnknownKey };
        // Even if the key is for other algorithms than the token's.
        let is_there = self.keys.iter().any(|published| published.kid.as_deref() == Some(kid));
        if is_there || self.retired.iter().any(|retired| retired == kid) {
            return Verdict::Refused;
        }
        Verdict::UnknownKey
    }

    /// Returns what is held after a fetch has brought these keys.
    fn replaced_by(&self, keys: Vec<Published>, number: u64, now: DateTime<Utc>) -> Self {
        let before = self.keys.iter().filter_map(|published| published.kid.as_ref()).chain(self.retired.iter());
        let is_back = |kid: &String| keys.iter().any(|published| published.kid.as_ref() == Some(kid));
        let retired = before.filter(|kid| !is_back(kid)).take(RETIRED_MAX).cloned().collect();
        Self { keys: keys.into(), retired, brought_by: number, fetched_at: Some(now), tried_at: Some(now) }
    }
}

impl Jwks {
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new(url: &str, settings: &settings::Auth, clock: Clock) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            // Only the URL in the settings is trusted.
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
            begun: AtomicU64::new(0),
            fetching: Arc::default(),
        })))
    }

    /// Whether one of the published keys for this algorithm passes the test; if the token names a key's id, only that key
    /// counts.
    ///
    /// If the key is not among those held, only a fetch that began after this call can tell that it does not exist: a key is
    /// published before tokens are signed with it.
    ///
    /// # Errors
    /// The key is not among those held, and newer keys cannot be fetched now.
    pub async fn any_key(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        test: impl Fn(&Key) -> bool,
    ) -> Result<bool, Rejection> {
        let inner = &self.0;
        let begun = inner.begun.load(Ordering::SeqCst);
        let mut held = inner.held();
        if inner.must_be_seen_first(&held) {
            held = inner.fetch_in_turn().await;
        } else if inner.passed(held.fetched_at, inner.cache_for) {
            inner.fetch_in_background();
        }
        match held.judge(algorithm, kid, &test) {
            Verdict::Signed => return Ok(true),
            Verdict::Refused => return Ok(false),
            Verdict::UnknownKey => held = inner.fetch_in_turn().await,
        }
        match held.judge(algorithm, kid, &test) {
            Verdict::Signed => Ok(true),
            Verdict::Refused => Ok(false),
            Verdict::UnknownKey if held.brought_by > begun => Ok(false),
            Verdict::UnknownKey => Err(Rejection::KeysUnavailable { retry_after_secs: inner.next_fetch_secs(&held) }),
        }
    }
}

impl Inner {
    fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether at least `span` has passed since then. A clock that went back counts as a long time.
    fn passed(&self, since: Option<DateTime<Utc>>, span: TimeDelta) -> bool {
        since.is_none_or(|since| {
            let age = self.clock.now() - since;
            age >= span || age < TimeDelta::zero()
        })
    }

    /// Whether keys must be fetched before the request goes on: nothing is held, or there was no request for so long that a
    /// key may have been withdrawn long ago. Keys that are merely old are used while new ones are fetched, and so are those
    /// of a provider that is down.
    fn must_be_seen_first(&self, held: &Held) -> bool {
        let has_failed_since = held.tried_at != held.fetched_at;
        held.fetched_at.is_none() || (!has_failed_since && self.passed(held.fetched_at, self.cache_for * 2))
    }

    /// Seconds until the next fetch may begin.
    fn next_fetch_secs(&self, held: &Held) -> u64 {
        let since = held.tried_at.map_or(TimeDelta::zero(), |tried| self.clock.now() - tried);
        let left = (self.min_refetch - since.max(TimeDelta::zero())).num_milliseconds();
        left.max(0).unsigned_abs().div_ceil(1_000).max(1)
    }

    /// Fetches, or waits for the fetch that is under way. Its result is recent enough, so no second fetch follows.
    async fn fetch_in_turn(self: &Arc<Self>) -> Arc<Held> {
        let turn = Arc::clone(&self.fetching).lock_owned().await;
        if let Some(fetch) = self.fetch(turn)
            && let Err(error) = fetch.await
        {
            tracing::error!(error = error.to_string(), "a fetch of the key set ended early");
        }
        self.held()
    }

    /// Starts a fetch in the background, unless one is under way.
    fn fetch_in_background(self: &Arc<Self>) {
        if let Ok(turn) = Arc::clone(&self.fetching).try_lock_owned() {
            drop(self.fetch(turn));
        }
    }

    /// Starts a fetch; `None` if the last one was too recent. It runs in its own task, so that a client that disconnects
    /// cannot end a fetch that others wait for.
    fn fetch(self: &Arc<Self>, turn: OwnedMutexGuard<()>) -> Option<JoinHandle<()>> {
        let held = self.held();
        if !self.passed(held.tried_at, self.min_refetch) {
            return None;
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let inner = Arc::clone(self);
        Some(tokio::spawn(async move {
            let result = inner.get().await;
            let now = inner.clock.now();
            let new = match result {
                Ok(keys) => held.replaced_by(keys, number, now),
                Err(reason) => {
                    tracing::warn!(error = reason, "cannot fetch the key set at auth.jwks_url");
                    Held { tried_at: Some(now), ..(*held).clone() }
                }
            };
            *inner.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
            drop(turn);
        }))
    }

    async fn get(&self) -> Result<Vec<Published>, String> {
        // The URL stays out of the message: it may contain a secret.
        let failed = |error: reqwest::Error| error.without_url().to_string();
        let mut response = self.client.get(&self.url).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > BYTES_MAX {
                return Err(format!("the key set has more than {BYTES_MAX} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        #[derive(Deserialize)]
        struct KeySet {
            keys: Vec<serde_json::Value>,
        }
        let set: KeySet = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        // RFC 7517, section 5: keys that are not understood are ignored.
        let known = set.keys.into_iter().filter_map(|value| serde_json::from_value::<Jwk>(value).ok());
        let keys: Vec<_> = known.filter_map(|jwk| Published::read(&jwk)).collect();
        // A provider without keys can sign nothing: an empty set is its mistake, and no reason to refuse every token.
        if keys.is_empty() { Err("the key set has no accepted key".to_owned()) } else { Ok(keys) }
    }
}

impl Published {
    /// Returns `None` for a key that is not for signatures, or of a kind that is not accepted. Symmetric keys never are.
    fn read(jwk: &Jwk) -> Option<Self> {
        let family = match &jwk.algorithm {
            // RFC 7518, section 3.3: 2048 bits or more, here in base64url.
            AlgorithmParameters::RSA(rsa) if rsa.n.len() >= 342 => RSA,
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => P256,
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => P384,
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => ED25519,
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
        if !for_signatures || !to_verify {
            return None;
        }
        // A key that names its algorithm is for that algorithm only.
        let algorithms = match common.key_algorithm {
            None => family,
            Some(named) => {
                let place = family.iter().position(|algorithm| named.to_string() == format!("{algorithm:?}"))?;
                &family[place..=place]
            }
        };
        let key = Key { algorithms, key: DecodingKey::from_jwk(jwk).ok()? };
        Some(Self { kid: common.key_id.clone(), key })
    }
}
