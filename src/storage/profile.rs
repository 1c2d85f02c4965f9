//! How the stores differ: their endpoints, how a URL names a bucket there, and which sizes they accept.

use url::Url;

use super::error::StartError;
use crate::settings::{self, Provider};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Part numbers go from 1 to this, in the S3 API and so in every compatible store.
pub(super) const PART_NUMBER_MAX: u32 = 10_000;

/// The sizes that a store accepts. All parts of an upload except the last have one size, because R2 requires it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The last part may be smaller.
    pub min_part_bytes: u64,
    pub max_part_bytes: u64,
    pub max_parts: u32,
    pub max_object_bytes: u64,
    /// The largest object that one PUT may send.
    pub max_direct_bytes: u64,
    /// The largest object that one CopyObject, and the largest range that one UploadPartCopy may copy.
    pub max_copy_bytes: u64,
}

/// The limits of Amazon S3 ("Amazon S3 multipart upload limits", user guide, qfacts): parts of 5 MiB to 5 GiB, 10,000
/// of them, and so objects of up to 48.8 TiB; 5 GiB by one PUT ("Uploading objects", user guide).
const S3: Limits = Limits {
    min_part_bytes: 5 * MIB,
    max_part_bytes: 5 * GIB,
    max_parts: PART_NUMBER_MAX,
    max_object_bytes: PART_NUMBER_MAX as u64 * 5 * GIB,
    max_direct_bytes: 5 * GIB,
    max_copy_bytes: 5 * GIB,
};

struct Preset {
    /// `{region}` stands for the region. `None`: the operator must set it.
    endpoint: Option<&'static str>,
    region: Option<&'static str>,
    path_style: bool,
    limits: Limits,
}

fn preset(provider: Provider) -> Preset {
    match provider {
        Provider::Aws => {
            Preset { endpoint: Some("https://s3.{region}.amazonaws.com"), region: None, path_style: false, limits: S3 }
        }
        // developers.cloudflare.com/r2/platform/limits: an object has at most 5 TiB minus 5 GiB, one request (a PUT or a
        // part) at most 5 GiB minus 5 MiB. The region is `auto` (r2/api/s3/api), the endpoint is the account's.
        Provider::R2 => Preset {
            endpoint: None,
            region: Some("auto"),
            path_style: true,
            limits: Limits {
                max_part_bytes: 5 * GIB - 5 * MIB,
                max_object_bytes: 5 * TIB - 5 * GIB,
                max_direct_bytes: 5 * GIB - 5 * MIB,
                max_copy_bytes: 5 * GIB - 5 * MIB,
                ..S3
            },
        },
        // MinIO, "Thresholds and Limits": parts as on S3, 5 TiB by one PUT, and 50 TiB in all, which no 10,000 parts
        // reach.
        Provider::Minio => Preset {
            endpoint: None,
            region: Some("us-east-1"),
            path_style: true,
            limits: Limits { max_direct_bytes: 5 * TIB, ..S3 },
        },
        // Garage states no limits except the S3 API's, and takes its region from its own configuration (`s3_region`, of
        // which this is the default).
        Provider::Garage => Preset { endpoint: None, region: Some("garage"), path_style: true, limits: S3 },
        // Backblaze, "Large Files": parts of 5 MB to 5 GB, files of up to 10 TB, 5 GB by one PUT; all decimal.
        Provider::B2 => Preset {
            endpoint: Some("https://s3.{region}.backblazeb2.com"),
            region: None,
            path_style: false,
            limits: Limits {
                min_part_bytes: 5_000_000,
                max_part_bytes: 5_000_000_000,
                max_parts: PART_NUMBER_MAX,
                max_object_bytes: 10_000_000_000_000,
                max_direct_bytes: 5_000_000_000,
                max_copy_bytes: 5_000_000_000,
            },
        },
        // Ceph's defaults are S3's (`rgw_multipart_min_part_size`, `rgw_max_put_size`,
        // `rgw_multipart_part_upload_limit`). It ignores the region that a signature names.
        Provider::Ceph => Preset { endpoint: None, region: Some("us-east-1"), path_style: true, limits: S3 },
        // DigitalOcean, "Spaces Limits": parts of 5 MiB to 5 GB, 10,000 of them, 5 TB in all, 5 GB by one PUT.
        Provider::Spaces => Preset {
            endpoint: Some("https://{region}.digitaloceanspaces.com"),
            region: None,
            path_style: false,
            limits: Limits {
                max_part_bytes: 5_000_000_000,
                max_object_bytes: 5_000_000_000_000,
                max_direct_bytes: 5_000_000_000,
                max_copy_bytes: 5_000_000_000,
                ..S3
            },
        },
        // Google Cloud, "Quotas & limits" (requests): parts as on S3, objects of 5 TiB, also by one PUT.
        Provider::Gcs => Preset {
            endpoint: Some("https://storage.googleapis.com"),
            region: Some("auto"),
            path_style: true,
            limits: Limits { max_object_bytes: 5 * TIB, max_direct_bytes: 5 * TIB, ..S3 },
        },
        Provider::Embedded => Preset { endpoint: None, region: Some("us-east-1"), path_style: true, limits: S3 },
    }
}

/// A store as the settings and the provider's preset together describe it.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) bucket: String,
    pub(super) region: String,
    /// The endpoint that this server calls.
    pub(super) endpoint: Endpoint,
    /// The endpoint in presigned URLs.
    pub(super) public: Endpoint,
    pub(super) limits: Limits,
}

impl Profile {
    /// Returns the region that the settings or the preset name. `None`: the AWS environment may name it.
    pub(super) fn region(settings: &settings::Storage) -> Option<String> {
        let preset = preset(settings.provider.unwrap_or(Provider::Aws));
        settings.region.clone().or_else(|| preset.region.map(str::to_owned))
    }

    /// # Errors
    /// [`StartError`], naming the setting.
    pub(super) fn new(settings: &settings::Storage, region: String) -> Result<Self, StartError> {
        let provider = settings.provider.unwrap_or(Provider::Aws);
        let preset = preset(provider);
        let endpoint = match (&settings.endpoint, preset.endpoint) {
            (Some(endpoint), _) => endpoint.clone(),
            // The one partition with another host suffix that people outside of it use.
            (None, Some(_)) if provider == Provider::Aws && region.starts_with("cn-") => {
                format!("https://s3.{region}.amazonaws.com.cn")
            }
            (None, Some(template)) => template.replace("{region}", &region),
            (None, None) => return Err(StartError::EndpointMissing(provider)),
        };
        // For an endpoint without a provider, path style is the default: every S3-compatible store understands it, and few
        // have the DNS names for the other style.
        let unnamed = settings.provider.is_none() && settings.endpoint.is_some();
        let path_style = settings.path_style.unwrap_or(preset.path_style || unnamed);
        let endpoint = Endpoint::parse("storage.endpoint", &endpoint, path_style)?;
        let public = match &settings.public_endpoint {
            Some(public) => Endpoint::parse("storage.public_endpoint", public, path_style)?,
            None => endpoint.clone(),
        };
        Ok(Self {
            bucket: settings.bucket.clone().ok_or(StartError::BucketMissing)?,
            region,
            endpoint,
            public,
            limits: limits(settings, preset.limits)?,
        })
    }
}

fn limits(settings: &settings::Storage, preset: Limits) -> Result<Limits, StartError> {
    let limits = Limits {
        min_part_bytes: settings.min_part_bytes.unwrap_or(preset.min_part_bytes),
        max_part_bytes: settings.max_part_bytes.unwrap_or(preset.max_part_bytes),
        max_parts: settings.max_parts.unwrap_or(preset.max_parts),
        max_object_bytes: settings.max_object_bytes.unwrap_or(preset.max_object_bytes),
        max_direct_bytes: preset.max_direct_bytes.min(settings.max_object_bytes.unwrap_or(u64::MAX)),
        max_copy_bytes: settings.max_copy_bytes.unwrap_or(preset.max_copy_bytes),
    };
    if !(1..=PART_NUMBER_MAX).contains(&limits.max_parts) {
        return Err(StartError::Limit { setting: "max_parts", reason: "must be from 1 to 10,000" });
    }
    if limits.max_part_bytes == 0 || limits.max_part_bytes < limits.min_part_bytes {
        return Err(StartError::Limit { setting: "max_part_bytes", reason: "must not be under min_part_bytes" });
    }
    // Larger objects are copied by parts of this size.
    if limits.max_copy_bytes == 0 || limits.max_copy_bytes < limits.min_part_bytes {
        return Err(StartError::Limit { setting: "max_copy_bytes", reason: "must not be under min_part_bytes" });
    }
    Ok(limits)
}

/// An address of a store, split for signing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    scheme: String,
    /// As in the Host header: with a port only if it is not the scheme's default.
    authority: String,
    /// Comes before every path; empty, or with a leading and without a trailing slash.
    prefix: String,
    /// An IP address has no subdomains.
    is_ip: bool,
    path_style: bool,
}

impl Endpoint {
    pub(super) fn parse(setting: &'static str, text: &str, path_style: bool) -> Result<Self, StartError> {
        let wrong = |reason: &str| StartError::Endpoint { setting, reason: reason.to_owned() };
        let url = Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("it must start with http:// or https://"));
        }
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it must have only a host, a port and a path"));
        }
        let host = url.host().ok_or_else(|| wrong("it has no host"))?;
        Ok(Self {
            scheme: url.scheme().to_owned(),
            authority: url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}")),
            prefix: url.path().trim_end_matches('/').to_owned(),
            is_ip: !matches!(host, url::Host::Domain(_)),
            path_style,
        })
    }

    /// Returns the URL for the SDK, which inserts the bucket by the same rule as [`Self::of_bucket`]. It ends with a slash:
    /// after an IP address the SDK joins the bucket to the prefix without adding one.
    pub(super) fn url(&self) -> String {
        format!("{}://{}{}/", self.scheme, self.authority, self.prefix)
    }

    pub(super) fn path_style(&self) -> bool {
        self.path_style
    }

    pub(super) fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the Host header, and the path before a key without the slash between them.
    pub(super) fn of_bucket(&self, bucket: &str) -> (String, String) {
        if self.path_style || self.is_ip || !self.is_label(bucket) {
            (self.authority.clone(), format!("{}/{bucket}", self.prefix))
        } else {
            (format!("{bucket}.{}", self.authority), self.prefix.clone())
        }
    }

    /// Returns whether a host name can begin with this bucket's name. With https it must have no dot, because a wildcard
    /// certificate does not cover one.
    fn is_label(&self, bucket: &str) -> bool {
        (3..=63).contains(&bucket.len())
            && bucket.split('.').all(|label| {
                label.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                    && !label.ends_with('-')
                    && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            })
            && (self.scheme == "http" || !bucket.contains('.'))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub fn settings(provider: Option<Provider>, endpoint: Option<&str>) -> settings::Storage {
        settings::Storage {
            provider,
            bucket: Some("uploads".to_owned()),
            region: None,
            endpoint: endpoint.map(str::to_owned),
            public_endpoint: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            path_style: None,
            provision_strategy: settings::ProvisionStrategy::Shared,
            connect_timeout_secs: 3,
            read_timeout_secs: 30,
            attempt_timeout_secs: 60,
            max_attempts: 3,
            max_parts: None,
            min_part_bytes: None,
            max_part_bytes: None,
            max_object_bytes: None,
            max_copy_bytes: None,
        }
    }

    fn profile(settings: &settings::Storage) -> Result<Profile, StartError> {
        Profile::new(settings, Profile::region(settings).unwrap_or_else(|| "eu-west-1".to_owned()))
    }

    /// Returns the part of a URL before the key.
    fn front(profile: &Profile) -> String {
        let (host, path) = profile.public.of_bucket("uploads");
        format!("{}://{host}{path}/", profile.public.scheme())
    }

    #[test]
    fn each_provider_has_its_addresses_and_region() {
        use Provider::{Aws, B2, Ceph, Embedded, Garage, Gcs, Minio, R2, Spaces};
        for (provider, endpoint, region, urls) in [
            (None, None, None, "https://uploads.s3.eu-west-1.amazonaws.com/"),
            (None, Some("https://s3.example.com"), None, "https://s3.example.com/uploads/"),
            (Some(Aws), None, None, "https://uploads.s3.eu-west-1.amazonaws.com/"),
            (
                Some(R2),
                Some("https://acc.r2.cloudflarestorage.com"),
                Some("auto"),
                "https://acc.r2.cloudflarestorage.com/uploads/",
            ),
            (Some(Minio), Some("http://minio:9000/"), Some("us-east-1"), "http://minio:9000/uploads/"),
            (Some(Garage), Some("http://garage:3900"), Some("garage"), "http://garage:3900/uploads/"),
            (Some(B2), None, None, "https://uploads.s3.eu-west-1.backblazeb2.com/"),
            (Some(Ceph), Some("https://rgw.example.com/x"), Some("us-east-1"), "https://rgw.example.com/x/uploads/"),
            (Some(Spaces), None, None, "https://uploads.eu-west-1.digitaloceanspaces.com/"),
            (Some(Gcs), None, Some("auto"), "https://storage.googleapis.com/uploads/"),
            (Some(Embedded), Some("http://127.0.0.1:9000"), Some("us-east-1"), "http://127.0.0.1:9000/uploads/"),
        ] {
            let settings = settings(provider, endpoint);
            assert_eq!(Profile::region(&settings).as_deref(), region, "{provider:?}");
            assert_eq!(front(&profile(&settings).unwrap()), urls, "{provider:?}");
        }
        let mut beijing = settings(None, None);
        beijing.region = Some("cn-north-1".to_owned());
        assert_eq!(front(&profile(&beijing).unwrap()), "https://uploads.s3.cn-north-1.amazonaws.com.cn/");
    }

    #[test]
    fn settings_go_before_presets() {
        let settings = settings::Storage {
            region: Some("weur".to_owned()),
            path_style: Some(false),
            public_endpoint: Some("https://files.example.com".to_owned()),
            max_parts: Some(1_000),
            min_part_bytes: Some(1),
            max_part_bytes: Some(MIB),
            max_object_bytes: Some(GIB),
            max_copy_bytes: Some(2 * MIB),
            ..settings(Some(Provider::R2), Some("https://acc.r2.cloudflarestorage.com"))
        };
        let profile = profile(&settings).unwrap();
        assert_eq!(profile.region, "weur");
        assert_eq!(front(&profile), "https://uploads.files.example.com/");
        assert_eq!(profile.endpoint.url(), "https://acc.r2.cloudflarestorage.com/");
        let expected = Limits {
            min_part_bytes: 1,
            max_part_bytes: MIB,
            max_parts: 1_000,
            max_object_bytes: GIB,
            max_direct_bytes: GIB,
            max_copy_bytes: 2 * MIB,
        };
        assert_eq!(profile.limits, expected);
    }

    #[test]
    fn settings_that_make_no_store_are_named() {
        let why = |settings: settings::Storage| profile(&settings).unwrap_err().to_string();
        for provider in [Provider::R2, Provider::Minio, Provider::Garage, Provider::Ceph, Provider::Embedded] {
            assert!(why(settings(Some(provider), None)).contains("storage.endpoint"), "{provider:?}");
        }
        assert!(why(settings::Storage { bucket: None, ..settings(None, None) }).contains("storage.bucket"));
        for endpoint in ["s3.example.com", "ftp://x", "https://u:p@x", "https://x/?a=b", "https://x/#a", "http://"] {
            let why = why(settings(None, Some(endpoint)));
            assert!(why.contains("storage.endpoint"), "{endpoint}: {why}");
            assert!(!why.contains("u:p"), "{why}");
        }
        let public = settings::Storage { public_endpoint: Some("x".to_owned()), ..settings(None, None) };
        assert!(why(public).contains("storage.public_endpoint"));
        for max_parts in [0, 10_001] {
            let parts = settings::Storage { max_parts: Some(max_parts), ..settings(None, None) };
            assert!(why(parts).contains("storage.max_parts"));
        }
        let small = settings::Storage { max_part_bytes: Some(MIB), ..settings(None, None) };
        assert!(why(small).contains("storage.max_part_bytes"));
        let small = settings::Storage { max_copy_bytes: Some(MIB), ..settings(None, None) };
        assert!(why(small).contains("storage.max_copy_bytes"));
    }
}
