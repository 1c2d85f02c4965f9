//! Bytes on their way to the store: one PUT of one part, streamed from the file.

use std::collections::HashMap;
use std::io::{self, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use md5::{Digest, Md5};
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap};
use reqwest::{Body, Client, Response};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::api::retry_after;
use super::error::Error;
use super::plan::{Md5Sum, Part};
use super::progress::FileBar;
use super::retry::Retry;
use super::scan::LocalFile;

/// Read and handed on at a time. This, and not the part, is what a PUT in flight holds in memory.
const FRAME_BYTES: usize = 128 * 1024;
/// A PUT of which nothing has moved for so long, up or down, is given up and tried again. A PUT may take as long
/// as it needs while it moves.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// As much as is read of a store's error document.
const ERROR_BYTES: usize = 4 * 1024;

pub struct Store {
    http: Client,
    pub retry: Retry,
}

/// The store has taken a part.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub etag: Option<String>,
    /// Of the bytes sent. `None` where the store encrypts with a key of the customer's: then an ETag may look like
    /// an MD5 and is none (S3 API reference, "ETag" of Object).
    pub md5: Option<Md5Sum>,
}

/// What has been handed to the connection.
#[derive(Default)]
struct Tally {
    bytes: AtomicU64,
    md5: Mutex<Md5>,
}

impl Store {
    pub fn new(http: Client, patience: Duration) -> Self {
        Self { http, retry: Retry::new(patience) }
    }

    /// One attempt. After an error it is unknown whether the store has the part; the same PUT may be sent again.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Network`], [`Error::Stalled`]; [`Error::Changed`] or [`Error::Unreadable`] for
    /// the file.
    pub async fn put(
        &self,
        url: &str,
        headers: &HashMap<String, String>,
        file: &LocalFile,
        part: Part,
        bar: &FileBar,
    ) -> Result<Receipt, Error> {
        let tally = Arc::new(Tally::default());
        let result = self.send(url, headers, file, part, bar, &tally).await;
        if result.is_err() {
            bar.take_back(tally.bytes.load(Ordering::Relaxed));
            // A file that shrank shows as a connection that broke off; what it really is comes first.
            file.must_be(&tokio::fs::metadata(&file.path).await?)?;
        }
        result
    }

    async fn send(
        &self,
        url: &str,
        headers: &HashMap<String, String>,
        file: &LocalFile,
        part: Part,
        bar: &FileBar,
        tally: &Arc<Tally>,
    ) -> Result<Receipt, Error> {
        let mut request = self.http.put(url).header(CONTENT_LENGTH, part.size);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let bytes = read(file, part).await?;
        let (counted, moving) = (Arc::clone(tally), bar.clone());
        let bytes = bytes.inspect_ok(move |frame| {
            counted.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
            counted.md5.lock().unwrap_or_else(PoisonError::into_inner).update(frame);
            moving.add(frame.len() as u64);
        });
        let exchange = async {
            let response = request.body(Body::wrap_stream(bytes)).send().await?;
            if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
        };
        let response = tokio::select! {
            response = exchange => response?,
            () = stalled(tally) => return Err(Error::Stalled(STALLED_AFTER)),
        };
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
        let md5 = tally.md5.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize().into();
        Ok(Receipt {
            etag: etag.map(|etag| etag.trim_matches('"').to_owned()),
            md5: Some(md5).filter(|_| !hides_md5(response.headers())),
        })
    }
}

/// The MD5 of a part as the file has it now.
pub async fn md5_of(file: &LocalFile, part: Part) -> Result<Md5Sum, Error> {
    let md5 = read(file, part).await?.try_fold(Md5::new(), async |md5, frame| Ok(md5.chain_update(frame)));
    Ok(md5.await?.finalize().into())
}

/// The bytes of a part; ends in an error where the file does not hold them all.
async fn read(file: &LocalFile, part: Part) -> Result<impl Stream<Item = io::Result<Bytes>> + use<>, Error> {
    let mut open = File::open(&file.path).await?;
    file.must_be(&open.metadata().await?)?;
    open.seek(SeekFrom::Start(part.offset)).await?;
    open.set_max_buf_size(FRAME_BYTES);
    Ok(ReaderStream::with_capacity(open.take(part.size), FRAME_BYTES))
}

/// Ends when nothing has moved for [`STALLED_AFTER`], give or take a quarter.
async fn stalled(tally: &Tally) {
    let (mut seen, mut still) = (0, 0);
    while still < 4 {
        tokio::time::sleep(STALLED_AFTER / 4).await;
        let moved = tally.bytes.load(Ordering::Relaxed);
        still = if moved == seen { still + 1 } else { 0 };
        seen = moved;
    }
}

fn hides_md5(headers: &HeaderMap) -> bool {
    headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
        || headers.get("x-amz-server-side-encryption").is_some_and(|kind| kind.as_bytes().starts_with(b"aws:"))
}

async fn refusal(mut response: Response) -> Error {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    let mut body = Vec::new();
    // The status says enough where the document breaks off.
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ERROR_BYTES {
            break;
        }
    }
    Error::Store { status, said: said(&String::from_utf8_lossy(&body)), retry_after }
}

/// Code and message of an S3 error document.
fn said(xml: &str) -> String {
    let element = |name: &str| {
        let (_, rest) = xml.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0)
    };
    [element("Code"), element("Message")].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_stores_error_document_is_cut_to_what_it_says() {
        let xml = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message>\
                   <HostId>x</HostId></Error>";
        assert_eq!(said(xml), "AccessDenied, Request has expired");
        assert_eq!(said("<html>nginx</html>"), "");
    }

    #[test]
    fn an_etag_of_an_encrypted_part_is_no_md5() {
        let kind = |value: &str| {
            HeaderMap::from_iter([("x-amz-server-side-encryption".parse().unwrap(), value.parse().unwrap())])
        };
        assert!(hides_md5(&kind("aws:kms")));
        assert!(!hides_md5(&kind("AES256")) && !hides_md5(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn a_part_is_read_from_its_own_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"01234hello89").unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        let mut file = LocalFile { path, name: "file".into(), size: meta.len(), modified: meta.modified().unwrap() };
        let part = Part { number: 2, offset: 5, size: 5 };
        let sum: Md5Sum = Md5::digest(b"hello").into();
        assert_eq!(md5_of(&file, part).await.unwrap(), sum);
        file.size += 1;
        assert!(matches!(md5_of(&file, part).await, Err(Error::Changed)));
    }
}
