//! Reads what a bucket holds under the prefixes of this server.

use chrono::{DateTime, Utc};
use tracing::warn;

use super::{EXAMPLES_MAX, Found, FoundKind, Step, Sweep, UNLISTED};
use crate::deployment;
use crate::error::Result;
use crate::storage::{self, ASSETS, ListedObject, ListedUpload, Location, OWNER, PROBE, TEMP, UPLOADS};

impl Sweep<'_> {
    pub(super) async fn bucket(&mut self, bucket: &str) -> Result<()> {
        if self.run.options.dry_run {
            deployment::refuse_foreign(self.engine, bucket).await?;
        } else {
            deployment::must_own(self.engine, bucket).await?;
        }
        let are_listed =
            self.uploads(bucket, Step::Uploads, UPLOADS).await? | self.uploads(bucket, Step::Copies, ASSETS).await?;
        self.objects(bucket).await?;
        if self.begin(Step::Neighbours).is_some() {
            self.neighbours(bucket).await?;
        }
        // An empty list counts only if the store lists uploads by prefix.
        if !are_listed && !self.is_over() && !self.engine.storage.lists_uploads_by_prefix(bucket).await? {
            warn!(bucket, "{UNLISTED}");
            self.errors.insert(bucket.to_owned(), UNLISTED.to_owned());
        }
        Ok(())
    }

    /// Searches the uploads under a prefix. Returns whether the store has listed any in this run.
    async fn uploads(&mut self, bucket: &str, step: Step, prefix: &str) -> Result<bool> {
        let Some(place) = self.begin(step) else { return Ok(false) };
        let mut pages = self.engine.storage.uploads(bucket, prefix).after(place.key);
        let mut are_listed = false;
        while !self.is_over()
            && let Some(page) = pages.next().await?
        {
            are_listed |= !page.items.is_empty();
            let found: Vec<_> = page.items.iter().filter_map(|upload| self.upload(bucket, upload)).collect();
            if self.judge(found, page.store_time).await? {
                self.passed(step, pages.last_key());
            }
        }
        Ok(are_listed)
    }

    async fn objects(&mut self, bucket: &str) -> Result<()> {
        let Some(place) = self.begin(Step::Objects) else { return Ok(()) };
        let mut pages = self.engine.storage.objects(bucket, UPLOADS).after(place.key);
        while !self.is_over()
            && let Some(page) = pages.next().await?
        {
            let found: Vec<_> = page.items.iter().filter_map(|object| self.object(bucket, object)).collect();
            if self.judge(found, page.store_time).await? {
                self.passed(Step::Objects, pages.last_key());
            }
        }
        Ok(())
    }

    fn upload<'u>(&mut self, bucket: &str, upload: &'u ListedUpload) -> Option<Found<'u>> {
        if upload.key == PROBE {
            return None;
        }
        let id = upload.upload_id.as_str();
        let of_session = storage::session_of(&upload.key).map(|session| FoundKind::Upload(session, id));
        let of_asset = storage::asset_of(&upload.key).map(|(tenant, asset)| FoundKind::Copy(tenant, asset, id));
        self.ours(bucket, &upload.key, of_session.or(of_asset), upload.initiated)
    }

    fn object(&mut self, bucket: &str, object: &ListedObject) -> Option<Found<'static>> {
        if object.key == OWNER || object.key == PROBE {
            return None;
        }
        let what = storage::session_of(&object.key).map(FoundKind::Object);
        self.ours(bucket, &object.key, what, object.last_modified)
    }

    fn ours<'u>(
        &mut self,
        bucket: &str,
        key: &str,
        what: Option<FoundKind<'u>>,
        since: DateTime<Utc>,
    ) -> Option<Found<'u>> {
        let Some(what) = what else {
            self.note_foreign(bucket, key);
            return None;
        };
        Some(Found { at: Location { bucket: bucket.to_owned(), key: key.to_owned() }, what, since })
    }

    /// Counts what is beside our own prefixes, without looking inside.
    async fn neighbours(&mut self, bucket: &str) -> Result<()> {
        for (prefix, own) in [("", &[TEMP, ASSETS][..]), (TEMP, &[UPLOADS][..])] {
            if self.is_over() {
                return Ok(());
            }
            let (names, _) = self.engine.storage.folders(bucket, prefix).await?;
            for name in names.iter().filter(|name| !own.contains(&name.as_str())) {
                self.note_foreign(bucket, name);
            }
        }
        Ok(())
    }

    fn note_foreign(&mut self, bucket: &str, key: &str) {
        self.foreign += 1;
        if self.examples.len() < EXAMPLES_MAX {
            // PostgreSQL cannot store U+0000, and other control characters must not reach a terminal.
            let key: String = key.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            self.examples.push(format!("{bucket}/{key}"));
        }
    }
}
