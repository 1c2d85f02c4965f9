use serde::Deserialize;

/// When the passes run: cron strings in UTC, of five fields as in crontab, or of six with seconds first; or `never`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub detect_abandoned: String,
    pub cleanup: String,
    pub orphans: String,
    pub reconcile: String,
}
