//! Reads segments, into the body of an answer or for a digest.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use s3s::StdError;
use s3s::crypto::{Checksum as _, Md5};
use s3s::stream::{ByteStream, RemainingLength};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::blob::{Blobs, Hold, Segment};
use crate::checksum::{self, Algorithm};

/// Reads of 4 KiB would cost five times the CPU.
const FRAME_BYTES: u64 = 256 * 1024;

/// Returns the segments of the bytes in `range`, counted from the start of the first segment.
pub fn cut(segments: &[Segment], range: Range<u64>) -> Vec<Segment> {
    let mut cut = Vec::new();
    let mut at = 0;
    for segment in segments {
        let from = range.start.max(at);
        let until = range.end.min(at + segment.length);
        if from < until {
            cut.push(Segment { blob: segment.blob, start: segment.start + (from - at), length: until - from });
        }
        at += segment.length;
    }
    cut
}

/// Reads segments in order.
struct Reader {
    blobs: Arc<Blobs>,
    segments: VecDeque<Segment>,
    /// The blob of the first segment, once it is open.
    open: Option<File>,
    /// Keeps the blobs on the disk.
    _hold: Hold,
}

impl Reader {
    fn new(blobs: &Arc<Blobs>, hold: Hold, segments: Vec<Segment>) -> Self {
        Self { blobs: Arc::clone(blobs), segments: segments.into(), open: None, _hold: hold }
    }

    /// Returns the next frame, which is empty at the end. Blocks.
    fn frame(&mut self) -> io::Result<Bytes> {
        let Some(segment) = self.segments.front_mut() else {
            return Ok(Bytes::new());
        };
        let mut file = match self.open.take() {
            Some(file) => file,
            None => {
                let mut file = self.blobs.open_blob(segment.blob)?;
                file.seek(SeekFrom::Start(segment.start))?;
                file
            }
        };
        let wanted = segment.length.min(FRAME_BYTES);
        let mut frame = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
        (&mut file).take(wanted).read_to_end(&mut frame)?;
        if frame.len() as u64 != wanted {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a blob is shorter than its row says"));
        }
        segment.length -= wanted;
        if segment.length == 0 {
            self.segments.pop_front();
        } else {
            self.open = Some(file);
        }
        Ok(frame.into())
    }
}

/// An answer's body. The next frame is read while the previous one is sent, so two are in memory.
pub struct Body {
    next: Option<JoinHandle<io::Result<(Reader, Bytes)>>>,
    remaining: u64,
}

impl Body {
    pub fn new(blobs: &Arc<Blobs>, hold: Hold, segments: Vec<Segment>) -> Self {
        let remaining = segments.iter().map(|segment| segment.length).sum();
        Self { next: Some(read_on(Reader::new(blobs, hold, segments))), remaining }
    }
}

fn read_on(mut reader: Reader) -> JoinHandle<io::Result<(Reader, Bytes)>> {
    spawn_blocking(move || {
        let frame = reader.frame()?;
        Ok((reader, frame))
    })
}

impl Stream for Body {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let outcome = ready!(Pin::new(next).poll(cx));
        self.next = None;
        match outcome.map_err(io::Error::other).flatten() {
            Ok((_, frame)) if frame.is_empty() => Poll::Ready(None),
            Ok((reader, frame)) => {
                self.remaining -= frame.len() as u64;
                if self.remaining > 0 {
                    self.next = Some(read_on(reader));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Err(error) => {
                // The status has already been sent; the only way left is to cut the connection.
                tracing::error!(%error, "cannot read a blob");
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }
}

impl ByteStream for Body {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.remaining).unwrap_or(usize::MAX))
    }
}

/// Returns the MD5 of the segments' bytes, and their checksum if one is requested. Blocks for as long as reading takes.
pub fn digest(
    blobs: &Arc<Blobs>,
    hold: Hold,
    segments: Vec<Segment>,
    algorithm: Option<Algorithm>,
) -> io::Result<([u8; 16], Option<String>)> {
    let mut reader = Reader::new(blobs, hold, segments);
    let mut md5 = Md5::new();
    let mut hasher = algorithm.map(Algorithm::hasher);
    loop {
        let frame = reader.frame()?;
        if frame.is_empty() {
            return Ok((md5.finalize(), hasher.and_then(checksum::digest)));
        }
        md5.update(&frame);
        if let Some(hasher) = &mut hasher {
            hasher.update(&frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BlobId;

    #[test]
    fn a_cut_covers_its_range_and_nothing_else() {
        let blob = BlobId::range(0).0;
        let segments = [
            Segment { blob, start: 100, length: 10 },
            Segment { blob, start: 0, length: 5 },
            Segment { blob, start: 50, length: 10 },
        ];
        assert_eq!(cut(&segments, 0..25), segments);
        assert_eq!(
            cut(&segments, 9..16),
            [
                Segment { blob, start: 109, length: 1 },
                Segment { blob, start: 0, length: 5 },
                Segment { blob, start: 50, length: 1 },
            ]
        );
        assert_eq!(cut(&segments, 15..16), [Segment { blob, start: 50, length: 1 }]);
        assert_eq!(cut(&segments, 25..30), []);
    }
}
