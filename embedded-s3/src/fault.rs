//! Why a request failed: a refusal that the client may read, or a failure of the store that belongs in the log.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::io;

use http::StatusCode;
use s3s::{S3Error, S3ErrorCode, s3_error};
use tokio::task::JoinError;

use crate::sqlite::{self, Trouble};

/// The result of every verb.
pub type Result<T> = std::result::Result<T, Fault>;

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A refusal that the client may read.
    #[error(transparent)]
    Refused(S3Error),
    #[error("the metadata database failed")]
    Sql(#[from] sqlx::Error),
    #[error("reading or writing the disk failed")]
    Io(#[from] io::Error),
    #[error("a background task ended without a result")]
    Lost(#[from] JoinError),
}

impl From<S3Error> for Fault {
    fn from(error: S3Error) -> Self {
        Self::Refused(error)
    }
}

impl From<S3ErrorCode> for Fault {
    fn from(code: S3ErrorCode) -> Self {
        Self::Refused(code.into())
    }
}

tokio::task_local! {
    /// The store's failure while answering this request. `s3s` runs without a log (see `serve.rs`), so the failure is
    /// carried past it and logged by `serve.rs`.
    static TROUBLE: RefCell<Option<String>>;
}

/// Runs `answer`. Returns its output, and the store's failure, if there was one.
pub async fn watch<F: Future>(answer: F) -> (F::Output, Option<String>) {
    TROUBLE
        .scope(RefCell::default(), async {
            let output = answer.await;
            (output, TROUBLE.with(RefCell::take))
        })
        .await
}

impl From<Fault> for S3Error {
    fn from(fault: Fault) -> Self {
        if let Fault::Refused(error) = fault {
            return error;
        }
        let text = with_causes(&fault);
        if TROUBLE.try_with(|trouble| trouble.replace(Some(text.clone()))).is_err() {
            tracing::error!(error = text, "a request failed");
        }
        match fault.trouble() {
            Some(Trouble::Full) => {
                // RFC 4918, section 11.5. S3 has no code for it: its disks are never full.
                let mut error = S3Error::with_message(S3ErrorCode::Custom("StorageFull".into()), "The disk is full.");
                error.set_status_code(StatusCode::INSUFFICIENT_STORAGE);
                error
            }
            Some(Trouble::Locked | Trouble::ReadOnly | Trouble::Io) => {
                s3_error!(ServiceUnavailable, "The disk of the store is not available. Please try again.")
            }
            Some(Trouble::Corrupt) | None => {
                s3_error!(InternalError, "We encountered an internal error. Please try again.")
            }
        }
    }
}

impl Fault {
    /// Classifies a failure that may pass when tried again later, and damage of the disk; `None` for any other.
    fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Sql(sqlx::Error::PoolTimedOut) => Some(Trouble::Locked),
            // The connection's thread could not be started for lack of threads or memory, or has ended; or the store is
            // stopping.
            Self::Sql(sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::PoolClosed) => Some(Trouble::Io),
            Self::Sql(error) => sqlite::trouble(error),
            Self::Io(error) => Some(match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Trouble::Full,
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Trouble::ReadOnly,
                // A blob is missing, or shorter than its rows say.
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => Trouble::Corrupt,
                _ => Trouble::Io,
            }),
            Self::Refused(_) | Self::Lost(_) => None,
        }
    }
}

fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_asks_to_come_again_and_a_bug_does_not() {
        let no_thread = io::Error::from(io::ErrorKind::WouldBlock);
        for (fault, code) in [
            (sqlx::Error::Io(no_thread).into(), S3ErrorCode::ServiceUnavailable),
            (sqlx::Error::WorkerCrashed.into(), S3ErrorCode::ServiceUnavailable),
            (sqlx::Error::PoolTimedOut.into(), S3ErrorCode::ServiceUnavailable),
            (io::Error::from(io::ErrorKind::TimedOut).into(), S3ErrorCode::ServiceUnavailable),
            (io::Error::from(io::ErrorKind::QuotaExceeded).into(), S3ErrorCode::Custom("StorageFull".into())),
            (io::Error::from(io::ErrorKind::NotFound).into(), S3ErrorCode::InternalError),
            (sqlx::Error::RowNotFound.into(), S3ErrorCode::InternalError),
        ] {
            let fault: Fault = fault;
            let said = format!("{fault:?}");
            assert_eq!(S3Error::from(fault).code(), &code, "{said}");
        }
    }
}
