//! The parts of a file, and what their ETags say. Pure arithmetic.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

use super::error::Error;
use super::wire::{Session, StoredPart};

/// Bytes `offset..offset + size` of the file. A direct upload is one part, from 0 to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Counted from 1.
    pub number: u32,
    pub offset: u64,
    pub size: u64,
}

/// How a file is cut: all parts but the last have `chunk_size` bytes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    file_size: u64,
    chunk_size: u64,
    pub total: u32,
}

pub type Md5Sum = [u8; 16];

/// What is known of one part that the store holds.
#[derive(Clone, Debug, Default)]
pub struct Held {
    pub etag: Option<String>,
    /// The MD5 of this file's bytes; `None` if they were not read, or if the ETag says nothing about them.
    pub md5: Option<Md5Sum>,
}

impl Plan {
    /// # Errors
    /// [`Error::UnexpectedAnswer`] if the session's parts do not add up to the file.
    pub fn of(session: &Session, file_size: u64) -> Result<Self, Error> {
        let (Some(chunk_size @ 1..), Some(total)) = (session.chunk_size, session.total_parts) else {
            return Err(Error::UnexpectedAnswer("a multipart session without chunk_size and total_parts".into()));
        };
        if u64::from(total) != file_size.div_ceil(chunk_size) {
            return Err(Error::UnexpectedAnswer(format!(
                "{total} parts of {chunk_size} bytes for a file of {file_size}"
            )));
        }
        Ok(Self { file_size, chunk_size, total })
    }

    pub fn parts(self) -> impl Iterator<Item = Part> {
        (1..=self.total).map(move |number| {
            let offset = u64::from(number - 1) * self.chunk_size;
            Part { number, offset, size: self.chunk_size.min(self.file_size - offset) }
        })
    }

    /// Returns the planned parts among those that the store lists. A part of another size does not count.
    pub fn held(self, stored: Vec<StoredPart>) -> BTreeMap<u32, Held> {
        let planned: BTreeMap<u32, u64> = self.parts().map(|part| (part.number, part.size)).collect();
        let whole = stored.into_iter().filter(|part| planned.get(&part.part_number) == Some(&part.size));
        whole.map(|part| (part.part_number, Held { etag: part.etag, md5: None })).collect()
    }

    pub fn missing(self, held: &BTreeMap<u32, Held>) -> Vec<Part> {
        self.parts().filter(|part| !held.contains_key(&part.number)).collect()
    }
}

impl Held {
    /// Whether the ETag is the MD5 of this file's bytes; `None` if it does not tell.
    fn matches(&self) -> Option<bool> {
        Some(md5_form(self.etag.as_deref()?)? == self.md5?)
    }
}

/// Whether this store's ETags are the MD5s of parts, as in S3 for plain and SSE-S3 objects. One match shows it, because
/// another form never matches.
pub fn speaks_md5(held: &BTreeMap<u32, Held>) -> bool {
    held.values().any(|part| part.matches() == Some(true))
}

/// Returns the parts whose bytes differ from the file; none if the store's ETags have another form.
pub fn doubtful(held: &BTreeMap<u32, Held>) -> Vec<u32> {
    if !speaks_md5(held) {
        return Vec::new();
    }
    held.iter().filter(|(_, part)| part.matches() == Some(false)).map(|(&number, _)| number).collect()
}

/// Returns the ETag that S3 gives to the object: the MD5 of the parts' MD5s, and their number. `None` if one is unknown.
pub fn composite_etag(held: &BTreeMap<u32, Held>) -> Option<String> {
    let mut digest = Md5::new();
    for part in held.values() {
        digest.update(md5_form(part.etag.as_deref()?)?);
    }
    Some(format!("{}-{}", hex::encode(digest.finalize()), held.len()))
}

/// Parses an ETag, quoted or not, as an MD5.
pub fn md5_form(etag: &str) -> Option<Md5Sum> {
    let mut sum = Md5Sum::default();
    hex::decode_to_slice(etag.trim_matches('"'), &mut sum).ok()?;
    Some(sum)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn plan(file_size: u64, chunk_size: u64, total: u32) -> Result<Plan, Error> {
        let session = serde_json::json!({ "upload_session_id": "s", "status": "UPLOADING", "upload_type": "multipart",
            "chunk_size": chunk_size, "total_parts": total });
        Plan::of(&serde_json::from_value(session).unwrap(), file_size)
    }

    fn held(etag: &str, bytes: &[u8]) -> Held {
        Held { etag: Some(etag.to_owned()), md5: Some(Md5::digest(bytes).into()) }
    }

    proptest! {
        #[test]
        fn parts_cover_the_file_without_gap_or_overlap(size in 1_u64..1 << 40, total in 1_u64..10_000) {
            let chunk = size.div_ceil(total);
            let plan = plan(size, chunk, size.div_ceil(chunk) as u32).unwrap();
            let mut end = 0;
            for (part, number) in plan.parts().zip(1..) {
                prop_assert_eq!((part.number, part.offset), (number, end));
                prop_assert!(part.size > 0 && part.size <= chunk);
                end += part.size;
            }
            prop_assert_eq!(end, size);
        }
    }

    #[test]
    fn a_plan_that_does_not_add_up_is_refused() {
        assert!(plan(20, 8, 3).is_ok());
        assert!(plan(20, 8, 2).is_err());
        assert!(plan(20, 0, 3).is_err());
    }

    #[test]
    fn only_parts_of_the_planned_size_are_kept() {
        let part = |part_number, size| StoredPart { part_number, etag: None, size };
        let plan = plan(20, 8, 3).unwrap();
        let held = plan.held(vec![part(1, 8), part(2, 7), part(3, 4), part(9, 8)]);
        assert_eq!(held.keys().collect::<Vec<_>>(), [&1, &3]);
        assert_eq!(plan.missing(&held), [Part { number: 2, offset: 8, size: 8 }]);
    }

    #[test]
    fn a_part_is_in_doubt_only_where_the_store_is_seen_to_speak_md5() {
        let (good, other) = ("5d41402abc4b2a76b9719d911017c592", "00000000000000000000000000000000");
        let both = BTreeMap::from([(1, held(good, b"hello")), (2, held(other, b"world"))]);
        assert_eq!(doubtful(&both), [2]);
        let opaque = BTreeMap::from([(1, held(other, b"hello")), (2, held("v2-opaque", b"world"))]);
        assert!(doubtful(&opaque).is_empty() && !speaks_md5(&opaque));
    }

    #[test]
    fn the_composite_etag_is_that_of_s3() {
        // printf hello | md5sum; printf world | md5sum; then the md5sum of both, as bytes.
        let (hello, world) = ("5d41402abc4b2a76b9719d911017c592", "7d793037a0760186574b0282f2f435e7");
        let both = BTreeMap::from([(1, held(hello, b"hello")), (2, held(&format!("\"{world}\""), b"world"))]);
        let expected = Md5::digest(hex::decode(format!("{hello}{world}")).unwrap());
        assert_eq!(composite_etag(&both).unwrap(), format!("{}-2", hex::encode(expected)));
        let unknown = BTreeMap::from([(1, Held::default())]);
        assert_eq!(composite_etag(&unknown), None);
    }
}
