//! Where an object lies. A client's file name is never part of it.

use entity::SessionId;

/// The quarantine: every upload arrives under it, nothing in it is ever served.
pub const UPLOADS: &str = "temp/uploads/";

/// A bucket and a key in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub bucket: String,
    pub key: String,
}

impl Location {
    /// Where a session's bytes arrive: `temp/uploads/{session id}/original`. The id alone decides it, so that an
    /// effect whose record was lost can be found again. An immutable contract with bucket policies and lifecycle rules.
    pub fn upload(bucket: &str, session: SessionId) -> Self {
        Self {
            bucket: bucket.to_owned(),
            key: format!("{UPLOADS}{session}/original"),
        }
    }
}
