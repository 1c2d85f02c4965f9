use serde::Deserialize;

/// When the passes run: cron strings in UTC, of five fields as in crontab, or of six with seconds first. `None`: never.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub detect_abandoned: Option<String>,
    pub cleanup: Option<String>,
    pub orphans: Option<String>,
    pub reconcile: Option<String>,
}
