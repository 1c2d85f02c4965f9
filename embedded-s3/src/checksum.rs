//! Checksums that clients send with their data, in addition to the MD5 that makes an ETag.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crc_fast::CrcAlgorithm;
use http::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::dto::{ChecksumAlgorithm, ChecksumType};
use s3s::{S3Result, s3_error};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

pub const ALL: [Algorithm; 5] =
    [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Sha1, Algorithm::Sha256];

impl Algorithm {
    pub fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Crc32 => ChecksumAlgorithm::CRC32,
            Self::Crc32c => ChecksumAlgorithm::CRC32C,
            Self::Crc64Nvme => ChecksumAlgorithm::CRC64NVME,
            Self::Sha1 => ChecksumAlgorithm::SHA1,
            Self::Sha256 => ChecksumAlgorithm::SHA256,
        }
    }

    pub fn dto(self) -> ChecksumAlgorithm {
        ChecksumAlgorithm::from_static(self.name())
    }

    pub fn parse(asked: &ChecksumAlgorithm) -> S3Result<Self> {
        ALL.into_iter()
            .find(|algorithm| asked.as_str().eq_ignore_ascii_case(algorithm.name()))
            .ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported."))
    }

    /// The CRC of this algorithm, if it is one: the CRC of a whole can be computed from those of its parts.
    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    pub fn hasher(self) -> ChecksumHasher {
        let mut hasher = ChecksumHasher::default();
        match self {
            Self::Crc32 => hasher.crc32 = Some(Crc32::new()),
            Self::Crc32c => hasher.crc32c = Some(Crc32c::new()),
            Self::Crc64Nvme => hasher.crc64nvme = Some(Crc64Nvme::new()),
            Self::Sha1 => hasher.sha1 = Some(Sha1::new()),
            Self::Sha256 => hasher.sha256 = Some(Sha256::new()),
        }
        hasher
    }
}

/// The digest of a hasher with one algorithm, in base64.
pub fn digest(hasher: ChecksumHasher) -> Option<String> {
    let sum = hasher.finalize();
    sum.checksum_crc32.or(sum.checksum_crc32c).or(sum.checksum_crc64nvme).or(sum.checksum_sha1).or(sum.checksum_sha256)
}

/// Whether a checksum covers the bytes of the object, or the checksums of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    FullObject,
    Composite,
}

impl Kind {
    pub fn dto(self) -> ChecksumType {
        ChecksumType::from_static(match self {
            Self::FullObject => ChecksumType::FULL_OBJECT,
            Self::Composite => ChecksumType::COMPOSITE,
        })
    }
}

/// A checksum as it is stored and sent: base64, followed by `-N` (the number of parts) if it is composite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    pub algorithm: Algorithm,
    pub value: String,
    pub kind: Kind,
}

/// The kind of checksum that a multipart upload was created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub algorithm: Algorithm,
    pub kind: Kind,
}

impl Plan {
    /// # Errors
    /// InvalidRequest for an unknown algorithm or type, a type without an algorithm, or a combination that S3 does not
    /// support: SHA of a full object, CRC-64 of parts.
    pub fn parse(algorithm: Option<&ChecksumAlgorithm>, kind: Option<&ChecksumType>) -> S3Result<Option<Self>> {
        let Some(algorithm) = algorithm.map(Algorithm::parse).transpose()? else {
            return match kind {
                Some(_) => Err(s3_error!(InvalidRequest, "A checksum type requires a checksum algorithm.")),
                None => Ok(None),
            };
        };
        let kind = match kind.map(ChecksumType::as_str) {
            None if algorithm == Algorithm::Crc64Nvme => Kind::FullObject,
            None | Some(ChecksumType::COMPOSITE) => Kind::Composite,
            Some(ChecksumType::FULL_OBJECT) => Kind::FullObject,
            Some(_) => {
                return Err(s3_error!(InvalidRequest, "The checksum type must be COMPOSITE or FULL_OBJECT."));
            }
        };
        match (algorithm, kind) {
            (Algorithm::Crc64Nvme, Kind::Composite) | (Algorithm::Sha1 | Algorithm::Sha256, Kind::FullObject) => {
                Err(s3_error!(InvalidRequest, "The checksum algorithm cannot be used with this checksum type."))
            }
            _ => Ok(Some(Self { algorithm, kind })),
        }
    }

    /// Computes the checksum of the whole from the checksums and sizes of its parts, in order.
    /// `None` if a part has no checksum by this algorithm.
    pub fn assemble<'a>(self, parts: impl Iterator<Item = (Option<&'a Checksum>, i64)>) -> Option<Checksum> {
        let mut values = Vec::new();
        for (checksum, size) in parts {
            let checksum = checksum.filter(|checksum| checksum.algorithm == self.algorithm)?;
            values.push((BASE64_STANDARD.decode(&checksum.value).ok()?, size.cast_unsigned()));
        }
        let value = match self.kind {
            Kind::Composite => {
                let mut hasher = self.algorithm.hasher();
                values.iter().for_each(|(value, _)| hasher.update(value));
                format!("{}-{}", digest(hasher)?, values.len())
            }
            Kind::FullObject => {
                let crc = self.algorithm.crc()?;
                let width = values.first()?.0.len();
                let whole = values.iter().fold(0, |sum, (value, size)| {
                    let value = value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                    crc_fast::checksum_combine(crc, sum, value, *size)
                });
                BASE64_STANDARD.encode(&whole.to_be_bytes()[8 - width..])
            }
        };
        Some(Checksum { algorithm: self.algorithm, value, kind: self.kind })
    }
}

/// The digests that a request announces for its body.
pub struct Expected {
    pub md5: Option<[u8; 16]>,
    pub algorithm: Option<Algorithm>,
    /// `None` if the value comes in the trailer, or if only the algorithm was named.
    pub value: Option<String>,
    pub in_trailer: bool,
}

impl Expected {
    /// `asked` is an algorithm named without a value, by the request or by its upload; SDKs name theirs in a header.
    ///
    /// # Errors
    /// InvalidDigest for a malformed Content-MD5; InvalidRequest for two checksums, an unknown algorithm or a malformed
    /// value.
    pub fn parse(
        headers: &HeaderMap,
        md5: Option<&str>,
        given: Option<(Algorithm, String)>,
        asked: Option<&ChecksumAlgorithm>,
    ) -> S3Result<Self> {
        let md5 = md5.map(|md5| BASE64_STANDARD.decode(md5).ok().and_then(|md5| md5.try_into().ok()));
        if md5 == Some(None) {
            return Err(s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid."));
        }
        let trailer = headers.get("x-amz-trailer").and_then(|names| names.to_str().ok()).unwrap_or_default();
        let trailing = ALL
            .into_iter()
            .find(|algorithm| trailer.split(',').any(|name| name.trim().eq_ignore_ascii_case(algorithm.header())));
        if trailing.is_some() && given.is_some() {
            return Err(s3_error!(InvalidRequest, "Expecting a single x-amz-checksum- header."));
        }
        let (algorithm, value) = match given {
            Some((algorithm, value)) => (Some(algorithm), Some(value)),
            None => (trailing, None),
        };
        let by_sdk = headers.get("x-amz-sdk-checksum-algorithm").and_then(|name| name.to_str().ok());
        let by_sdk = by_sdk.map(|name| ChecksumAlgorithm::from(name.to_owned()));
        let algorithm = match algorithm {
            Some(algorithm) => Some(algorithm),
            None => asked.or(by_sdk.as_ref()).map(Algorithm::parse).transpose()?,
        };
        if let (Some(algorithm), Some(value)) = (algorithm, &value) {
            check_form(algorithm, value)?;
        }
        Ok(Self { md5: md5.flatten(), algorithm, value, in_trailer: trailing.is_some() })
    }

    /// Compares the announced digests with those of the received bytes.
    ///
    /// # Errors
    /// BadDigest; InvalidRequest if the announced trailer is missing.
    pub fn check(&self, md5: [u8; 16], computed: Option<&str>, trailers: Option<&HeaderMap>) -> S3Result<()> {
        if self.md5.is_some_and(|expected| expected != md5) {
            return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
        }
        let Some(algorithm) = self.algorithm else { return Ok(()) };
        let trailing =
            trailers.and_then(|trailers| trailers.get(algorithm.header())).and_then(|value| value.to_str().ok());
        if self.in_trailer && trailing.is_none() {
            return Err(s3_error!(InvalidRequest, "The trailer announced in x-amz-trailer is missing."));
        }
        match self.value.as_deref().or(trailing) {
            Some(expected) if Some(expected) != computed => Err(s3_error!(
                BadDigest,
                "The {} you specified did not match the calculated checksum.",
                algorithm.name()
            )),
            _ => Ok(()),
        }
    }
}

/// # Errors
/// InvalidRequest unless `value` is base64 of as many bytes as the algorithm yields.
fn check_form(algorithm: Algorithm, value: &str) -> S3Result<()> {
    let bytes = match algorithm {
        Algorithm::Crc32 | Algorithm::Crc32c => 4,
        Algorithm::Crc64Nvme => 8,
        Algorithm::Sha1 => 20,
        Algorithm::Sha256 => 32,
    };
    match BASE64_STANDARD.decode(value) {
        Ok(decoded) if decoded.len() == bytes => Ok(()),
        _ => Err(s3_error!(InvalidRequest, "Value for {} header is invalid.", algorithm.header())),
    }
}

/// Takes the one checksum from the five fields of a request or of a listed part.
macro_rules! given {
    ($from:expr) => {{
        use $crate::checksum::Algorithm::*;
        $crate::checksum::only([
            (Crc32, $from.checksum_crc32.take()),
            (Crc32c, $from.checksum_crc32c.take()),
            (Crc64Nvme, $from.checksum_crc64nvme.take()),
            (Sha1, $from.checksum_sha1.take()),
            (Sha256, $from.checksum_sha256.take()),
        ])
    }};
}

/// Puts a checksum into the field of an answer for its algorithm.
macro_rules! put {
    ($checksum:expr => $into:expr) => {
        if let Some(checksum) = $checksum {
            let value = Some(checksum.value.clone());
            match checksum.algorithm {
                $crate::checksum::Algorithm::Crc32 => $into.checksum_crc32 = value,
                $crate::checksum::Algorithm::Crc32c => $into.checksum_crc32c = value,
                $crate::checksum::Algorithm::Crc64Nvme => $into.checksum_crc64nvme = value,
                $crate::checksum::Algorithm::Sha1 => $into.checksum_sha1 = value,
                $crate::checksum::Algorithm::Sha256 => $into.checksum_sha256 = value,
            }
        }
    };
}

pub(crate) use {given, put};

/// # Errors
/// InvalidRequest if there is more than one.
pub fn only(given: [(Algorithm, Option<String>); 5]) -> S3Result<Option<(Algorithm, String)>> {
    let mut given = given.into_iter().filter_map(|(algorithm, value)| Some((algorithm, value?)));
    let first = given.next();
    match given.next() {
        Some(_) => Err(s3_error!(InvalidRequest, "Expecting a single x-amz-checksum- header.")),
        None => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(algorithm: Algorithm, data: &[u8]) -> Checksum {
        let mut hasher = algorithm.hasher();
        hasher.update(data);
        Checksum { algorithm, value: digest(hasher).expect("one algorithm"), kind: Kind::FullObject }
    }

    #[test]
    fn the_crc_of_the_whole_follows_from_its_parts() {
        let (a, b, c) = (vec![7_u8; 100_003], b"in between".to_vec(), vec![0_u8; 4096]);
        let whole = [a.clone(), b.clone(), c.clone()].concat();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts: Vec<_> =
                [&a, &b, &c].into_iter().map(|part| (sum(algorithm, part), part.len() as i64)).collect();
            let plan = Plan { algorithm, kind: Kind::FullObject };
            let joined = plan.assemble(parts.iter().map(|(sum, size)| (Some(sum), *size)));
            assert_eq!(joined, Some(sum(algorithm, &whole)), "{algorithm:?}");
        }
    }

    #[test]
    fn a_part_without_its_checksum_leaves_the_whole_without_one() {
        let plan = Plan { algorithm: Algorithm::Sha256, kind: Kind::Composite };
        let good = sum(Algorithm::Sha256, b"x");
        let other = sum(Algorithm::Crc32, b"x");
        assert!(plan.assemble([(Some(&good), 1)].into_iter()).is_some_and(|sum| sum.value.ends_with("-1")));
        assert_eq!(plan.assemble([(Some(&good), 1), (None, 1)].into_iter()), None);
        assert_eq!(plan.assemble([(Some(&good), 1), (Some(&other), 1)].into_iter()), None);
    }
}
