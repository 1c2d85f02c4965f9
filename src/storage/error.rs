//! What can go wrong with a store, sorted by what a caller can do about it.

use std::fmt;

/// The S3 call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    OpenMultipart,
    ListUploads,
    ListParts,
    CompleteMultipart,
    AbortMultipart,
    Head,
    Delete,
    Ready,
    Credentials,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No such upload or object. An answer, not a failure, for most callers.
    NotFound,
    /// The credential or a policy does not allow it.
    Refused,
    /// Asked to slow down.
    Throttled,
    /// 5xx, or no connection.
    Unavailable,
    /// No answer in time: the effect may have happened.
    TimedOut,
    /// The store did not accept the request as it was (4xx).
    Invalid,
}

/// A failed S3 call. Its text names the operation, the kind and the store's own error code; never a URL, a credential
/// or a header.
#[derive(Debug)]
pub struct Error {
    pub op: Op,
    pub kind: Kind,
    /// The store's error code, such as `InvalidPart`, or a short cause.
    pub code: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} failed: {:?} ({})", self.op, self.kind, self.code)
    }
}

impl std::error::Error for Error {}
