use chrono::{DateTime, Utc};
use entity::SessionId;
use entity::upload_session::UploadType;
use tracing::instrument;

use super::activity::{must_be_uploading, refusal};
use super::initiate::url_ttl;
use super::plan::part_range;
use super::{Session, find, location};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Attempt, Error, FIELD_ERRORS_MAX, Field, Result};
use crate::input::Wrong;
use crate::storage::PartSigner;

/// The URL to which one part is uploaded.
#[derive(Clone, Debug)]
pub struct PartUrl {
    pub part_number: u32,
    pub upload_url: String,
    /// The part's first byte in the file.
    pub offset: u64,
    /// The part's size in bytes; the URL accepts no other size.
    pub size: u64,
}

/// The URLs of many parts, in the requested order. Each is signed when it is taken, because ten thousand are some megabytes.
pub struct PartUrls {
    pub multipart_upload_id: String,
    pub expires_at: DateTime<Utc>,
    signer: PartSigner,
    numbers: std::vec::IntoIter<u32>,
    /// In bytes, like `chunk_size`, the size of each part but the last.
    file_size: u64,
    chunk_size: u64,
}

impl Iterator for PartUrls {
    type Item = PartUrl;

    fn next(&mut self) -> Option<PartUrl> {
        let part_number = self.numbers.next()?;
        let (offset, size) = part_range(part_number, self.file_size, self.chunk_size);
        Some(PartUrl { part_number, upload_url: self.signer.url(part_number, size), offset, size })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.numbers.size_hint()
    }
}

/// Returns one part's URL, and when it expires. No side effect.
///
/// # Errors
/// As [`part_urls`].
#[instrument(name = "session.part_url", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn part_url(
    engine: &Engine,
    caller: &Caller,
    id: SessionId,
    number: i64,
) -> Result<(PartUrl, DateTime<Utc>)> {
    let mut urls = sign(engine, caller, id, |session| {
        Ok(vec![in_range(session, number).map_err(|wrong| Error::wrong(Field::PartNumber, wrong))?])
    })
    .await?;
    let part = urls.next().ok_or(Error::NotFound)?;
    Ok((part, urls.expires_at))
}

/// The parts that a caller asks for.
#[derive(Clone, Debug)]
pub enum Wanted {
    These(Vec<i64>),
    /// Inclusive.
    Range {
        from: i64,
        to: i64,
    },
}

/// Returns the URLs of many parts, in the requested order. No side effect.
///
/// # Errors
/// [`Error::IllegalTransition`] if the session is not UPLOADING, or is direct; [`Error::SessionExpired`] if it has expired;
/// [`Error::Invalid`] for numbers outside 1 to `total_parts`, or a range that ends before it begins.
#[instrument(name = "session.part_urls", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn part_urls(engine: &Engine, caller: &Caller, id: SessionId, wanted: Wanted) -> Result<PartUrls> {
    sign(engine, caller, id, |session| match wanted {
        Wanted::Range { from, to } => {
            let first = in_range(session, from).map_err(|wrong| Error::wrong(Field::FirstPart, wrong))?;
            let last = in_range(session, to).map_err(|wrong| Error::wrong(Field::LastPart, wrong))?;
            if first > last {
                return Err(Error::wrong(Field::LastPart, Wrong::EmptyRange));
            }
            Ok((first..=last).collect())
        }
        Wanted::These(numbers) => {
            let mut parts = Vec::with_capacity(numbers.len());
            let mut wrong = Vec::new();
            for (index, number) in numbers.into_iter().enumerate() {
                match in_range(session, number) {
                    Ok(part) => parts.push(part),
                    Err(reason) => wrong.push((Field::PartNumbers(index), reason)),
                }
            }
            if let Some(more) = wrong.len().checked_sub(FIELD_ERRORS_MAX).filter(|more| *more > 0) {
                wrong.truncate(FIELD_ERRORS_MAX);
                wrong.push((Field::Whole, Wrong::MoreErrors { more }));
            }
            if wrong.is_empty() { Ok(parts) } else { Err(Error::Invalid(wrong)) }
        }
    })
    .await
}

async fn sign(
    engine: &Engine,
    caller: &Caller,
    id: SessionId,
    wanted: impl FnOnce(&Session) -> Result<Vec<u32>>,
) -> Result<PartUrls> {
    let session = find(engine, caller, id).await?;
    must_be_uploading(engine, &session, Attempt::SignParts)?;
    let (UploadType::Multipart, Some(upload_id), Some(chunk)) =
        (session.upload_type, &session.multipart_upload_id, session.chunk_size)
    else {
        return Err(refusal(&session, Attempt::SignPartsOfDirect));
    };
    let numbers = wanted(&session)?;
    let ttl = url_ttl(engine, &session).ok_or(Error::SessionExpired)?;
    let signer = engine.storage.signer().await?.parts(&location(&session), upload_id, ttl);
    Ok(PartUrls {
        multipart_upload_id: upload_id.clone(),
        expires_at: signer.expires_at(),
        signer,
        numbers: numbers.into_iter(),
        file_size: session.file_size.unsigned_abs(),
        chunk_size: chunk.unsigned_abs(),
    })
}

fn in_range(session: &Session, number: i64) -> Result<u32, Wrong> {
    let total = session.total_parts.unwrap_or(0);
    if (1..=i64::from(total)).contains(&number)
        && let Ok(number) = u32::try_from(number)
    {
        return Ok(number);
    }
    Err(Wrong::NoSuchPart { total })
}
