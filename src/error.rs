//! Why a verb did not happen. What that means on the wire is written once, in `http/problem.rs`.

use std::error::Error as StdError;

use entity::upload_session::Status;
use sea_orm::DbErr;

use crate::storage;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A field of the caller's input and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// A JSON pointer (RFC 6901) into the body, or `?name` for a query parameter.
    pub pointer: String,
    /// Stable, for programs: `required`, `out-of-range`, `too-long`, …
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

impl FieldError {
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, detail: detail.into() }
    }
}

/// Fields that one answer names at most; of more it says how many there are. Whoever gets a thousand wrong has other work
/// to do first.
pub const FIELD_ERRORS_MAX: usize = 1_000;

/// Keeps the first `room` errors. If that leaves some out, or `unnamed` more were only counted, a last entry of code
/// `more-errors` says how many.
pub fn cut(errors: &mut Vec<FieldError>, room: usize, unnamed: usize) {
    let more = errors.len().saturating_sub(room) + unnamed;
    errors.truncate(room);
    if more > 0 {
        errors.push(FieldError::new("", "more-errors", format!("{more} more errors are not named")));
    }
}

/// An error and what it came from, in one line. A cause that an error's own text tells already is not said twice.
pub fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Also another tenant's, or one that the caller may not see: nobody can tell these apart.
    #[error("there is no such thing here")]
    NotFound,
    #[error("{0}")]
    PermissionDenied(String),
    /// The session's state, or its kind, does not allow what was asked.
    #[error("{what}")]
    IllegalTransition { status: Status, what: String },
    #[error("the session has expired")]
    SessionExpired,
    /// Complete was called before every byte had arrived. The session stays UPLOADING.
    #[error("the store does not hold the whole file yet")]
    UploadIncomplete { missing_parts: Vec<u32>, uploaded_bytes: u64 },
    #[error("{0}")]
    PartsMismatch(String),
    #[error("{0}")]
    ReferenceConflict(String),
    /// The tenant opens no new sessions; those that run may finish.
    #[error("the tenant is suspended")]
    TenantSuspended,
    /// What the tenant may hold is used up; nothing was reserved.
    #[error("{0}")]
    QuotaExceeded(String),
    /// The asset's object is not where it is served from yet, or never will be.
    #[error("the asset is {0}")]
    AssetNotReady(&'static str),
    /// Somebody else is at it, or was quicker.
    #[error("{0}")]
    Busy(String),
    /// What this process was working on was given to another, which it had not told in time that it lives.
    #[error("the work was taken over by another process")]
    LeaseLost,
    /// As many live readers, or long polls, as one process takes: of all, of the tenant, or of the user.
    #[error("as many wait for live events as this server takes, or as many of this tenant or user as it takes of one")]
    TooManyReaders,
    /// Another version's job, or somebody's own.
    #[error("the job's payload cannot be read: {0}")]
    BadJob(String),
    #[error("the input is not valid")]
    Invalid(Vec<FieldError>),
    /// Nothing half done, or a state from which the same request goes on.
    #[error("the store did not do what it was asked")]
    Storage(#[from] storage::Error),
    /// Under the `dedicated` strategy, a tenant whose bucket nobody has named yet.
    #[error("the tenant {0} has no bucket of its own")]
    NoBucket(String),
    /// A pass that deletes does not touch such a bucket.
    #[error("the bucket {bucket} belongs to another deployment, {owner}: its object temp/uploads/.owner says so")]
    ForeignBucket { bucket: String, owner: String },
    #[error("the database did not answer")]
    DbUnavailable(#[source] DbErr),
    /// A constraint that no code should reach: a bug of ours.
    #[error("the database refused a statement")]
    Db(#[source] DbErr),
}

impl Error {
    /// The database took longer than somebody had time for.
    pub fn silent_database() -> Self {
        Self::DbUnavailable(DbErr::Custom("no answer in time".to_owned()))
    }

    /// Whether trying again later may help, with nothing changed on the caller's side.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Storage(_) | Self::NoBucket(_) | Self::DbUnavailable(_))
    }

    /// The same outage of the database once more, for another one that it keeps from being done; `None` for any other error.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::DbUnavailable(cause) => Some(Self::DbUnavailable(cause.clone())),
            _ => None,
        }
    }

    /// The answers to so many that an outage of the database has kept from being done together; `None` for any other error,
    /// which may be one of theirs alone.
    pub(crate) fn for_each<T>(&self, many: usize) -> Option<Vec<Result<T>>> {
        self.again()?;
        Some((0..many).filter_map(|_| self.again()).map(Err).collect())
    }

    /// The error for an operator, with what the store said: never a URL, a credential or SQL.
    pub fn explained(&self) -> String {
        match self {
            Self::Storage(cause) => format!("{self}: {cause}"),
            other => other.to_string(),
        }
    }

    /// The same error with its fields' pointers below `place`: a file's in a batch.
    pub fn within(self, place: &str) -> Self {
        match self {
            Self::Invalid(fields) => Self::Invalid(
                fields
                    .into_iter()
                    .map(|field| FieldError { pointer: format!("{place}{}", field.pointer), ..field })
                    .collect(),
            ),
            other => other,
        }
    }
}
