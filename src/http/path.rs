//! Ids in paths.

use std::str::FromStr;

use entity::SessionId;

use super::middleware;
use crate::error::{Error, Result};

/// Parses an id in a path.
///
/// # Errors
/// [`Error::NotFound`] for a text that is not an id, as for an unknown id.
pub(super) fn id_of<T: FromStr>(path: &str) -> Result<T> {
    path.parse().map_err(|_| Error::NotFound)
}

/// Parses the session's id in a path, and records it in the request's span.
///
/// # Errors
/// [`Error::NotFound`] for a text that is not an id.
pub(super) fn session_of(path: &str) -> Result<SessionId> {
    let id = id_of(path)?;
    middleware::name_session(id);
    Ok(id)
}
