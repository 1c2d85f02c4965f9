//! Why a verb failed. How that looks on the wire is defined once, in `http/problem.rs`.

use std::error::Error as StdError;

use entity::asset;
use entity::upload_session::Status;
use sea_orm::DbErr;

use crate::input::Wrong;
use crate::storage;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A field of a verb's input. Each door says where it stands in its own documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    BrandId,
    /// The bucket of a tenant.
    Bucket,
    ClientReference,
    /// How long a URL is to be valid.
    ExpiresIn,
    FileSize,
    /// The first day of a span.
    FirstDay,
    /// The first part of a range.
    FirstPart,
    LastPart,
    /// The only part that is wanted.
    PartNumber,
    /// One of several parts that are wanted, by its index.
    PartNumbers(usize),
    Tenant,
    /// No single field.
    Whole,
}

/// What a caller may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The token lacks the permission of this name.
    #[error("the token does not grant {0}")]
    Permission(&'static str),
    #[error("the token's tenant is unknown to this server")]
    UnknownTenant,
    #[error("the token does not hold this brand")]
    Brand,
    #[error("the token does not hold every brand of the tenant")]
    EveryBrand,
}

/// What a caller has asked of a session whose state does not allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Touch,
    SignParts,
    /// Sign the parts of a session that has none.
    SignPartsOfDirect,
    Complete,
    Fail,
    Receipt,
}

/// How a client's list of parts differs from the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("the list names {named} parts, the store holds {held}")]
    Count { named: usize, held: usize },
    #[error("the list and the store disagree on part {0}")]
    Part(i64),
}

/// Why a reference or an idempotency key does not lead to one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error("the reference and the idempotency key belong to different sessions")]
    TwoSessions,
    #[error("the reference or idempotency key was used for a file with a different name, size, type or checksum")]
    AnotherFile,
}

/// What of a tenant's is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    LiveSessions,
    Bytes,
}

/// What another request has in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    #[error("the job is running")]
    RunningJob,
    #[error("another job for the same work is in the queue")]
    QueuedWork,
}

/// Maximum number of wrong fields that one answer names. It only counts further ones.
pub const FIELD_ERRORS_MAX: usize = 1_000;

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
    #[error(transparent)]
    PermissionDenied(Denied),
    /// The session's state, or its kind, does not allow what was asked.
    #[error("{}", refusal(*.status, *.attempt))]
    IllegalTransition { status: Status, attempt: Attempt },
    #[error("the session has expired")]
    SessionExpired,
    /// Complete was called before every byte had arrived. The session stays UPLOADING.
    #[error("the store does not hold the whole file yet")]
    UploadIncomplete { missing_parts: Vec<u32>, uploaded_bytes: u64 },
    #[error(transparent)]
    PartsMismatch(Mismatch),
    #[error(transparent)]
    ReferenceConflict(Conflict),
    /// The tenant may open no new sessions; open ones may finish.
    #[error("the tenant is suspended")]
    TenantSuspended,
    /// The tenant's quota is used up; nothing was reserved. With `wanted` more the tenant would hold more than `limit`, which
    /// is `None` for the greatest number that can be counted.
    #[error("{}", over_quota(*.of, *.limit, *.held, *.wanted))]
    QuotaExceeded { of: Quota, limit: Option<i64>, held: i64, wanted: i64 },
    /// The asset's object is not yet where it is served from, or never will be.
    #[error("the asset is {}", .0.name())]
    AssetNotReady(asset::Status),
    /// The resource is in use by another request, or another request was faster.
    #[error(transparent)]
    Busy(Busy),
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
    Invalid(Vec<(Field, Wrong)>),
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
    pub(crate) fn repeated(&self) -> Option<Self> {
        match self {
            Self::DbUnavailable(cause) => Some(Self::DbUnavailable(cause.clone())),
            _ => None,
        }
    }

    /// Returns the same outage of the database for each of `many` operations that it has prevented together; `None` for any
    /// other error, which may concern one of them alone.
    pub(crate) fn for_each<T>(&self, many: usize) -> Option<Vec<Result<T>>> {
        self.repeated()?;
        Some((0..many).filter_map(|_| self.repeated()).map(Err).collect())
    }

    /// Returns the text for an operator, with the store's answer: never a URL, a credential or SQL.
    pub fn explained(&self) -> String {
        match self {
            Self::Storage(cause) => format!("{self}: {cause}"),
            other => other.to_string(),
        }
    }

    /// The error for one wrong field.
    pub(crate) fn wrong(field: Field, wrong: Wrong) -> Self {
        Self::Invalid(vec![(field, wrong)])
    }
}

fn refusal(status: Status, attempt: Attempt) -> String {
    let status = status.name();
    match attempt {
        Attempt::Touch => format!("cannot record activity on a session that is {status}"),
        Attempt::SignParts => format!("cannot sign parts of a session that is {status}"),
        Attempt::SignPartsOfDirect => format!("a direct session that is {status} has no parts"),
        Attempt::Complete => format!("cannot complete a session that is {status}"),
        Attempt::Fail => format!("cannot fail a session that is {status}"),
        Attempt::Receipt => {
            format!("only a COMPLETED, FAILED or CANCELLED session has a receipt; this one is {status}")
        }
    }
}

fn over_quota(of: Quota, limit: Option<i64>, held: i64, wanted: i64) -> String {
    match (of, limit) {
        (_, None) => "the tenant would hold more than can be counted".to_owned(),
        (Quota::LiveSessions, Some(limit)) => format!("the tenant has {held} of {limit} live sessions"),
        (Quota::Bytes, Some(limit)) => {
            format!("the tenant holds {held} of {limit} bytes; the file is {wanted} bytes")
        }
    }
}
