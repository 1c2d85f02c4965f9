//! Sends bytes to the store: one PUT of one part, streamed from the file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use md5::{Digest, Md5};
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap};
use reqwest::{Body, Client, Response};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::api::retry_after;
use super::error::Error;
use super::plan::{Md5Sum, Part};
use super::progress::FileBar;
use super::retry::Retry;
use super::scan::LocalFile;

/// Bytes that are read, hashed and handed on at a time. A PUT in flight holds three of these frames in memory, not the whole
/// part: one is sent, one waits, one is read.
const FRAME_BYTES: usize = 256 * 1024;
/// A PUT that sends no bytes and gets no answer for this long is aborted and retried. A PUT that makes progress may take as
/// long as it needs.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Sent with a PUT whose URL is signed for it. A store that has compared the bytes with it repeats it in its answer.
pub const CHECKSUM: &str = "x-amz-checksum-sha256";
/// Maximum bytes that are read of a store's error document.
const ERROR_BYTES: usize = 4 * 1024;

pub struct Store {
    http: Client,
    pub retry: Retry,
    /// Whether the last answer to a PUT with a SHA-256 repeated it. Then an MD5 would only prove the same again.
    compares: AtomicBool,
}

/// The store has taken a part.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub etag: Option<String>,
    /// The MD5 of the bytes sent. `None` if the store has compared their SHA-256, or if it encrypts with a customer key or a
    /// KMS key: then an ETag may look like an MD5 without being one (S3 API reference, "ETag" of Object).
    pub md5: Option<Md5Sum>,
}

/// Bytes that have been handed to the connection.
type Tally = AtomicU64;

impl Store {
    pub fn new(http: Client, patience: Duration) -> Self {
        Self { http, retry: Retry::new(patience), compares: AtomicBool::new(false) }
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
            bar.take_back(tally.load(Ordering::Relaxed));
            // A file that shrank looks like a broken connection; report the change instead.
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
        let checksum = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(CHECKSUM)).map(|(_, value)| value);
        let md5 = (checksum.is_none() || !self.compares.load(Ordering::Relaxed)).then(Md5::new);
        let needless = md5.is_none();
        let (frames, waiting) = mpsc::channel(1);
        let frames_of = read(file, part)?;
        // In parallel with the sending: an MD5 takes longer than copying the bytes into a socket.
        let reading = spawn_blocking(move || frames_of.hand_over(&frames, md5));
        let (counted, moving) = (Arc::clone(tally), bar.clone());
        let bytes = stream::unfold(waiting, async |mut waiting| Some((waiting.recv().await?, waiting)));
        let bytes = bytes.inspect(move |frame: &io::Result<Bytes>| {
            if let Ok(frame) = frame {
                counted.fetch_add(frame.len() as u64, Ordering::Relaxed);
                moving.add(frame.len() as u64);
            }
        });
        let exchange = async {
            let response = request.body(Body::wrap_stream(bytes)).send().await?;
            if !response.status().is_success() {
                return Err(refusal(response).await);
            }
            Ok((response, reading.await.expect("reading does not panic")))
        };
        let (response, mut md5) = tokio::select! {
            answered = exchange => answered?,
            () = stalled(tally) => return Err(Error::Stalled(STALLED_AFTER)),
        };
        if let Some(checksum) = checksum {
            let compared = response.headers().get(CHECKSUM).is_some_and(|said| said.as_bytes() == checksum.as_bytes());
            self.compares.store(compared, Ordering::Relaxed);
            if needless && !compared {
                md5 = Some(md5_of(file, part).await?);
            }
        }
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
        Ok(Receipt {
            etag: etag.map(|etag| etag.trim_matches('"').to_owned()),
            md5: md5.filter(|_| !hides_md5(response.headers())),
        })
    }
}

/// Returns the MD5 of a part as the file has it now.
pub async fn md5_of(file: &LocalFile, part: Part) -> Result<Md5Sum, Error> {
    let frames = read(file, part)?;
    let hashing = spawn_blocking(move || {
        frames.into_iter().try_fold(Md5::new(), |md5, frame| io::Result::Ok(md5.chain_update(frame?)))
    });
    Ok(hashing.await.expect("reading does not panic")?.finalize().into())
}

/// The bytes of a part, frame by frame; ends early if the file does not hold them all.
struct Frames(io::Take<File>);

fn read(file: &LocalFile, part: Part) -> Result<Frames, Error> {
    let mut open = File::open(&file.path)?;
    file.must_be(&open.metadata()?)?;
    open.seek(SeekFrom::Start(part.offset))?;
    Ok(Frames(open.take(part.size)))
}

impl Iterator for Frames {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let most = self.0.limit().min(FRAME_BYTES as u64);
        let mut frame = Vec::with_capacity(most as usize);
        match self.0.by_ref().take(most).read_to_end(&mut frame) {
            Ok(0) => None,
            Ok(_) => Some(Ok(frame.into())),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Frames {
    /// Hands the frames over as the receiver takes them, and returns their MD5 if `md5` is given. Returns `None` if the
    /// receiver is gone, or if the file cannot be read; the receiver then gets the error.
    fn hand_over(self, receiver: &mpsc::Sender<io::Result<Bytes>>, mut md5: Option<Md5>) -> Option<Md5Sum> {
        for frame in self {
            if let (Some(md5), Ok(frame)) = (&mut md5, &frame) {
                md5.update(frame);
            }
            let read = frame.is_ok();
            if receiver.blocking_send(frame).is_err() || !read {
                return None;
            }
        }
        md5.map(|md5| md5.finalize().into())
    }
}

/// Returns when no bytes were sent for [`STALLED_AFTER`], give or take a quarter.
async fn stalled(tally: &Tally) {
    let (mut seen, mut still) = (0, 0);
    while still < 4 {
        tokio::time::sleep(STALLED_AFTER / 4).await;
        let moved = tally.load(Ordering::Relaxed);
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
    // If the document breaks off, the status says enough.
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ERROR_BYTES {
            break;
        }
    }
    Error::Store { status, said: said(&String::from_utf8_lossy(&body)), retry_after }
}

/// Returns code and message of an S3 error document.
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

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::cli::push::progress::Progress;

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

    fn local_file(bytes: &[u8]) -> (tempfile::TempDir, LocalFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        let file = LocalFile { path, name: "file".into(), size: meta.len(), modified: meta.modified().unwrap() };
        (folder, file)
    }

    /// A store that takes one body a connection, and answers with these headers.
    async fn answering(listener: &TcpListener, headers: &str) {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"hello") {
            read.push(socket.read_u8().await.unwrap());
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n");
        socket.write_all(answer.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn an_md5_is_needless_where_the_store_compares_the_sha256() {
        let (_folder, file) = local_file(b"hello");
        let (store, part) = (Store::new(Client::new(), STALLED_AFTER), Part { number: 1, offset: 0, size: 5 });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let bar = Progress::new(true, 1, 5).start("file", 5);
        let (checked, plain) = (HashMap::from([(CHECKSUM.to_owned(), "c3Vt".to_owned())]), HashMap::new());
        let repeats = "x-amz-checksum-sha256: c3Vt\r\n";
        // Before the first answer nothing is known; the last but one shows that the store no longer compares.
        for (headers, answer, proved) in [
            (&checked, repeats, true),
            (&checked, repeats, false),
            (&plain, "", true),
            (&checked, repeats, false),
            (&checked, "", true),
            (&checked, repeats, true),
        ] {
            let sent = store.put(&url, headers, &file, part, &bar);
            let (receipt, ()) = tokio::join!(sent, answering(&listener, answer));
            let md5 = proved.then(|| Md5::digest(b"hello").into());
            assert_eq!(receipt.unwrap().md5, md5, "{headers:?} {answer:?}");
        }
    }

    #[tokio::test]
    async fn a_part_is_read_from_its_own_place() {
        let (_folder, mut file) = local_file(b"01234hello89");
        let part = Part { number: 2, offset: 5, size: 5 };
        let sum: Md5Sum = Md5::digest(b"hello").into();
        assert_eq!(md5_of(&file, part).await.unwrap(), sum);
        file.size += 1;
        assert!(matches!(md5_of(&file, part).await, Err(Error::Changed)));
    }
}
