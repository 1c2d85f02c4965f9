use std::collections::{BTreeMap, HashMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use entity::upload_session::Status;
use entity::{SessionId, TenantId, asset as asset_row};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::{info, instrument, warn};

use super::Session;
use super::rows::{self, Claim};
use crate::action::{self, Act};
use crate::clock::{believed, seconds};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event::{Effect, record_effect};
use crate::pass::{self, Pass, Report, Run};
use crate::storage::{self, ASSETS, Kind, ListedObject, ListedUpload, Location, OWNER, PROBE, TEMP, UPLOADS};
use crate::{asset, deployment};

/// The maximum number of keys of each kind that a report names.
const EXAMPLES_MAX: usize = 20;

/// The report's text for a store that takes the prefix of a list for a whole key, as MinIO does.
const UNLISTED: &str = "this store does not list multipart uploads by prefix, so uploads that no session explains \
                        cannot be found";

/// How many runs back to look for one that names the place to begin at.
const RUNS: u64 = 20;

/// Removes orphans, which are in the store without a row that explains them: objects and multipart uploads under
/// `temp/uploads/`, and multipart uploads under `assets/`, in every bucket in use.
///
/// The store is listed first and the rows are read after that, because a row is always written before its data. A row is
/// read once more before its orphan is removed. Only orphans older than `lifecycle.orphan_after_secs` by the store's own
/// clock are removed. The outcome is recorded as an event of the session that the key belongs to. Orphans under no
/// session's key are recorded as an operator action before they are removed. Foreign keys are counted and left alone. Holds
/// one page of a list in memory for each bucket being searched.
///
/// Some stores do not list uploads by prefix. If a store lists none at all, an upload is opened and aborted to find out, in
/// a dry run too. Such a bucket is named in the report's details, and does not count as failed.
///
/// A bucket that does not answer, lies, is gone or belongs to another deployment is named in the report's details and
/// counted as failed; the other buckets are still searched. `lifecycle.concurrency` buckets are searched at once. A run
/// whose time is up names the bucket that the next run begins with, and the place to continue from in each unfinished
/// bucket.
///
/// # Errors
/// Errors of the database.
#[instrument(name = "session.orphans", skip_all)]
pub async fn orphans(engine: &Engine, run: &Run) -> Result<Report> {
    let mut buckets: VecDeque<_> = in_turn(engine).await?.into();
    let mut total = Sweep::new(engine, run, None);
    let mut at_work = FuturesUnordered::new();
    loop {
        while at_work.len() < engine.settings.lifecycle.concurrency
            && !buckets.is_empty()
            && !total.is_over()
            && let Some((bucket, place)) = buckets.pop_front()
        {
            at_work.push(Box::pin(search(engine, run, bucket, place)));
        }
        let Some((bucket, sweep, outcome)) = at_work.next().await else { break };
        total.absorb(&bucket, sweep);
        match outcome {
            Ok(()) => {}
            // The outer error says only that it was the store.
            Err(Error::Storage(cause)) => total.give_up(bucket, cause.to_string()),
            Err(error @ Error::ForeignBucket { .. }) => total.give_up(bucket, error.to_string()),
            Err(error) => {
                run.add(&total.report);
                return Err(error);
            }
        }
    }
    let next = buckets.front().map(|(bucket, _)| bucket.clone());
    // Buckets that this run did not reach keep their places.
    total.places.extend(buckets.into_iter().filter_map(|(bucket, place)| Some((bucket, place?))));
    Ok(total.report(next))
}

/// Searches one bucket, from `place` on.
async fn search<'a>(
    engine: &'a Engine,
    run: &'a Run,
    bucket: String,
    place: Option<Place>,
) -> (String, Sweep<'a>, Result<()>) {
    let mut sweep = Sweep::new(engine, run, place);
    let outcome = sweep.bucket(&bucket).await;
    (bucket, sweep, outcome)
}

/// How far a run has come in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    step: Step,
    /// The search continues after this key.
    key: Option<String>,
}

/// The steps of a search, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Step {
    Uploads,
    Copies,
    Objects,
    Neighbours,
}

/// Returns the buckets in use, beginning with the first one that the last run did not reach, each with the place it reached.
async fn in_turn(engine: &Engine) -> Result<Vec<(String, Option<Place>)>> {
    let mut buckets: Vec<String> = deployment::buckets(engine).await?.into_iter().collect();
    // The newest record may be of this run, and other runs may have been lost before they reported anything.
    let runs = pass::runs(engine, Some(Pass::Orphans), RUNS).await?;
    let Some(reported) = runs.iter().find(|run| run.details.get("foreign").is_some()) else {
        return Ok(buckets.into_iter().map(|bucket| (bucket, None)).collect());
    };
    if let Some(first) = reported.details["next_bucket"].as_str() {
        let passed = buckets.iter().take_while(|bucket| bucket.as_str() < first).count();
        buckets.rotate_left(passed);
    }
    let place_of = |bucket: &str| Place::deserialize(&reported.details["places"][bucket]).ok();
    Ok(buckets.into_iter().map(|bucket| (bucket.clone(), place_of(&bucket))).collect())
}

/// The search of one bucket. Also the total over all buckets.
struct Sweep<'a> {
    engine: &'a Engine,
    run: &'a Run,
    older_than: TimeDelta,
    report: Report,
    /// The keys of orphans.
    orphans: Vec<String>,
    foreign: u64,
    examples: Vec<String>,
    /// Keyed by bucket, or by bucket and key.
    errors: BTreeMap<String, String>,
    /// Where the search begins, and then how far it has come.
    place: Option<Place>,
    /// The places in buckets that were not finished.
    places: BTreeMap<String, Place>,
    /// Whether the time was up before the end.
    is_cut: bool,
}

/// What the rows say about an object or upload in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Explained,
    /// Left by an ended session; the cleanup removes it.
    Waiting,
    Orphan,
}

/// An object or upload in the store, under one of our keys.
struct Found<'a> {
    at: Location,
    what: What<'a>,
    /// When it arrived in the store, by the store's clock.
    since: DateTime<Utc>,
}

#[derive(Clone, Copy)]
enum What<'a> {
    Object(SessionId),
    /// With the store's upload id.
    Upload(SessionId, &'a str),
    /// An unfinished copy to an asset's key, with the store's upload id.
    Copy(TenantId, entity::AssetId, &'a str),
}

impl<'a> What<'a> {
    fn session(self) -> Option<SessionId> {
        match self {
            Self::Object(session) | Self::Upload(session, _) => Some(session),
            Self::Copy(..) => None,
        }
    }

    fn upload_id(self) -> Option<&'a str> {
        match self {
            Self::Object(_) => None,
            Self::Upload(_, id) | Self::Copy(_, _, id) => Some(id),
        }
    }
}

impl<'a> Sweep<'a> {
    fn new(engine: &'a Engine, run: &'a Run, place: Option<Place>) -> Self {
        Self {
            engine,
            run,
            older_than: run.options.older_than.unwrap_or(seconds(engine.settings.lifecycle.orphan_after_secs)),
            report: Report::default(),
            orphans: vec![],
            foreign: 0,
            examples: vec![],
            errors: BTreeMap::new(),
            place,
            places: BTreeMap::new(),
            is_cut: false,
        }
    }

    async fn bucket(&mut self, bucket: &str) -> Result<()> {
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

    /// Returns where to begin a step; `None` if an earlier run has finished it, or this run is over.
    fn begin(&mut self, step: Step) -> Option<Place> {
        if self.is_over() || self.place.as_ref().is_some_and(|place| place.step > step) {
            return None;
        }
        let begun = self.place.take().filter(|place| place.step == step);
        let place = begun.unwrap_or(Place { step, key: None });
        self.place = Some(place.clone());
        Some(place)
    }

    /// Records that everything up to this key was handled.
    fn passed(&mut self, step: Step, key: Option<&str>) {
        self.place = Some(Place { step, key: key.map(str::to_owned) });
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
        let of_session = storage::session_of(&upload.key).map(|session| What::Upload(session, id));
        let of_asset = storage::asset_of(&upload.key).map(|(tenant, asset)| What::Copy(tenant, asset, id));
        self.ours(bucket, &upload.key, of_session.or(of_asset), upload.initiated)
    }

    fn object(&mut self, bucket: &str, object: &ListedObject) -> Option<Found<'static>> {
        if object.key == OWNER || object.key == PROBE {
            return None;
        }
        let what = storage::session_of(&object.key).map(What::Object);
        self.ours(bucket, &object.key, what, object.last_modified)
    }

    fn ours<'u>(&mut self, bucket: &str, key: &str, what: Option<What<'u>>, since: DateTime<Utc>) -> Option<Found<'u>> {
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

    fn note_orphan(&mut self, at: &Location) {
        self.report.found += 1;
        if self.orphans.len() < EXAMPLES_MAX {
            self.orphans.push(format!("{}/{}", at.bucket, at.key));
        }
    }

    /// Reads the rows for one page, and removes its orphans. Orphans under no session's key are recorded before that.
    /// `false` if the time was up before the end of the page.
    async fn judge(&mut self, page: Vec<Found<'_>>, store_time: DateTime<Utc>) -> Result<bool> {
        let store_time = believed(store_time, self.engine.clock.now());
        let claims = self.claims(&page).await?;
        let mut orphans = Vec::new();
        for found in page {
            if self.is_over() {
                return Ok(false);
            }
            match self.verdict(&found, &claims).await? {
                Verdict::Explained => {}
                Verdict::Waiting => self.report.skipped += 1,
                Verdict::Orphan if is_younger(found.since, store_time, self.older_than) => self.report.skipped += 1,
                Verdict::Orphan => {
                    self.note_orphan(&found.at);
                    orphans.push(found);
                }
            }
        }
        if self.run.options.dry_run {
            return Ok(true);
        }
        self.announce(&orphans, &claims).await?;
        for found in orphans {
            if self.is_over() {
                return Ok(false);
            }
            self.remove(&found).await?;
        }
        Ok(true)
    }

    /// Records the orphans to be removed that are under no session's key: they have no other record.
    async fn announce(&self, orphans: &[Found<'_>], claims: &HashMap<SessionId, Claim>) -> Result<()> {
        let mut keys = Vec::new();
        for found in orphans {
            if self.owner_of(found, claims).await?.is_none() {
                keys.push(found.at.key.as_str());
            }
        }
        let Some(first) = orphans.first().filter(|_| !keys.is_empty()) else { return Ok(()) };
        let tx = self.engine.db.begin().await?;
        let act = Act::removing_orphans(&first.at.bucket, &keys);
        action::record(self.engine, &tx, &self.run.actor, act).await?;
        tx.commit().await
    }

    async fn claims(&self, page: &[Found<'_>]) -> Result<HashMap<SessionId, Claim>> {
        let ids: Vec<SessionId> = page.iter().filter_map(|found| found.what.session()).collect();
        let size = usize::try_from(self.engine.settings.lifecycle.batch_rows).unwrap_or(usize::MAX);
        let mut claims = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(size) {
            let read = rows::find_claims(self.engine.db.search_conn(), ids).await?;
            claims.extend(read.into_iter().map(|claim| (claim.id, claim)));
        }
        Ok(claims)
    }

    async fn verdict(&self, found: &Found<'_>, claims: &HashMap<SessionId, Claim>) -> Result<Verdict> {
        // A session explains only data in the bucket that it was opened in.
        let claim_of = |session| claims.get(&session).filter(|claim: &&Claim| claim.bucket == found.at.bucket);
        Ok(match found.what {
            What::Object(session) => claim_of(session).map_or(Verdict::Orphan, of_object),
            What::Upload(session, id) => claim_of(session).map_or(Verdict::Orphan, |claim| of_upload(claim, id)),
            What::Copy(tenant, id, _) => {
                let asset = asset::rows::find(self.engine.db.conn(), tenant, id).await?;
                match asset.filter(|asset| asset.bucket == found.at.bucket).map(|asset| asset.status) {
                    Some(asset_row::Status::Uploaded) => Verdict::Explained,
                    Some(asset_row::Status::Ready | asset_row::Status::Failed) | None => Verdict::Orphan,
                }
            }
        })
    }

    async fn remove(&mut self, found: &Found<'_>) -> Result<()> {
        // Checked again right before the removal, because nothing that is in use may be removed.
        let claims = self.claims(std::slice::from_ref(found)).await?;
        if self.verdict(found, &claims).await? != Verdict::Orphan {
            self.report.skipped += 1;
            return Ok(());
        }
        let removed = match found.what.upload_id() {
            None => self.engine.storage.delete(&found.at).await,
            Some(id) => self.engine.storage.abort_multipart(&found.at, id).await,
        };
        let Location { bucket, key } = &found.at;
        if let Some(session) = self.session_of(found, &claims).await? {
            let about = json!({ "bucket": bucket, "object_key": key, "upload_id": found.what.upload_id() });
            let outcome = removed.as_ref().copied();
            record_effect(self.engine, &session, &self.run.actor, Effect::RemoveOrphan, about, outcome).await;
        }
        match removed {
            Ok(()) => {
                info!(bucket, key, upload_id = found.what.upload_id(), "removed an orphan");
                self.report.done += 1;
                Ok(())
            }
            // A lock or a policy on this orphan does not affect the others.
            Err(error) if matches!(error.kind, Kind::Refused | Kind::Invalid | Kind::Changed) => {
                warn!(bucket, key, %error, "could not remove an orphan");
                if self.errors.len() < EXAMPLES_MAX {
                    self.errors.insert(format!("{bucket}/{key}"), error.to_string());
                }
                self.report.failed += 1;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the session that the key belongs to, if its row exists.
    async fn session_of(&self, found: &Found<'_>, claims: &HashMap<SessionId, Claim>) -> Result<Option<Session>> {
        match self.owner_of(found, claims).await? {
            Some((tenant, session)) => rows::find(self.engine.db.conn(), tenant, session).await,
            None => Ok(None),
        }
    }

    async fn owner_of(
        &self,
        found: &Found<'_>,
        claims: &HashMap<SessionId, Claim>,
    ) -> Result<Option<(TenantId, SessionId)>> {
        Ok(match found.what {
            What::Object(session) | What::Upload(session, _) => {
                claims.get(&session).map(|claim| (claim.tenant_id, session))
            }
            What::Copy(tenant, asset, _) => {
                let asset = asset::rows::find(self.engine.db.conn(), tenant, asset).await?;
                asset.map(|asset| (tenant, asset.upload_session_id))
            }
        })
    }

    /// Adds the result of one bucket.
    fn absorb(&mut self, bucket: &str, mut other: Self) {
        self.report.add(&other.report);
        self.foreign += other.foreign;
        for (all, more) in [(&mut self.orphans, &mut other.orphans), (&mut self.examples, &mut other.examples)] {
            all.append(more);
            all.truncate(EXAMPLES_MAX);
        }
        for (what, error) in other.errors {
            if self.errors.len() < EXAMPLES_MAX {
                self.errors.insert(what, error);
            }
        }
        self.is_cut |= other.is_cut;
        if let Some(place) = other.place.filter(|_| other.is_cut) {
            self.places.insert(bucket.to_owned(), place);
        }
    }

    fn give_up(&mut self, bucket: String, error: String) {
        warn!(bucket, error, "could not search a bucket for orphans; the next run tries again");
        self.errors.insert(bucket, error);
        self.report.failed += 1;
    }

    fn is_over(&mut self) -> bool {
        self.is_cut |= self.run.is_over();
        self.is_cut
    }

    fn report(self, next_bucket: Option<String>) -> Report {
        let mut details = Map::new();
        details.insert("orphans".to_owned(), json!(self.orphans));
        details.insert("foreign".to_owned(), json!(self.foreign));
        details.insert("examples".to_owned(), json!(self.examples));
        if !self.errors.is_empty() {
            details.insert("errors".to_owned(), json!(self.errors));
        }
        if self.is_cut {
            details.insert("unfinished".to_owned(), json!(true));
            details.insert("next_bucket".to_owned(), json!(next_bucket));
            details.insert("places".to_owned(), json!(self.places));
        }
        Report { details: Some(Value::Object(details)), ..self.report }
    }
}

fn of_object(claim: &Claim) -> Verdict {
    match claim.status {
        Status::Initiating | Status::Uploading => Verdict::Explained,
        // The asset is still to be copied from it, or it is kept for an operator.
        Status::Completed if claim.asset_status != Some(asset_row::Status::Ready) => Verdict::Explained,
        Status::Completed | Status::Failed | Status::Cancelled => of_ended(claim),
    }
}

fn of_upload(claim: &Claim, upload_id: &str) -> Verdict {
    match claim.status {
        // The answer with its id may still be on its way.
        Status::Initiating => Verdict::Explained,
        Status::Uploading if claim.multipart_upload_id.as_deref() == Some(upload_id) => Verdict::Explained,
        // If two calls opened the session at once, one upload was not recorded.
        Status::Uploading => Verdict::Orphan,
        Status::Completed | Status::Failed | Status::Cancelled => of_ended(claim),
    }
}

fn of_ended(claim: &Claim) -> Verdict {
    if claim.storage_cleared_at.is_none() { Verdict::Waiting } else { Verdict::Orphan }
}

/// Compares whole seconds, which is the precision of the store's `Date`.
fn is_younger(since: DateTime<Utc>, store_time: DateTime<Utc>, span: TimeDelta) -> bool {
    store_time.timestamp() - since.timestamp() < span.num_seconds()
}
