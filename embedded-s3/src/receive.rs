//! Writes a request's body to a durable blob, and hashes it on the way.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::StreamingBlob;
use s3s::stream::ByteStream as _;
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, s3_error};
use tokio::task::spawn_blocking;

use crate::blob::{Blobs, NewBlob, Segment};
use crate::checksum::{self, Algorithm};
use crate::fault::Result;

/// Largest body: S3's limit on a PUT and on a part.
const BODY_MAX_BYTES: u64 = 5 * 1024 * 1024 * 1024;

/// Frames are gathered into batches of this many bytes before a thread hashes and writes them.
const BATCH_BYTES: usize = 256 * 1024;

/// A body that has been written durably.
pub struct Received {
    /// `None` for an empty body.
    pub blob: Option<NewBlob>,
    pub size: i64,
    pub md5: [u8; 16],
    /// By the requested algorithm, if there is one.
    pub checksum: Option<String>,
}

impl Received {
    pub fn etag(&self) -> String {
        hex::encode(self.md5)
    }

    pub fn segments(&self) -> Vec<Segment> {
        let whole = |blob: &NewBlob| Segment { blob: blob.id(), start: 0, length: self.size.cast_unsigned() };
        self.blob.iter().map(whole).collect()
    }
}

/// Returns the announced size of the body.
///
/// # Errors
/// MissingContentLength; EntityTooLarge above 5 GiB.
pub fn announced(content_length: Option<i64>, body: Option<&StreamingBlob>) -> S3Result<u64> {
    let by_header = content_length.and_then(|length| u64::try_from(length).ok());
    let by_stream = || body.and_then(|body| body.remaining_length().exact()).map(|length| length as u64);
    match by_header.or_else(by_stream) {
        None => Err(s3_error!(MissingContentLength, "You must provide the Content-Length HTTP header.")),
        Some(length) if length > BODY_MAX_BYTES => {
            Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed object size."))
        }
        Some(length) => Ok(length),
    }
}

/// Writes a body of `length` bytes into a new blob.
///
/// Each batch is hashed and written by a thread of the blocking pool while the next one is gathered,
/// so a slow client holds no thread, and a body of any size takes two batches of memory.
/// The file is removed if this fails, or if the result is dropped.
///
/// # Errors
/// IncompleteBody, and the errors of the stream: a wrong payload hash, a client that stopped sending.
pub async fn receive(
    blobs: &Arc<Blobs>,
    body: Option<StreamingBlob>,
    length: u64,
    algorithm: Option<Algorithm>,
) -> Result<Received> {
    let blobs = Arc::clone(blobs);
    // The file is created inside the blocking thread, and moves together with its guard: a request that is dropped here
    // cannot leave a file behind.
    let new = move || Sink::new(&blobs, length, algorithm);
    let Some(mut body) = body else { return spawn_blocking(move || new()?.finish(length)).await? };
    let first = gather(&mut body).await?;
    if bytes_of(&first) < BATCH_BYTES {
        // This is the whole body: one thread handles it in one go.
        return spawn_blocking(move || new()?.absorb(&first)?.finish(length)).await?;
    }
    let mut work = spawn_blocking(move || new()?.absorb(&first));
    loop {
        let batch = gather(&mut body).await?;
        if batch.is_empty() {
            break;
        }
        let sink = work.await??;
        work = spawn_blocking(move || sink.absorb(&batch));
    }
    let sink = work.await??;
    spawn_blocking(move || sink.finish(length)).await?
}

fn bytes_of(batch: &[Bytes]) -> usize {
    batch.iter().map(Bytes::len).sum()
}

/// Returns the next frames, together one batch: fewer bytes at the end of the body, no frames after it.
async fn gather(body: &mut StreamingBlob) -> S3Result<Vec<Bytes>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES {
        match body.next().await {
            Some(Ok(frame)) if frame.is_empty() => {}
            Some(Ok(frame)) => {
                bytes += frame.len();
                batch.push(frame);
            }
            Some(Err(error)) => return Err(body_error(&error)),
            None => break,
        }
    }
    Ok(batch)
}

/// `s3s` does not export the types of its body errors, so they are recognized by their text.
fn body_error(error: &StdError) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        let why = "The provided 'x-amz-content-sha256' header does not match what was computed.";
        let mut error = S3Error::with_message(S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()), why);
        error.set_status_code(StatusCode::BAD_REQUEST);
        error
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "The signature of a chunk does not match.")
    } else if text.contains(crate::idle::TOO_SLOW) {
        s3_error!(RequestTimeout, "Your socket connection to the server was not read from within the time-out period.")
    } else {
        incomplete()
    }
}

fn incomplete() -> S3Error {
    s3_error!(IncompleteBody, "You did not provide the number of bytes specified by the Content-Length HTTP header.")
}

/// A file, and the hashes of the bytes written to it.
struct Sink {
    file: Option<(NewBlob, File)>,
    size: u64,
    md5: Md5,
    hasher: Option<ChecksumHasher>,
}

impl Sink {
    fn new(blobs: &Blobs, length: u64, algorithm: Option<Algorithm>) -> io::Result<Self> {
        Ok(Self {
            file: if length > 0 { Some(blobs.create()?) } else { None },
            size: 0,
            md5: Md5::new(),
            hasher: algorithm.map(Algorithm::hasher),
        })
    }

    fn absorb(mut self, batch: &[Bytes]) -> io::Result<Self> {
        for frame in batch {
            self.size += frame.len() as u64;
            self.md5.update(frame);
            if let Some(hasher) = &mut self.hasher {
                hasher.update(frame);
            }
            if let Some((_, file)) = &mut self.file {
                file.write_all(frame)?;
            }
        }
        Ok(self)
    }

    /// Syncs the bytes first, then the name: a name without its bytes must not survive a power cut.
    fn finish(self, length: u64) -> Result<Received> {
        if self.size != length {
            return Err(incomplete().into());
        }
        let blob = match self.file {
            Some((blob, file)) => {
                file.sync_all()?;
                blob.sync_name()?;
                Some(blob)
            }
            None => None,
        };
        Ok(Received {
            blob,
            size: self.size.cast_signed(),
            md5: self.md5.finalize(),
            checksum: self.hasher.and_then(checksum::digest),
        })
    }
}
