//! The current credential. Both the calls and the signer take it from here, so that they change it together.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Mutex;

use super::error::{Error, ErrorKind, Op};
use super::presign::Identity;

/// A credential that expires within this time is nearly expired: the next one is requested, while the old one still
/// signs. As long as presigned URLs are commonly valid, so that they are seldom cut short.
const NEARLY_EXPIRED: TimeDelta = TimeDelta::minutes(15);
/// A credential that expires within this time signs nothing more: its URLs would expire on the way.
const SPENT: TimeDelta = TimeDelta::seconds(10);
/// How long to keep a nearly expired credential before the next request: a metadata service hands out the next one only
/// some minutes before the expiry.
const ASK_AGAIN: TimeDelta = TimeDelta::seconds(60);
/// How long a caller waits for a credential, including the wait for other callers that request one.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct CurrentCredential {
    provider: SharedCredentialsProvider,
    held: RwLock<Option<Held>>,
    /// Only one caller asks the provider at a time.
    asking: Mutex<()>,
    load_timeout: Duration,
}

#[derive(Clone, Debug)]
struct Held {
    identity: Arc<Identity>,
    asked_at: DateTime<Utc>,
}

impl Held {
    fn lives(&self, span: TimeDelta, now: DateTime<Utc>) -> bool {
        self.identity.expires_at().is_none_or(|end| end - now > span)
    }

    fn is_usable(&self, now: DateTime<Utc>) -> bool {
        self.lives(SPENT, now)
    }

    fn is_fresh(&self, now: DateTime<Utc>) -> bool {
        self.lives(NEARLY_EXPIRED, now) || (self.is_usable(now) && now - self.asked_at < ASK_AGAIN)
    }
}

impl CurrentCredential {
    pub(super) fn new(provider: SharedCredentialsProvider) -> Self {
        Self { provider, held: RwLock::new(None), asking: Mutex::new(()), load_timeout: LOAD_TIMEOUT }
    }

    /// Returns the credential to sign with now. Takes only a read lock, unless it is time for the next credential.
    ///
    /// # Errors
    /// [`Op::Credentials`], only if the old credential is not usable either.
    pub(super) async fn get(&self) -> Result<Arc<Identity>, Error> {
        let now = Utc::now();
        let held = self.held();
        match held {
            Some(held) if held.is_fresh(now) => return Ok(held.identity),
            _ => {}
        }
        tokio::time::timeout(self.load_timeout, self.renew(now))
            .await
            .unwrap_or_else(|_| self.keep_or(now, &CredentialsError::provider_timed_out(self.load_timeout)))
    }

    async fn renew(&self, now: DateTime<Utc>) -> Result<Arc<Identity>, Error> {
        let _asking = match (self.asking.try_lock(), self.held()) {
            (Ok(guard), _) => guard,
            (Err(_), Some(held)) if held.is_usable(now) => return Ok(held.identity),
            (Err(_), _) => self.asking.lock().await,
        };
        // The previous holder of the lock may have loaded a new one.
        match self.held() {
            Some(held) if held.is_fresh(now) => return Ok(held.identity),
            _ => {}
        }
        match self.provider.provide_credentials().await {
            Ok(credentials) => {
                let identity = Arc::new(Identity::new(credentials));
                let held = Held { identity: identity.clone(), asked_at: now };
                if !held.is_usable(now) {
                    let code = "the provider handed out an expired credential".to_owned();
                    return Err(Error { op: Op::Credentials, kind: ErrorKind::Refused, code });
                }
                self.hold(held);
                Ok(identity)
            }
            Err(error) => self.keep_or(now, &error),
        }
    }

    /// Returns the old credential for a while longer if it is usable; otherwise the error.
    fn keep_or(&self, now: DateTime<Utc>, error: &CredentialsError) -> Result<Arc<Identity>, Error> {
        let error = Error::from_credentials(error);
        match self.held() {
            Some(held) if held.is_usable(now) => {
                tracing::warn!(%error, "no new credential; the old one stays in use");
                let identity = held.identity.clone();
                self.hold(Held { asked_at: now, ..held });
                Ok(identity)
            }
            _ => Err(error),
        }
    }

    fn held(&self) -> Option<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, held: Held) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }
}

/// The provider that the SDK asks before each attempt; the SDK's own cache is off.
#[derive(Clone, Debug)]
pub(super) struct ForSdk(pub(super) Arc<CurrentCredential>);

impl ProvideCredentials for ForSdk {
    fn provide_credentials<'a>(&'a self) -> provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        provider::future::ProvideCredentials::new(async {
            let identity = self.0.get().await.map_err(CredentialsError::provider_error)?;
            Ok::<Credentials, _>(identity.credentials().clone())
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::SystemTime;

    use super::*;
    use crate::storage::key::Location;
    use crate::storage::presign::{Signer, Site};
    use crate::storage::profile::Endpoint;

    /// Hands out the given answers one after the other; the last one for ever.
    #[derive(Debug)]
    struct Fake {
        answers: Vec<Result<Credentials, &'static str>>,
        asked: Arc<AtomicUsize>,
    }

    impl ProvideCredentials for Fake {
        fn provide_credentials<'a>(&'a self) -> provider::future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            provider::future::ProvideCredentials::new(async {
                let n = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
                tokio::task::yield_now().await;
                self.answers[n].clone().map_err(CredentialsError::provider_error)
            })
        }
    }

    fn key(id: &str, lives_secs: u64) -> Credentials {
        let end = SystemTime::now() + Duration::from_secs(lives_secs);
        Credentials::new(id, "secret", Some("token".to_owned()), Some(end), "fake")
    }

    fn current(answers: Vec<Result<Credentials, &'static str>>) -> (CurrentCredential, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let fake = Fake { answers, asked: asked.clone() };
        (CurrentCredential::new(SharedCredentialsProvider::new(fake)), asked)
    }

    impl CurrentCredential {
        async fn key_id(&self) -> String {
            self.get().await.unwrap().credentials().access_key_id().to_owned()
        }

        /// Makes the last request to the provider older by `span`.
        fn age(&self, span: TimeDelta) {
            let held = self.held().unwrap();
            self.hold(Held { asked_at: held.asked_at - span, ..held });
        }
    }

    #[tokio::test]
    async fn a_long_lived_credential_is_asked_for_once() {
        let (current, asked) = current(vec![Ok(key("a", 3600))]);
        for _ in 0..3 {
            assert_eq!(current.key_id().await, "a");
        }
        current.age(TimeDelta::hours(1));
        assert_eq!(current.key_id().await, "a");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_nearly_expired_credential_is_replaced_before_it_signs() {
        let (current, asked) = current(vec![Ok(key("old", 120)), Ok(key("new", 3600))]);
        assert_eq!(current.key_id().await, "old");
        assert_eq!(current.key_id().await, "old", "not asked again within the minute");
        current.age(ASK_AGAIN);
        assert_eq!(current.key_id().await, "new");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_spent_credential_is_replaced_at_once() {
        let (current, _) = current(vec![Ok(key("old", 60)), Ok(key("new", 3600))]);
        assert_eq!(current.key_id().await, "old");
        let spent = Held { identity: Arc::new(Identity::new(key("old", 5))), asked_at: Utc::now() };
        current.hold(spent);
        assert_eq!(current.key_id().await, "new");
    }

    #[tokio::test]
    async fn the_old_credential_signs_on_while_the_provider_is_down() {
        let (current, asked) = current(vec![Ok(key("old", 120)), Err("down")]);
        assert_eq!(current.key_id().await, "old");
        current.age(ASK_AGAIN);
        assert_eq!(current.key_id().await, "old");
        assert_eq!(current.key_id().await, "old");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "a failure is not repeated within the minute");
    }

    #[tokio::test]
    async fn without_a_usable_credential_the_failure_shows() {
        let (failing, _) = current(vec![Err("down")]);
        let error = failing.get().await.unwrap_err();
        assert_eq!((error.op, error.kind), (Op::Credentials, ErrorKind::Unavailable));
        let (expired, _) = current(vec![Ok(key("old", 1))]);
        assert_eq!(expired.get().await.unwrap_err().kind, ErrorKind::Refused);
    }

    #[tokio::test]
    async fn many_callers_ask_once() {
        let (current, asked) = current(vec![Ok(key("a", 3600))]);
        let ids = futures_util::future::join_all((0..50).map(|_| current.key_id())).await;
        assert!(ids.iter().all(|id| id == "a"));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_provider_that_hangs_is_given_up_on() {
        #[derive(Debug)]
        struct Hangs;
        impl ProvideCredentials for Hangs {
            fn provide_credentials<'a>(&'a self) -> provider::future::ProvideCredentials<'a>
            where
                Self: 'a,
            {
                provider::future::ProvideCredentials::new(std::future::pending())
            }
        }
        let mut current = CurrentCredential::new(SharedCredentialsProvider::new(Hangs));
        current.load_timeout = Duration::from_millis(20);
        assert_eq!(current.get().await.unwrap_err().kind, ErrorKind::TimedOut);
    }

    /// A URL carries the credential that was current when its signer was made, and expires no later than it.
    #[tokio::test]
    async fn urls_follow_a_rotation_and_never_outlive_their_credential() {
        let (current, _) = current(vec![Ok(key("OLD", 120)), Ok(key("NEW", 3600))]);
        let endpoint = Endpoint::parse("", "https://s3.example.com", true).unwrap();
        let site = Arc::new(Site { endpoint, region: "auto".to_owned() });
        let at = Location { bucket: "uploads".to_owned(), key: "k".to_owned() };
        let ttl = Duration::from_secs(900);

        let old = Signer::new(site.clone(), current.get().await.unwrap());
        current.age(ASK_AGAIN);
        let new = Signer::new(site, current.get().await.unwrap());
        let end = DateTime::<Utc>::from(key("", 120).expiry().unwrap());
        for (signer, id, longest) in [(&old, "OLD", end), (&new, "NEW", Utc::now() + ttl)] {
            let mut parts = signer.parts(&at, "upload", ttl);
            let part_urls = [parts.url(1, 1), parts.url(2, 1)];
            let (put, get) = (signer.put_object(&at, 1, "text/plain", None, ttl), signer.get_object(&at, ttl));
            let urls = part_urls.iter().map(|url| (url, parts.expires_at()));
            for (url, expires_at) in urls.chain([(&put.url, put.expires_at), (&get.url, get.expires_at)]) {
                assert!(url.contains(&format!("X-Amz-Credential={id}%2F")), "{url}");
                assert!(url.contains("X-Amz-Security-Token=token&"), "{url}");
                assert!(expires_at <= longest && expires_at > longest - TimeDelta::seconds(5), "{id}: {expires_at}");
            }
        }
    }
}
