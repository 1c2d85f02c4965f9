//! The calls that Quaymaster makes to its store.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aws_config::default_provider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{ChecksumMode, CompletedMultipartUpload, CompletedPart, CorsConfiguration, CorsRule};
use aws_smithy_http_client::ConnectorBuilder;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::clock::{StoreClock, utc};
use super::credentials::{CurrentCredential, ForSdk};
use super::error::{Error, ErrorKind, Op, StartError};
use super::key::Location;
use super::presign::{Signer, Site};
use super::profile::{Limits, PART_NUMBER_MAX, Profile};
use crate::settings::{self, Provider, Secret};

/// How long a probe such as [`Storage::ready`] waits: a slow probe counts as failed.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Upper bound of the pause before the first retry; it doubles with each further one, up to [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A part as the store lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// 1 to 10,000.
    pub number: u32,
    /// Without quotes.
    pub etag: String,
    /// In bytes.
    pub size: u64,
}

/// An object as the store reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// In bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    pub last_modified: DateTime<Utc>,
    /// The checksum of the whole object, as the store reports it; only from [`Storage::find_with_checksum`], and only if
    /// the store keeps one.
    pub sha256: Option<[u8; 32]>,
}

/// When bytes of an upload last arrived, and the time of the store's answer. Both are by the store's clock, which may
/// differ from ours; its `Date` has whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// `None` if there is neither a part nor an object.
    pub last: Option<DateTime<Utc>>,
    /// Whether the store knows the upload, or has the object.
    pub is_known: bool,
    pub now: DateTime<Utc>,
}

/// The store. Clones share one connection pool and one credential.
#[derive(Clone, Debug)]
pub struct Storage(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) client: Client,
    credential: Arc<CurrentCredential>,
    site: Arc<Site>,
    bucket: String,
    pub(super) limits: Limits,
    pub(super) timeouts: TimeoutConfig,
    max_attempts: u32,
    /// Whether the store accepts requests that delete many objects; `true` until it has rejected one as invalid.
    pub(super) deletes_many: AtomicBool,
    /// Whether the last copy had its source's ETag; `true` before the first copy. A store may derive an ETag from how an
    /// object was made, or from how it is encrypted.
    pub(super) copies_keep_etags: AtomicBool,
}

/// Returns whether a failed call should be retried. Every call without an exception here is idempotent: two calls have the
/// same effect as one.
const fn is_worth_repeating(op: Op, kind: ErrorKind) -> bool {
    match (op, kind) {
        // After a lost answer, a retry would leave an upload whose id nobody knows.
        (Op::OpenMultipart, _) => false,
        // The store may still be working, and for long. A later call finds the object.
        (Op::CompleteMultipart | Op::Copy, ErrorKind::TimedOut) => false,
        // A probe reports the current state.
        (Op::Ready, _) => false,
        (_, ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::TimedOut) => true,
        (
            _,
            ErrorKind::NotFound | ErrorKind::Refused | ErrorKind::Changed | ErrorKind::Invalid | ErrorKind::Unclear,
        ) => false,
    }
}

impl Storage {
    /// Creates the client. Makes no request, unless the region must be read from the AWS environment; [`Self::ready`]
    /// tests whether the store answers.
    ///
    /// # Errors
    /// [`StartError`] if no client can be created from the settings.
    pub async fn connect(settings: &settings::Storage) -> Result<Self, StartError> {
        let region = match Profile::region(settings) {
            Some(region) => region,
            None => {
                use aws_config::meta::region::ProvideRegion as _;
                let region = default_provider::region::default_provider().region().await;
                region.ok_or(StartError::RegionMissing)?.to_string()
            }
        };
        let profile = Profile::new(settings, region.clone())?;
        let provider = match (&settings.access_key_id, &settings.secret_access_key) {
            (Some(id), Some(secret)) => {
                let token = settings.session_token.as_ref().map(Secret::expose).filter(|token| !token.is_empty());
                SharedCredentialsProvider::new(Credentials::new(
                    id,
                    secret.expose(),
                    token.map(str::to_owned),
                    None,
                    "settings",
                ))
            }
            (None, None) => {
                let chain = default_provider::credentials::DefaultCredentialsChain::builder();
                SharedCredentialsProvider::new(chain.region(Region::new(region)).build().await)
            }
            _ => return Err(StartError::HalfACredential),
        };
        Ok(Self::new(settings, profile, provider))
    }

    fn new(settings: &settings::Storage, profile: Profile, provider: SharedCredentialsProvider) -> Self {
        let credential = Arc::new(CurrentCredential::new(provider));
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(settings.connect_timeout_secs))
            .read_timeout(Duration::from_secs(settings.read_timeout_secs))
            .operation_attempt_timeout(Duration::from_secs(settings.attempt_timeout_secs))
            .build();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(profile.region.clone()))
            .endpoint_url(profile.endpoint.url())
            .force_path_style(profile.endpoint.path_style())
            .credentials_provider(ForSdk(credential.clone()))
            .identity_cache(IdentityCache::no_cache())
            .timeout_config(timeouts.clone())
            // `call` retries, by `is_worth_repeating`.
            .retry_config(RetryConfig::disabled())
            // Stores other than AWS refuse the checksums that the SDK sends by default, and no body here is large enough
            // to stall.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let client = match settings.provider {
            // It has no TLS and needs no certificates: those of the system would take more than a megabyte.
            Some(Provider::Embedded) => client_of(TrustStore::empty(), ProxyConfig::disabled()),
            _ => client_of(TrustStore::default(), ProxyConfig::from_env()),
        };
        let config = config.http_client(AtHome { client, home: Handle::current() }).build();
        Self(Arc::new(Inner {
            client: Client::from_conf(config),
            credential,
            site: Arc::new(Site { endpoint: profile.public, region: profile.region }),
            bucket: profile.bucket,
            limits: profile.limits,
            timeouts,
            max_attempts: settings.max_attempts,
            deletes_many: AtomicBool::new(true),
            copies_keep_etags: AtomicBool::new(true),
        }))
    }

    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Returns the bucket that tenants share.
    pub fn bucket(&self) -> &str {
        &self.0.bucket
    }

    /// Starts a multipart upload and returns its id. Is never retried: if the answer is lost, [`Self::list_uploads`] finds
    /// the id.
    pub async fn open_multipart(&self, at: &Location, content_type: &str) -> Result<String, Error> {
        let op = Op::OpenMultipart;
        // No checksum algorithm: with one, Garage refuses presigned parts.
        let request = || self.0.client.create_multipart_upload().bucket(&at.bucket).key(&at.key);
        let answer = self.call(op, || request().content_type(content_type).send()).await?;
        answer.upload_id.ok_or_else(|| Error::nonsense(op, "an upload without an id"))
    }

    /// Returns all parts that have arrived, in ascending order. A part that arrived twice is listed as it arrived last.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the store does not know the upload: it was never begun, was aborted, or was completed.
    pub async fn list_parts(&self, at: &Location, upload_id: &str) -> Result<Vec<Part>, Error> {
        Ok(self.parts(at, upload_id, &StoreClock::default()).await?.into_iter().map(|(part, _)| part).collect())
    }

    /// Returns when bytes last arrived under this key: the upload's last part, or the object if there is no such upload.
    /// Reads every page of the list of parts.
    pub async fn activity(&self, at: &Location, upload_id: Option<&str>) -> Result<Activity, Error> {
        let clock = StoreClock::default();
        if let Some(upload_id) = upload_id {
            match self.parts(at, upload_id, &clock).await {
                Ok(parts) => {
                    // A part without a date must not count as old.
                    let undated = || Error::nonsense(Op::ListParts, "a part without a date");
                    let arrived: Result<Vec<_>, _> =
                        parts.into_iter().map(|(_, arrived)| arrived.ok_or_else(undated)).collect();
                    let last = arrived?.into_iter().max();
                    return Ok(Activity { last, is_known: true, now: clock.time(Op::ListParts)? });
                }
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let last = match self.look(at, &clock, None).await {
            Ok(object) => Some(object.last_modified),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Activity { last, is_known: last.is_some(), now: clock.time(Op::Head)? })
    }

    /// Returns the parts, each with the time at which it arrived if the store reports it.
    async fn parts(
        &self,
        at: &Location,
        upload_id: &str,
        clock: &StoreClock,
    ) -> Result<Vec<(Part, Option<DateTime<Utc>>)>, Error> {
        let op = Op::ListParts;
        let mut parts: Vec<(Part, Option<DateTime<Utc>>)> = Vec::new();
        loop {
            // Continues after the last part read, not at the store's own marker: a page then brings new parts or an error.
            let marker = parts.last().map(|(part, _)| part.number);
            let request = || self.0.client.list_parts().bucket(&at.bucket).key(&at.key).upload_id(upload_id);
            let page = self
                .call(op, || {
                    let request = request().set_part_number_marker(marker.map(|number| number.to_string()));
                    request.customize().interceptor(clock.clone()).send()
                })
                .await?;
            let is_truncated = page.is_truncated() == Some(true);
            let read = parts.len();
            for part in page.parts.unwrap_or_default() {
                let arrived = part.last_modified.as_ref().and_then(utc);
                let part = part_of(part).ok_or_else(|| Error::nonsense(op, "a part without number, ETag or size"))?;
                if part.number > PART_NUMBER_MAX || parts.last().is_some_and(|(last, _)| last.number >= part.number) {
                    return Err(Error::nonsense(op, "parts out of order or beyond the 10,000th"));
                }
                parts.push((part, arrived));
            }
            if !is_truncated {
                return Ok(parts);
            }
            if parts.len() == read {
                return Err(Error::nonsense(op, "a list of parts without an end"));
            }
        }
    }

    /// Assembles the object from these parts (ascending). This function may retry, and a caller may repeat it after a
    /// failure. If an earlier attempt has completed the upload, some stores answer [`ErrorKind::NotFound`] and others succeed.
    /// So look for the object before treating it as gone.
    pub async fn complete_multipart(&self, at: &Location, upload_id: &str, parts: &[Part]) -> Result<(), Error> {
        let parts = parts
            .iter()
            .map(|part| {
                let number = i32::try_from(part.number).unwrap_or(i32::MAX);
                CompletedPart::builder().part_number(number).e_tag(format!("\"{}\"", part.etag)).build()
            })
            .collect();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = || self.0.client.complete_multipart_upload().bucket(&at.bucket).key(&at.key);
        let timeouts = self.timeouts_for(0);
        let request = || {
            let request = request().upload_id(upload_id).multipart_upload(parts.clone());
            request.customize().config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts.clone()))
        };
        self.call(Op::CompleteMultipart, || request().send()).await.map(drop)
    }

    /// Aborts the upload and removes its parts. Succeeds if the store does not know the upload. A part in flight may
    /// survive: repeat until [`Self::list_parts`] says that the upload is gone.
    pub async fn abort_multipart(&self, at: &Location, upload_id: &str) -> Result<(), Error> {
        let request = || self.0.client.abort_multipart_upload().bucket(&at.bucket).key(&at.key);
        found_or_not(self.call(Op::AbortMultipart, || request().upload_id(upload_id).send()).await)
    }

    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such object, or no such bucket: the answer to a HEAD does not say which.
    /// [`ErrorKind::Refused`] if the credential does not allow it; AWS also answers so for a missing key unless
    /// `s3:ListBucket` is granted.
    pub async fn head(&self, at: &Location) -> Result<Object, Error> {
        self.look(at, &StoreClock::default(), None).await
    }

    /// Like [`Self::head`], but returns `None` for a missing object. `None` proves no more than [`ErrorKind::NotFound`] of
    /// [`Storage::head`], and may be a stale answer: see [`Storage::is_gone`].
    pub async fn find(&self, at: &Location) -> Result<Option<Object>, Error> {
        found(self.head(at).await)
    }

    /// Like [`Self::find`], with the object's checksum if the store keeps one.
    pub async fn find_with_checksum(&self, at: &Location) -> Result<Option<Object>, Error> {
        found(self.look(at, &StoreClock::default(), Some(ChecksumMode::Enabled)).await)
    }

    async fn look(&self, at: &Location, clock: &StoreClock, mode: Option<ChecksumMode>) -> Result<Object, Error> {
        let op = Op::Head;
        let request = || self.0.client.head_object().bucket(&at.bucket).key(&at.key).set_checksum_mode(mode.clone());
        let answer = self.call(op, || request().customize().interceptor(clock.clone()).send()).await?;
        let object = || {
            Some(Object {
                size: u64::try_from(answer.content_length?).ok()?,
                etag: unquoted(answer.e_tag.as_deref()?),
                last_modified: DateTime::from_timestamp(answer.last_modified?.secs(), 0)?,
                sha256: answer.checksum_sha256.as_deref().and_then(sha256_of),
            })
        };
        object().ok_or_else(|| Error::nonsense(op, "an object without size, ETag or date"))
    }

    /// Checks that the store answers for this bucket, with one attempt and within two seconds.
    pub async fn ready(&self, bucket: &str) -> Result<(), Error> {
        self.in_time(Op::Ready, || self.0.client.head_bucket().bucket(bucket).send()).await
    }

    /// Makes a call with a timeout of two seconds.
    pub(super) async fn in_time<T, E, F>(&self, op: Op, attempt: impl Fn() -> F) -> Result<(), Error>
    where
        E: ProvideErrorMetadata + StdError + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        match tokio::time::timeout(READY_TIMEOUT, self.call(op, attempt)).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(Error { op, kind: ErrorKind::TimedOut, code: "no answer in time".to_owned() }),
        }
    }

    /// Creates the bucket unless this account already has it.
    pub async fn create_bucket(&self, bucket: &str) -> Result<(), Error> {
        let made = self.call(Op::CreateBucket, || self.0.client.create_bucket().bucket(bucket).send()).await;
        match made {
            Err(error) if error.code == "BucketAlreadyOwnedByYou" => Ok(()),
            other => other.map(drop),
        }
    }

    /// Allows web pages of exactly these origins to write to and read from the bucket. Exposes `ETag`, which a client needs
    /// for its list of parts.
    pub async fn set_cors(&self, bucket: &str, origins: &[String]) -> Result<(), Error> {
        if origins.is_empty() {
            let request = || self.0.client.delete_bucket_cors().bucket(bucket);
            return self.call(Op::SetCors, || request().send()).await.map(drop);
        }
        let rule = CorsRule::builder()
            .set_allowed_origins(Some(origins.to_vec()))
            .set_allowed_methods(Some(["GET", "HEAD", "PUT"].map(str::to_owned).to_vec()))
            .allowed_headers("*")
            .expose_headers("ETag")
            .max_age_seconds(3_600);
        let rules = rule.build().and_then(|rule| CorsConfiguration::builder().cors_rules(rule).build());
        let rules = rules.expect("a rule with methods and origins is whole");
        let request = || self.0.client.put_bucket_cors().bucket(bucket);
        self.call(Op::SetCors, || request().cors_configuration(rules.clone()).send()).await.map(drop)
    }

    /// Returns a signer with the current credential, for the URLs of one request.
    ///
    /// # Errors
    /// [`Op::Credentials`] if there is no credential to sign with.
    pub async fn signer(&self) -> Result<Signer, Error> {
        Ok(Signer::new(self.0.site.clone(), self.0.credential.get().await?))
    }

    pub(super) async fn call<T, E, F>(&self, op: Op, attempt: impl Fn() -> F) -> Result<T, Error>
    where
        E: ProvideErrorMetadata + StdError + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let mut attempts = 0;
        loop {
            // The SDK takes the same credential, but would report a missing one as a broken connection.
            self.0.credential.get().await?;
            let error = match Box::pin(attempt()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => Error::from_sdk(op, error),
            };
            attempts += 1;
            if attempts >= self.0.max_attempts || !is_worth_repeating(op, error.kind) {
                return Err(error);
            }
            tracing::debug!(%error, attempts, "retrying a call to the store");
            tokio::time::sleep(backoff(attempts)).await;
        }
    }
}

/// Builds what the SDK's default client is, with this trust store and these proxies.
fn client_of(trusted: TrustStore, proxies: ProxyConfig) -> SharedHttpClient {
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.expect("there is no certificate that could be wrong");
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.set_proxy_config(Some(proxies.clone()));
        connector.build()
    })
}

/// A client whose connections run on the threads of one runtime, whichever runtime calls it. A busy thread would otherwise
/// hold up all callers that share a connection which it has made.
#[derive(Debug)]
struct AtHome<C> {
    client: C,
    home: Handle,
}

impl HttpClient for AtHome<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let client = self.client.http_connector(settings, components);
        SharedHttpConnector::new(AtHome { client, home: self.home.clone() })
    }
}

impl HttpConnector for AtHome<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let call = AbortOnDropHandle::new(self.home.spawn(self.client.call(request)));
        HttpConnectorFuture::new(async {
            call.await.unwrap_or_else(|ended| Err(ConnectorError::other(ended.into(), None)))
        })
    }
}

/// Returns the pause after this many failed attempts: a random time from zero to a bound that doubles each time ("full
/// jitter"), so that callers that failed together do not retry together.
fn backoff(attempts: u32) -> Duration {
    let bound = BACKOFF.saturating_mul(1 << (attempts - 1).min(16)).min(BACKOFF_MAX);
    bound.mul_f64(fastrand::f64())
}

fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Decodes a checksum. `None` also for that of an object in parts (`…-N`), which is computed over the parts' checksums.
fn sha256_of(base64: &str) -> Option<[u8; 32]> {
    BASE64.decode(base64).ok()?.try_into().ok()
}

fn found_or_not<T>(answer: Result<T, Error>) -> Result<(), Error> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn part_of(part: aws_sdk_s3::types::Part) -> Option<Part> {
    Some(Part {
        number: u32::try_from(part.part_number?).ok().filter(|number| *number > 0)?,
        etag: unquoted(part.e_tag.as_deref()?),
        size: u64::try_from(part.size?).ok()?,
    })
}

pub(super) fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::{ProvideCredentials, future};

    use super::*;
    use crate::storage::profile;

    #[test]
    fn pauses_are_jittered_and_bounded() {
        for attempts in 1..40 {
            let bound = (BACKOFF * 2_u32.pow((attempts - 1).min(20))).min(BACKOFF_MAX);
            let pauses: Vec<_> = (0..50).map(|_| backoff(attempts)).collect();
            assert!(pauses.iter().all(|pause| *pause <= bound), "after {attempts}");
            assert!(pauses.iter().any(|pause| *pause < bound / 2), "after {attempts}");
            assert!(pauses.iter().any(|pause| *pause > bound / 2), "after {attempts}");
        }
    }

    #[derive(Debug)]
    struct Without;

    impl ProvideCredentials for Without {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("nothing here")))
        }
    }

    #[tokio::test]
    async fn a_call_without_a_credential_says_so() {
        let settings = profile::tests::settings(Some(Provider::Garage), Some("http://127.0.0.1:1"));
        let profile = Profile::new(&settings, "garage".to_owned()).unwrap();
        let storage = Storage::new(&settings, profile, SharedCredentialsProvider::new(Without));
        let error = storage.ready("uploads").await.unwrap_err();
        assert_eq!((error.op, error.kind, error.code.as_str()), (Op::Credentials, ErrorKind::Refused, "nothing here"));
        assert_eq!(storage.signer().await.err().unwrap().op, Op::Credentials);
    }

    #[tokio::test]
    async fn half_a_credential_is_a_mistake() {
        let mut settings = profile::tests::settings(Some(Provider::Garage), Some("http://127.0.0.1:1"));
        settings.access_key_id = Some("GK".to_owned());
        assert!(matches!(Storage::connect(&settings).await, Err(StartError::HalfACredential)));
    }
}
