//! Divides a file into parts by its size. Pure arithmetic.

use crate::settings::UploadProfile;
use crate::storage::Limits;

/// How a file of a certain size is uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Direct,
    /// `chunk` bytes in every part but the last.
    Multipart {
        chunk: u64,
        parts: u32,
    },
}

/// Returns the size in bytes of the largest file that the profile allows and the store can hold.
pub fn max_file_bytes(profile: &UploadProfile, limits: &Limits) -> u64 {
    let by_parts = limits.max_part_bytes.saturating_mul(u64::from(limits.max_parts));
    profile.max_file_bytes.min(limits.max_object_bytes).min(by_parts)
}

/// Plans a file of `size` bytes; `None` if it is smaller than the profile allows, or larger than [`max_file_bytes`]. An
/// empty file is direct, because an S3 multipart upload has at least one part.
///
/// The chunk is the smallest size that is at least the preferred one and the store's minimum, and keeps the number of parts
/// within the store's maximum (10,000 at S3).
pub fn plan(size: u64, profile: &UploadProfile, limits: &Limits) -> Option<Plan> {
    if size < profile.min_file_bytes || size > max_file_bytes(profile, limits) {
        return None;
    }
    if size <= profile.direct_max_bytes.min(limits.max_direct_bytes) {
        return Some(Plan::Direct);
    }
    let preferred = profile.chunk_bytes.clamp(limits.min_part_bytes, limits.max_part_bytes);
    let chunk = preferred.max(size.div_ceil(u64::from(limits.max_parts)));
    let parts = u32::try_from(size.div_ceil(chunk)).ok()?;
    Some(Plan::Multipart { chunk, parts })
}

/// Returns the offset and length of part `number` (from 1) of a file of `size` bytes in parts of `chunk`.
pub fn part_range(number: u32, size: u64, chunk: u64) -> (u64, u64) {
    let offset = u64::from(number.saturating_sub(1)) * chunk;
    (offset, chunk.min(size.saturating_sub(offset)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const S3: Limits = Limits {
        min_part_bytes: 5 * MIB,
        max_part_bytes: 5 << 30,
        max_parts: 10_000,
        max_object_bytes: 5 << 40,
        max_direct_bytes: 5 << 30,
        max_copy_bytes: 5 << 30,
    };

    fn profile() -> UploadProfile {
        UploadProfile {
            direct_max_bytes: 5 * MIB,
            chunk_bytes: 8 * MIB,
            url_ttl_secs: 900,
            min_file_bytes: 0,
            max_file_bytes: 5 << 40,
        }
    }

    #[test]
    fn the_border_between_direct_and_multipart_belongs_to_direct() {
        assert_eq!(plan(5 * MIB, &profile(), &S3), Some(Plan::Direct));
        assert_eq!(plan(5 * MIB + 1, &profile(), &S3), Some(Plan::Multipart { chunk: 8 * MIB, parts: 1 }));
    }

    #[test]
    fn too_little_and_too_much_are_not_planned() {
        assert_eq!(plan(9, &UploadProfile { min_file_bytes: 10, ..profile() }, &S3), None);
        assert_eq!(plan(10, &UploadProfile { min_file_bytes: 10, ..profile() }, &S3), Some(Plan::Direct));
        assert_eq!(plan(0, &profile(), &S3), Some(Plan::Direct));
        assert_eq!(plan(0, &UploadProfile { direct_max_bytes: 0, ..profile() }, &S3), Some(Plan::Direct));
        assert_eq!(plan((5 << 40) + 1, &profile(), &S3), None);
        assert!(plan(5 << 40, &profile(), &S3).is_some());
    }

    proptest! {
        #[test]
        fn parts_cover_the_file_exactly(size in 5 * MIB + 1..=(5u64 << 40), chunk in 1..(1u64 << 34)) {
            let profile = UploadProfile { chunk_bytes: chunk, ..profile() };
            let Some(Plan::Multipart { chunk, parts }) = plan(size, &profile, &S3) else {
                return Err(TestCaseError::fail("not planned"));
            };
            prop_assert!((S3.min_part_bytes..=S3.max_part_bytes).contains(&chunk));
            prop_assert!((1..=S3.max_parts).contains(&parts));
            let (last_offset, last) = part_range(parts, size, chunk);
            prop_assert!(last >= 1 && last <= chunk);
            prop_assert_eq!(last_offset + last, size);
            prop_assert_eq!(part_range(parts + 1, size, chunk).1, 0);
        }
    }
}
