use std::collections::HashSet;

use futures_util::StreamExt as _;
use futures_util::stream;
use tracing::instrument;

use super::{Initiated, NewUpload, initiate};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Error, FieldError, Result};

/// What became of one file of a batch.
pub struct BatchItem {
    pub client_reference: Option<String>,
    pub result: Result<Initiated>,
}

/// Opens a session for each file, each in its own transaction: one that fails takes no other with it.
///
/// Results come in the order of the files. A file that was refused before this call stays refused in its place; a
/// `client_reference` that occurs twice rejects the second. At most `sessions.batch_concurrency` files are worked on at once.
#[instrument(name = "session.initiate_batch", skip_all, fields(tenant.id = %caller.tenant, files = files.len()))]
pub async fn initiate_batch(
    engine: &Engine,
    caller: &Caller,
    files: Vec<(Option<String>, Result<NewUpload>)>,
) -> Vec<BatchItem> {
    let mut seen = HashSet::new();
    let files: Vec<_> = files
        .into_iter()
        .map(|(client_reference, file)| {
            let twice = client_reference.as_ref().is_some_and(|reference| !seen.insert(reference.clone()));
            (client_reference, if twice { Err(duplicate()) } else { file })
        })
        .collect();
    stream::iter(files)
        .map(async |(client_reference, file)| BatchItem {
            client_reference,
            result: match file {
                Ok(new) => initiate(engine, caller, new).await,
                Err(error) => Err(error),
            },
        })
        .buffered(engine.settings.sessions.batch_concurrency)
        .collect()
        .await
}

fn duplicate() -> Error {
    let detail = "an earlier file of this batch has the same client_reference";
    Error::Invalid(vec![FieldError::new("/client_reference", "duplicate-reference", detail)])
}
