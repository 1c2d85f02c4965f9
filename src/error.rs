//! Why a verb failed. How that looks on the wire is defined once, in `http/problem.rs`.

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

/// Maximum number of wrong fields that one answer names. It only counts further ones.
pub const FIELD_ERRORS_MAX: usize = 1_000;

/// Keeps the first `room` errors. If that leaves some out, or `unnamed` more were only counted, a last entry of code
/// `more-errors` says how many.
pub fn cut(errors: &mut Vec<FieldError>, room: usize, unnamed: usize) {
    let more = errors.len().saturating_sub(room) + unnamed;
    errors.truncate(room);
    if more > 0 {
        errors.push(FieldError::new("", "more-errors", format!("{more} more errors are not listed")));
    }
}

/// Returns an error and its causes in one line. A cause that the text already contains is not repeated.
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
    /// Also if it belongs to another tenant, or the caller may not see it: the answers are identical.
    #[error("not found")]
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
    /// The tenant may open no new sessions; open ones may finish.
    #[error("the tenant is suspended")]
    TenantSuspended,
    /// The tenant's quota is used up; nothing was reserved.
    #[error("{0}")]
    QuotaExceeded(String),
    /// The asset's object is not yet where it is served from, or never will be.
    #[error("the asset is {0}")]
    AssetNotReady(&'static str),
    /// The resource is in use by another request, or another request was faster.
    #[error("{0}")]
    Busy(String),
    /// The work of this process was given to another one, because this one did not renew its lease in time.
    #[error("the work was taken over by another process")]
    LeaseLost,
    /// The limit of live readers, or of long polls, is reached: that of the process, of the tenant or of the user.
    #[error("this server, tenant or user has reached its limit of live readers or long polls; try again later")]
    TooManyReaders,
    /// The job is of another version, or was inserted by hand.
    #[error("the job's payload cannot be read: {0}")]
    BadJob(String),
    #[error("the input is not valid")]
    Invalid(Vec<FieldError>),
    /// Either nothing is half done, or the same request continues from the state that is left.
    #[error("the object store did not complete the operation")]
    Storage(#[from] storage::Error),
    /// Under the `dedicated` strategy: the tenant's bucket has not been set yet.
    #[error("the tenant {0} has no bucket of its own")]
    NoBucket(String),
    /// A pass that deletes leaves such a bucket alone.
    #[error("the bucket {bucket} belongs to another deployment, {owner}: its object temp/uploads/.owner says so")]
    ForeignBucket { bucket: String, owner: String },
    #[error("the database did not answer")]
    DbUnavailable(#[source] DbErr),
    /// A constraint that no code should reach: a bug of ours.
    #[error("the database refused a statement")]
    Db(#[source] DbErr),
}

impl Error {
    /// The error for a database that did not answer within the caller's time limit.
    pub fn silent_database() -> Self {
        Self::DbUnavailable(DbErr::Custom("no answer in time".to_owned()))
    }

    /// Returns whether trying again later may help, with nothing changed on the caller's side.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Storage(_) | Self::NoBucket(_) | Self::DbUnavailable(_))
    }

    /// Returns the same outage of the database for another operation that it prevents; `None` for any other error.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::DbUnavailable(cause) => Some(Self::DbUnavailable(cause.clone())),
            _ => None,
        }
    }

    /// Returns the same outage of the database for each of `many` operations that it has prevented together; `None` for any
    /// other error, which may concern one of them alone.
    pub(crate) fn for_each<T>(&self, many: usize) -> Option<Vec<Result<T>>> {
        self.again()?;
        Some((0..many).filter_map(|_| self.again()).map(Err).collect())
    }

    /// Returns the text for an operator, with the store's answer: never a URL, a credential or SQL.
    pub fn explained(&self) -> String {
        match self {
            Self::Storage(cause) => format!("{self}: {cause}"),
            other => other.to_string(),
        }
    }

    /// Returns the same error with its fields' pointers below `place`, such as a file of a batch.
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
