use std::collections::{HashMap, HashSet};
use std::time::Instant;

use aws_lc_rs::digest;
use entity::BrandId;
use futures_util::StreamExt as _;
use futures_util::stream;
use tracing::{debug, instrument};
use uuid::{Builder, Uuid};

use super::initiate::initiate_together;
use super::rows::{self, Scope};
use super::{Initiated, NewUpload, initiate};
use crate::caller::Caller;
use crate::database::piece;
use crate::engine::Engine;
use crate::error::{Error, FieldError, Result, with_causes};
use crate::outage::Outage;
use crate::tenant;

/// One requested file of a batch: its `client_reference`, and the file or the error that it was refused with.
pub type BatchFile = (Option<String>, Result<NewUpload>);

/// The result for one file of a batch.
pub struct BatchItem {
    pub client_reference: Option<String>,
    pub result: Result<Initiated>,
}

/// Returns a reference for a batch that names none: a new one, or always the same one for an `Idempotency-Key` of a user.
/// So a repeated batch has the same reference, and files that were rejected the first time join it.
pub fn batch_reference(caller: &Caller, idempotency_key: Option<&str>) -> String {
    let Some(key) = idempotency_key else { return Uuid::now_v7().to_string() };
    let mut facts = digest::Context::new(&digest::SHA256);
    // Each part but the last has a fixed length or follows its length, so the bytes of two users always differ.
    facts.update(caller.tenant.0.as_bytes());
    facts.update(&(caller.user().len() as u64).to_be_bytes());
    facts.update(caller.user().as_bytes());
    facts.update(key.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&facts.finish().as_ref()[..16]);
    // Version 8: bytes defined by the application (RFC 9562, section 5.8).
    Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// Opens a session for each file, as if each were requested alone: a file that fails does not affect the others. Direct
/// files without a conflict are stored together, several in one transaction.
///
/// Results are in the order of the files. A file that was refused before this call stays refused in its place. If a
/// `client_reference` occurs twice, the second file is rejected. At most `sessions.batch_concurrency` files are processed at
/// once.
#[instrument(name = "session.initiate_batch", skip_all, fields(tenant.id = %caller.tenant, files = files.len()))]
pub async fn initiate_batch(engine: &Engine, caller: &Caller, files: Vec<BatchFile>) -> Vec<BatchItem> {
    let mut seen = HashSet::new();
    let files: Vec<_> = files
        .into_iter()
        .map(|(client_reference, file)| {
            let twice = client_reference.as_ref().is_some_and(|reference| !seen.insert(reference.clone()));
            (client_reference, if twice { Err(duplicate(file)) } else { file })
        })
        .collect();
    let files = with_brand(engine, caller, files).await;
    let fresh = &unknown(engine, caller, &files).await;
    let is_fresh = |new: &NewUpload| match (&new.idempotency_key, &new.batch_reference, &new.client_reference) {
        (None, Some(_), Some(client)) => new.brand_id.is_some_and(|brand| fresh.contains(&(brand, client.clone()))),
        // Without a key and both references, no earlier session can match it.
        (None, ..) => true,
        (Some(_), ..) => false,
    };
    let (mut opened, outage) = (HashMap::new(), Outage::default());
    let named = files.iter().enumerate().filter_map(|(place, (_, file))| Some((place, file.as_ref().ok()?)));
    let mut together: Vec<_> = named.filter(|(_, new)| is_fresh(new)).collect();
    while let Some(some) = piece(&mut together, engine.db.at_once(caller.tenant)) {
        let started = Instant::now();
        match initiate_together(engine, caller, &some).await {
            Ok(some) => opened.extend(some),
            Err(error) => {
                outage.heed(&error);
                break;
            }
        }
        engine.db.rest(caller.tenant, started.elapsed()).await;
    }
    let files = files.into_iter().enumerate().map(|(place, file)| (opened.remove(&place), file));
    stream::iter(files.collect::<Vec<_>>())
        .map(async |(opened, (client_reference, file))| BatchItem {
            client_reference,
            result: match (opened, file) {
                (Some(opened), _) => opened,
                // Boxed, because a stream moves each of its futures several times, and few of them take this path.
                (None, Ok(new)) => outage.attempt(Box::pin(initiate(engine, caller, new))).await,
                (None, Err(error)) => Err(error),
            },
        })
        .buffered(engine.settings.sessions.batch_concurrency)
        .collect()
        .await
}

/// Looks up the brand once for all files that name none, because it is the same for all of them.
async fn with_brand(engine: &Engine, caller: &Caller, mut files: Vec<BatchFile>) -> Vec<BatchFile> {
    let mut nameless: Vec<_> =
        files.iter_mut().filter_map(|(_, file)| file.as_mut().ok()).filter(|new| new.brand_id.is_none()).collect();
    // On an error, each file gets it from its own lookup later.
    if nameless.len() > 1
        && let Ok(brand) = tenant::brand_for(engine, caller, None).await
    {
        nameless.iter_mut().for_each(|new| new.brand_id = Some(brand));
    }
    files
}

/// Returns the brands and client references that no session of the batch has yet. If a lookup fails, its references are left
/// out: then each file is looked up alone.
async fn unknown(engine: &Engine, caller: &Caller, files: &[BatchFile]) -> HashSet<(BrandId, String)> {
    let mut named: HashMap<(BrandId, &str), Vec<&str>> = HashMap::new();
    for new in files.iter().filter_map(|(_, file)| file.as_ref().ok()) {
        if let (Some(brand), Some(batch), Some(client)) = (new.brand_id, &new.batch_reference, &new.client_reference) {
            named.entry((brand, batch)).or_default().push(client);
        }
    }
    let conn = &engine.db.lookup_conn().of(caller.tenant);
    let mut unknown = HashSet::new();
    for ((brand, batch), clients) in named.into_iter().filter(|(_, clients)| clients.len() > 1) {
        let scope = Scope { tenant: caller.tenant, brand, user: caller.user() };
        match rows::taken(conn, scope, batch, &clients).await {
            Ok(taken) => {
                let free = clients.into_iter().filter(|client| !taken.contains(*client));
                unknown.extend(free.map(|client| (brand, client.to_owned())));
            }
            Err(error) => {
                debug!(error = with_causes(&error), "could not look up a batch at once; each file is looked up alone");
                if error.is_outage() {
                    break;
                }
            }
        }
    }
    unknown
}

/// Refuses a file for its reference, in addition to the errors that it was refused with before.
fn duplicate(file: Result<NewUpload>) -> Error {
    let mut fields = match file {
        Err(Error::Invalid(fields)) => fields,
        Ok(_) | Err(_) => vec![],
    };
    let detail = "an earlier file of this batch has the same client_reference";
    fields.push(FieldError::new("/client_reference", "duplicate-reference", detail));
    Error::Invalid(fields)
}

#[cfg(test)]
mod tests {
    use entity::TenantId;

    use super::*;
    use crate::caller::{Actor, Brands, Permissions};

    #[test]
    fn a_key_makes_one_reference_for_one_user() {
        let caller = |tenant, user: &str| Caller {
            tenant,
            actor: Actor::User(user.to_owned()),
            brands: Brands::All,
            permissions: Permissions::default(),
        };
        let (acme, globex) = (TenantId::new(), TenantId::new());
        let ann = caller(acme, "ann");
        let reference = batch_reference(&ann, Some("key"));
        assert_eq!(batch_reference(&ann, Some("key")), reference);
        for other in [
            batch_reference(&ann, Some("yek")),
            batch_reference(&ann, None),
            batch_reference(&caller(acme, "annk"), Some("ey")),
            batch_reference(&caller(globex, "ann"), Some("key")),
        ] {
            assert_ne!(other, reference);
        }
        assert_ne!(batch_reference(&ann, None), batch_reference(&ann, None));
    }
}
