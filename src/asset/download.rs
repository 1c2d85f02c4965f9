use std::time::Duration;

use entity::AssetId;
use entity::asset::Status;
use tracing::instrument;

use super::{disposition, find};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Error, Field, Result};
use crate::input::Wrong;
use crate::storage::{Answered, Location, Presigned};

/// What a browser should do with the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disposition {
    #[default]
    Attachment,
    /// Display the file, if browsers never execute its type; otherwise it is an attachment.
    Inline,
}

/// The options of a download URL.
#[derive(Clone, Copy, Debug, Default)]
pub struct Download {
    /// Seconds from 1 to `downloads.url_ttl_max_secs`, which is also the default.
    pub expires_in: Option<u64>,
    pub disposition: Disposition,
}

/// Returns a URL with which anyone can download the asset's file, under its uploaded name, until the URL expires.
///
/// The URL points to the asset's own key at the public endpoint, never to the key of the upload. It expires no later than
/// the credential that signed it.
///
/// # Errors
/// [`Error::Invalid`] if `expires_in` is out of range; [`Error::NotFound`] as [`find`]; [`Error::AssetNotReady`] if the
/// asset is not READY.
#[instrument(name = "asset.download", skip_all, fields(asset.id = %id, tenant.id = %caller.tenant))]
pub async fn download(engine: &Engine, caller: &Caller, id: AssetId, wanted: Download) -> Result<Presigned> {
    let ttl = ttl(engine, wanted.expires_in)?;
    let asset = find(engine, caller, id).await?;
    match asset.status {
        Status::Ready => {}
        status @ (Status::Uploaded | Status::Failed) => return Err(Error::AssetNotReady(status)),
    }
    let shown = disposition::inline_type(&asset.mime_type).filter(|_| wanted.disposition == Disposition::Inline);
    let (kind, content_type) = match shown {
        Some(content_type) => ("inline", content_type),
        None => ("attachment", asset.mime_type.as_str()),
    };
    let answered = Answered {
        content_disposition: disposition::header(kind, &asset.file_name),
        content_type: content_type.to_owned(),
    };
    let at = Location::asset(&asset.bucket, asset.tenant_id, asset.id);
    Ok(engine.storage.signer().await?.get_object_as(&at, &answered, ttl))
}

fn ttl(engine: &Engine, expires_in: Option<u64>) -> Result<Duration> {
    let max = engine.settings.downloads.url_ttl_max_secs;
    let secs = expires_in.unwrap_or(max);
    if (1..=max).contains(&secs) {
        return Ok(Duration::from_secs(secs));
    }
    Err(Error::wrong(Field::ExpiresIn, Wrong::Seconds { most: max }))
}
