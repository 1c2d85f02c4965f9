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
use crate::error::{Error, Field, Result, with_causes};
use crate::input::{IdempotencyKey, Reference, Text as _, Wrong};
use crate::outage::Outage;
use crate::tenant;

/// One requested file of a batch.
#[derive(Clone, Debug)]
pub struct BatchFile {
    /// As the caller wrote it, whether or not it is valid.
    pub client_reference: Option<String>,
    /// `None` if the door has refused the file.
    pub file: Option<NewUpload>,
}

/// The result for one file of a batch.
pub struct BatchItem {
    pub client_reference: Option<String>,
    /// For a file that the door has refused: [`Error::Invalid`] with what else is wrong with it, which may be nothing.
    pub result: Result<Initiated>,
}

/// Returns a reference for a batch that names none: a new one, or always the same one for an `Idempotency-Key` of a user.
/// So a repeated batch has the same reference, and files that were rejected the first time join it.
pub fn batch_reference(caller: &Caller, key: Option<&IdempotencyKey>) -> Reference {
    let id = match key {
        None => Uuid::now_v7(),
        Some(key) => id_of_key(caller, key),
    };
    Reference::parse(id.to_string()).expect("36 ASCII characters are a reference")
}

fn id_of_key(caller: &Caller, key: &IdempotencyKey) -> Uuid {
    let mut facts = digest::Context::new(&digest::SHA256);
    // Each part but the last has a fixed length or follows its length, so the bytes of two users always differ.
    facts.update(caller.tenant.0.as_bytes());
    facts.update(&(caller.user().len() as u64).to_be_bytes());
    facts.update(caller.user().as_bytes());
    facts.update(key.as_str().as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&facts.finish().as_ref()[..16]);
    // Version 8: bytes defined by the application (RFC 9562, section 5.8).
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// Opens a session for each file, as if each were requested alone: a file that fails does not affect the others. Direct
/// files without a conflict are stored together, several in one transaction.
///
/// Results are in the order of the files. A file that the door has refused stays refused in its place. If a
/// `client_reference` occurs twice, the second file is rejected. At most `sessions.batch_concurrency` files are processed at
/// once.
#[instrument(name = "session.initiate_batch", skip_all, fields(tenant.id = %caller.tenant, files = files.len()))]
pub async fn initiate_batch(engine: &Engine, caller: &Caller, files: Vec<BatchFile>) -> Vec<BatchItem> {
    let mut seen = HashSet::new();
    let files: Vec<_> = files
        .into_iter()
        .map(|BatchFile { client_reference, file }| {
            let twice = client_reference.as_ref().is_some_and(|reference| !seen.insert(reference.clone()));
            let file = match file {
                _ if twice => Err(Error::wrong(Field::ClientReference, Wrong::DuplicateReference)),
                Some(new) => Ok(new),
                None => Err(Error::Invalid(vec![])),
            };
            (client_reference, file)
        })
        .collect();
    let files = with_brand(engine, caller, files).await;
    let fresh = &unknown(engine, caller, &files).await;
    let is_fresh = |new: &NewUpload| match (&new.idempotency_key, &new.batch_reference, &new.client_reference) {
        (None, Some(_), Some(client)) => new.brand_id.is_some_and(|brand| fresh.contains(&(brand, client.to_string()))),
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
                outage.note(&error);
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

/// A file with its `client_reference`, or why it is refused.
type Checked = (Option<String>, Result<NewUpload>);

/// Looks up the brand once for all files that name none, because it is the same for all of them.
async fn with_brand(engine: &Engine, caller: &Caller, mut files: Vec<Checked>) -> Vec<Checked> {
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
async fn unknown(engine: &Engine, caller: &Caller, files: &[Checked]) -> HashSet<(BrandId, String)> {
    let mut named: HashMap<(BrandId, &str), Vec<&str>> = HashMap::new();
    for new in files.iter().filter_map(|(_, file)| file.as_ref().ok()) {
        if let (Some(brand), Some(batch), Some(client)) = (new.brand_id, &new.batch_reference, &new.client_reference) {
            named.entry((brand, batch.as_str())).or_default().push(client.as_str());
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
        let key = |text: &str| IdempotencyKey::parse(text).ok();
        let reference = batch_reference(&ann, key("key").as_ref());
        assert_eq!(batch_reference(&ann, key("key").as_ref()), reference);
        for other in [
            batch_reference(&ann, key("yek").as_ref()),
            batch_reference(&ann, None),
            batch_reference(&caller(acme, "annk"), key("ey").as_ref()),
            batch_reference(&caller(globex, "ann"), key("key").as_ref()),
        ] {
            assert_ne!(other, reference);
        }
        assert_ne!(batch_reference(&ann, None), batch_reference(&ann, None));
    }
}
