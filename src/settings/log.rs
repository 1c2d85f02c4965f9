use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::Complaints;

/// What is logged to standard error, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A level, or directives as `tracing_subscriber::EnvFilter` reads them.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    Pretty,
    /// One object on each line.
    Json,
}

impl Log {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        // EnvFilter reads a word that is not a level as the name of a module, and then logs almost nothing.
        let bare = |word: &&str| !word.contains(['=', '[', ':']) && word.parse::<LevelFilter>().is_err();
        if let Some(word) = self.level.split(',').map(str::trim).find(bare) {
            complaints.add(format!(
                "log.level: {word:?} is neither a level (error, warn, info, debug, trace, off) nor a directive such as \
                 quaymaster=debug"
            ));
        } else if let Err(error) = EnvFilter::try_new(&self.level) {
            complaints.add(format!("log.level: {error}"));
        }
    }
}
