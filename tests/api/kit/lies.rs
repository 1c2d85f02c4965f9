//! A store that lies: one that does not do what it was asked, or answers what is not so any more. Behind each lie is the
//! real store, which the liar reaches by a way of its own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;

use aws_lc_rs::digest;
use aws_sdk_s3::types::MetadataDirective;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::body::Bytes;
use hyper::http::{request, response};
use hyper::{HeaderMap, Response, StatusCode};
use percent_encoding::percent_decode_str;

use super::proxy::Op;

/// One way not to tell the truth. Each is something that a store people use has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lie {
    /// What the store assembles or copies is not there for a HEAD, for as long as the lie lasts.
    StaleHead,
    /// The checksum of a PUT is ignored: any bytes are taken, and no checksum is given back.
    IgnoresChecksum,
    /// What stands at the source is copied, whatever its ETag.
    IgnoresCopyCondition,
    /// A copy has the size of its source, and other bytes.
    CopiesOtherBytes,
    /// A copy has the first half of its source.
    CopiesHalf,
    /// A copy has an ETag that is none of its bytes, as where each object is encrypted by a key of its own.
    CopiesHaveEtagsOfTheirOwn,
    /// The first Complete of each upload is refused: a part is not known.
    InvalidPartOnce,
    /// Each Complete is.
    InvalidPart,
    /// A list of multipart uploads has those whose whole key is the prefix.
    PrefixIsKey,
    /// A DELETE without a version hides the object, whose bytes stay.
    Versioned,
    /// The same, and no version may be deleted.
    VersionedForGood,
    /// The answer to a list is the first one that was given to it.
    OldLists,
}

impl Lie {
    pub const ALL: [Self; 12] = [
        Self::StaleHead,
        Self::IgnoresChecksum,
        Self::IgnoresCopyCondition,
        Self::CopiesOtherBytes,
        Self::CopiesHalf,
        Self::CopiesHaveEtagsOfTheirOwn,
        Self::InvalidPartOnce,
        Self::InvalidPart,
        Self::PrefixIsKey,
        Self::Versioned,
        Self::VersionedForGood,
        Self::OldLists,
    ];

    /// The one that every story of this run is told with, as `QUAYMASTER_TEST_LIE` names it: `Versioned`, for example.
    pub fn of_this_run() -> Option<Self> {
        let name = std::env::var("QUAYMASTER_TEST_LIE").ok()?;
        let named = Self::ALL.into_iter().find(|lie| format!("{lie:?}") == name);
        Some(named.unwrap_or_else(|| panic!("{name} is none of {:?}", Self::ALL)))
    }
}

pub type Answer = Response<Bytes>;
type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a bucket keeps of a key that was deleted.
#[derive(Clone, Copy, Debug)]
struct Hidden {
    has_bytes: bool,
    has_marker: bool,
}

#[derive(Debug, Default)]
struct Told {
    on: HashSet<Lie>,
    /// Paths of what came to be while HEADs are stale.
    unseen: HashSet<String>,
    refused: HashSet<String>,
    /// Paths of copies with ETags of their own.
    renamed: HashSet<String>,
    hidden: BTreeMap<String, Hidden>,
    lists: HashMap<String, (response::Parts, Bytes)>,
}

const OTHER_ETAG: &str = "\"00000000000000000000000000000000\"";

#[derive(Debug)]
pub struct Liar {
    s3: aws_sdk_s3::Client,
    told: Mutex<Told>,
}

/// What a request is about, in path style.
struct Asked<'a> {
    path: &'a str,
    bucket: &'a str,
    key: &'a str,
    query: HashMap<String, String>,
    headers: &'a HeaderMap,
}

impl<'a> Asked<'a> {
    fn of(head: &'a request::Parts) -> Self {
        let path = head.uri.path();
        let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_matches('/'), ""));
        let pairs =
            head.uri.query().unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect();
        Self { path, bucket, key, query, headers: &head.headers }
    }

    fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Bucket and key of what is to be copied.
    fn source(&self) -> (String, String) {
        let source = decoded(self.header("x-amz-copy-source").unwrap_or_default());
        let (bucket, key) = source.trim_start_matches('/').split_once('/').expect("a source has a bucket and a key");
        (bucket.to_owned(), key.to_owned())
    }
}

/// As S3 writes it.
pub fn sha256(bytes: &[u8]) -> String {
    BASE64.encode(digest::digest(&digest::SHA256, bytes))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl Liar {
    pub fn new(s3: aws_sdk_s3::Client) -> Self {
        Self { s3, told: Mutex::default() }
    }

    pub fn begin(&self, lie: Lie) {
        self.told.lock().unwrap().on.insert(lie);
    }

    /// What was hidden is as it was before: nobody can bring it back.
    pub fn end(&self) {
        let mut told = self.told.lock().unwrap();
        let hidden = std::mem::take(&mut told.hidden);
        *told = Told { hidden, ..Told::default() };
    }

    fn tells(&self, lie: Lie) -> bool {
        self.told.lock().unwrap().on.contains(&lie)
    }

    fn keeps_versions(&self) -> bool {
        self.tells(Lie::Versioned) || self.tells(Lie::VersionedForGood)
    }

    /// What is answered in place of the store.
    pub async fn instead(&self, op: Op, head: &request::Parts, body: &Bytes) -> Result<Option<Answer>, Error> {
        let asked = Asked::of(head);
        if self.told.lock().unwrap().hidden.get(asked.path).is_some_and(|hidden| hidden.has_marker)
            && matches!(op, Op::HeadObject | Op::GetObject)
        {
            return Ok(Some(error(404, "NoSuchKey")));
        }
        Ok(match op {
            Op::HeadObject if self.told.lock().unwrap().unseen.contains(asked.path) => Some(error(404, "NoSuchKey")),
            Op::PutObject if self.tells(Lie::IgnoresChecksum) && !asked.query.contains_key("uploadId") => {
                let put = self.s3.put_object().bucket(asked.bucket).key(asked.key).body(body.to_vec().into());
                let put = put.set_content_type(asked.header("content-type").map(str::to_owned)).send().await?;
                Some(Response::builder().header("etag", put.e_tag().unwrap_or_default()).body(Bytes::new())?)
            }
            Op::CopyObject if self.tells(Lie::IgnoresCopyCondition) => Some(self.copy_anyhow(&asked).await?),
            Op::UploadPartCopy if self.tells(Lie::IgnoresCopyCondition) => Some(self.copy_part_anyhow(&asked).await?),
            Op::CopyObject if self.tells(Lie::CopiesOtherBytes) || self.tells(Lie::CopiesHalf) => {
                Some(self.copy_wrongly(&asked).await?)
            }
            Op::CompleteMultipartUpload if self.tells(Lie::InvalidPart) => Some(error(400, "InvalidPart")),
            Op::CompleteMultipartUpload
                if self.tells(Lie::InvalidPartOnce)
                    && self.told.lock().unwrap().refused.insert(asked.path.to_owned()) =>
            {
                Some(error(400, "InvalidPart"))
            }
            Op::DeleteObject if self.keeps_versions() => Some(self.delete(&asked).await?),
            Op::Other if self.keeps_versions() && asked.query.contains_key("delete") => {
                Some(self.delete_many(&asked, body).await)
            }
            Op::Other if self.keeps_versions() && asked.query.contains_key("versions") => Some(self.versions(&asked)),
            _ => None,
        })
    }

    /// What becomes of the store's own answer.
    pub fn bend(&self, op: Op, asked: &request::Parts, head: &mut response::Parts, body: Bytes) -> Bytes {
        let uri = asked.uri.to_string();
        let asked = Asked::of(asked);
        let mut told = self.told.lock().unwrap();
        let makes = matches!(op, Op::CompleteMultipartUpload | Op::CopyObject | Op::PutObject);
        if makes && head.status.is_success() {
            told.hidden.remove(asked.path);
            if told.on.contains(&Lie::StaleHead) && op != Op::PutObject {
                told.unseen.insert(asked.path.to_owned());
            }
        }
        let mut body = body;
        if told.on.contains(&Lie::CopiesHaveEtagsOfTheirOwn) && head.status.is_success() {
            if op == Op::CopyObject {
                told.renamed.insert(asked.path.to_owned());
                let answer = copied_to(Some(OTHER_ETAG));
                head.headers.remove("content-length");
                body = answer.into_body();
            } else if op == Op::HeadObject && told.renamed.contains(asked.path) {
                head.headers.insert("etag", OTHER_ETAG.parse().unwrap());
            }
        }
        if op == Op::HeadObject && told.on.contains(&Lie::IgnoresChecksum) {
            let names: Vec<_> =
                head.headers.keys().filter(|name| name.as_str().contains("checksum")).cloned().collect();
            for name in names {
                head.headers.remove(name);
            }
        }
        let is_list = matches!(op, Op::ListParts | Op::ListMultipartUploads | Op::ListObjects);
        if !is_list || !head.status.is_success() {
            return body;
        }
        if op == Op::ListMultipartUploads && told.on.contains(&Lie::PrefixIsKey) {
            let prefix = asked.query.get("prefix").cloned().unwrap_or_default();
            body = only(head, &body, "Upload", |key| key == prefix);
        }
        if op == Op::ListObjects && !told.hidden.is_empty() {
            let is_seen = |key: &str| !told.hidden.contains_key(&format!("/{}/{key}", asked.bucket));
            body = only(head, &body, "Contents", is_seen);
        }
        if told.on.contains(&Lie::OldLists) {
            let (old_head, old) = told.lists.entry(uri).or_insert_with(|| (head.clone(), body)).clone();
            *head = old_head;
            body = old;
        }
        body
    }

    async fn copy_anyhow(&self, asked: &Asked<'_>) -> Result<Answer, Error> {
        let (bucket, key) = asked.source();
        let copy = self.s3.copy_object().bucket(asked.bucket).key(asked.key).copy_source(format!("{bucket}/{key}"));
        let copy = copy.metadata_directive(MetadataDirective::Replace);
        let copy = copy.set_content_type(asked.header("content-type").map(str::to_owned));
        match copy.send().await {
            Ok(copied) => Ok(copied_to(copied.copy_object_result().and_then(|result| result.e_tag()))),
            Err(_) => Ok(error(404, "NoSuchKey")),
        }
    }

    async fn copy_part_anyhow(&self, asked: &Asked<'_>) -> Result<Answer, Error> {
        let (bucket, key) = asked.source();
        let copy = self.s3.upload_part_copy().bucket(asked.bucket).key(asked.key);
        let copy = copy.copy_source(format!("{bucket}/{key}")).upload_id(&asked.query["uploadId"]);
        let copy = copy.part_number(asked.query["partNumber"].parse()?);
        let range = asked.header("x-amz-copy-source-range").map(str::to_owned);
        match copy.set_copy_source_range(range).send().await {
            Ok(copied) => {
                let etag = copied.copy_part_result().and_then(|result| result.e_tag()).unwrap_or_default();
                Ok(xml(200, format!("<CopyPartResult><ETag>{etag}</ETag></CopyPartResult>")))
            }
            Err(_) => Ok(error(404, "NoSuchKey")),
        }
    }

    async fn copy_wrongly(&self, asked: &Asked<'_>) -> Result<Answer, Error> {
        let (bucket, key) = asked.source();
        let source = self.s3.get_object().bucket(bucket).key(key).send().await?;
        let mut bytes = source.body.collect().await?.to_vec();
        if self.tells(Lie::CopiesHalf) {
            bytes.truncate(bytes.len() / 2);
        } else {
            bytes.iter_mut().for_each(|byte| *byte ^= 1);
        }
        // A store that keeps checksums keeps those of what it has.
        let sum = sha256(&bytes);
        let put = self.s3.put_object().bucket(asked.bucket).key(asked.key).checksum_sha256(sum);
        let put = put.body(bytes.into()).send().await?;
        Ok(copied_to(put.e_tag()))
    }

    async fn delete(&self, asked: &Asked<'_>) -> Result<Answer, Error> {
        let gone = || Response::builder().status(StatusCode::NO_CONTENT);
        let Some(version) = asked.query.get("versionId") else {
            let has_bytes = self.s3.head_object().bucket(asked.bucket).key(asked.key).send().await.is_ok();
            self.told.lock().unwrap().hidden.insert(asked.path.to_owned(), Hidden { has_bytes, has_marker: true });
            let marked = gone().header("x-amz-delete-marker", "true").header("x-amz-version-id", "marker");
            return Ok(marked.body(Bytes::new())?);
        };
        if self.tells(Lie::VersionedForGood) {
            return Ok(error(403, "AccessDenied"));
        }
        if version == "bytes" {
            self.s3.delete_object().bucket(asked.bucket).key(asked.key).send().await?;
        }
        let mut told = self.told.lock().unwrap();
        if let Some(hidden) = told.hidden.get_mut(asked.path) {
            hidden.has_bytes &= version != "bytes";
            hidden.has_marker &= version != "marker";
            if !hidden.has_bytes && !hidden.has_marker {
                told.hidden.remove(asked.path);
            }
        }
        Ok(gone().header("x-amz-version-id", version).body(Bytes::new())?)
    }

    async fn delete_many(&self, asked: &Asked<'_>, body: &Bytes) -> Answer {
        let body = String::from_utf8_lossy(body);
        let mut deleted = String::new();
        for piece in body.split("<Key>").skip(1) {
            let key = piece.split_once("</Key>").expect("each key ends").0;
            let has_bytes = self.s3.head_object().bucket(asked.bucket).key(key).send().await.is_ok();
            let path = format!("/{}/{key}", asked.bucket);
            self.told.lock().unwrap().hidden.insert(path, Hidden { has_bytes, has_marker: true });
            deleted.push_str(&format!("<Deleted><Key>{key}</Key><DeleteMarker>true</DeleteMarker></Deleted>"));
        }
        xml(200, format!("<DeleteResult>{deleted}</DeleteResult>"))
    }

    fn versions(&self, asked: &Asked<'_>) -> Answer {
        let prefix = format!("/{}/{}", asked.bucket, asked.query.get("prefix").map(String::as_str).unwrap_or_default());
        let told = self.told.lock().unwrap();
        let mut entries = String::new();
        for (path, hidden) in told.hidden.iter().filter(|(path, _)| path.starts_with(&prefix)) {
            let key = path.trim_start_matches('/').split_once('/').map(|(_, key)| key).unwrap_or_default();
            let entry = |kind, id| format!("<{kind}><Key>{key}</Key><VersionId>{id}</VersionId></{kind}>");
            if hidden.has_marker {
                entries.push_str(&entry("DeleteMarker", "marker"));
            }
            if hidden.has_bytes {
                entries.push_str(&entry("Version", "bytes"));
            }
        }
        xml(200, format!("<ListVersionsResult><IsTruncated>false</IsTruncated>{entries}</ListVersionsResult>"))
    }
}

/// Of a list's entries those with such a key.
fn only(head: &mut response::Parts, body: &Bytes, tag: &str, keep: impl Fn(&str) -> bool) -> Bytes {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let text = String::from_utf8_lossy(body);
    let mut pieces = text.split(&open);
    let mut kept = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (entry, rest) = piece.split_once(&close).expect("each entry ends");
        let key =
            entry.split_once("<Key>").and_then(|(_, rest)| rest.split_once("</Key>")).map(|(key, _)| decoded(key));
        if key.is_some_and(|key| keep(&key)) {
            kept.push_str(&format!("{open}{entry}{close}"));
        }
        kept.push_str(rest);
    }
    head.headers.remove("content-length");
    kept.into()
}

fn copied_to(etag: Option<&str>) -> Answer {
    let etag = etag.unwrap_or_default();
    let at = "2026-11-21T10:00:00.000Z";
    xml(200, format!("<CopyObjectResult><ETag>{etag}</ETag><LastModified>{at}</LastModified></CopyObjectResult>"))
}

fn error(status: u16, code: &str) -> Answer {
    xml(status, format!("<Error><Code>{code}</Code><Message>a lie</Message></Error>"))
}

fn xml(status: u16, body: String) -> Answer {
    let answer = Response::builder().status(StatusCode::from_u16(status).unwrap());
    answer.header("content-type", "application/xml").body(Bytes::from(body)).unwrap()
}
