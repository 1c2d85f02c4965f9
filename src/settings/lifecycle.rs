use serde::Deserialize;

use super::{Complaints, Storage, UploadProfile};

/// When sessions end, and when what they left behind is removed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifecycle {
    /// An UPLOADING session untouched for this long, here and in the store, is abandoned.
    pub abandoned_after_secs: u64,
    /// An INITIATING session is stuck this long after it was last requested, or after its store was last found unavailable.
    pub initiating_after_secs: u64,
    /// An object or upload in the store that no session explains is an orphan when it is this old, by the store's clock.
    pub orphan_after_secs: u64,
    /// A FAILED or CANCELLED session's rows are deleted this long after its storage was cleared.
    pub retention_secs: u64,
    /// The tombstone of a deleted session is deleted this long after the session's rows.
    pub tombstone_secs: u64,
    /// A run of a pass stops after this long; the next run continues.
    pub pass_budget_secs: u64,
    /// Maximum number of rows that a pass reads at a time.
    pub batch_rows: u64,
    /// Maximum number of sessions that a pass asks the store about at the same time.
    pub concurrency: usize,
}

impl Lifecycle {
    pub(super) fn check<'a>(
        &self,
        profiles: impl IntoIterator<Item = (&'a String, &'a UploadProfile)>,
        storage: &Storage,
        complaints: &mut Complaints,
    ) {
        let thresholds = [
            ("lifecycle.abandoned_after_secs", self.abandoned_after_secs),
            ("lifecycle.initiating_after_secs", self.initiating_after_secs),
            ("lifecycle.orphan_after_secs", self.orphan_after_secs),
            ("lifecycle.retention_secs", self.retention_secs),
            ("lifecycle.tombstone_secs", self.tombstone_secs),
            ("lifecycle.pass_budget_secs", self.pass_budget_secs),
        ];
        for (key, secs) in thresholds {
            complaints.at_least_one(key, secs);
            complaints.unless(secs <= SECS_MAX, || format!("{key} ({secs}) is more than a hundred years"));
        }
        complaints.at_least_one("lifecycle.batch_rows", self.batch_rows);
        complaints.at_least_one("lifecycle.concurrency", self.concurrency as u64);
        complaints.unless(self.batch_rows <= 10_000, || {
            format!("lifecycle.batch_rows ({}) is more than 10000", self.batch_rows)
        });
        // An audit that reads the sessions now looks later for the tombstones of those that were deleted meanwhile.
        complaints.unless(self.tombstone_secs >= 86_400, || {
            format!("lifecycle.tombstone_secs ({}) is less than a day (86400)", self.tombstone_secs)
        });
        // For this long, a request may still be creating the upload.
        let opening = storage.longest_call_secs();
        complaints.unless(self.initiating_after_secs > opening, || {
            let initiating = self.initiating_after_secs;
            format!(
                "lifecycle.initiating_after_secs ({initiating}) must be more than storage.attempt_timeout_secs times \
                 storage.max_attempts ({opening})"
            )
        });
        for (name, profile) in profiles {
            // A client may be using a URL that still works.
            for (key, secs) in [
                ("lifecycle.abandoned_after_secs", self.abandoned_after_secs),
                ("lifecycle.orphan_after_secs", self.orphan_after_secs),
            ] {
                complaints.unless(secs > profile.url_ttl_secs, || {
                    format!("{key} ({secs}) must be more than uploads.{name}.url_ttl_secs ({})", profile.url_ttl_secs)
                });
            }
        }
    }
}

pub(super) const SECS_MAX: u64 = 100 * 366 * 24 * 3600;
