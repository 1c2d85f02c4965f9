//! The settings, read and checked once at the start. One struct for each area, with units in the names.
//!
//! `config/default.toml` says what each key means and is itself the first source. The one file named by `--config` or
//! `QUAYMASTER_CONFIG` overrides it, and the environment overrides both (`sources.rs`).

mod audit;
mod auth;
mod cors;
mod database;
mod downloads;
mod embedded;
mod error;
mod feed;
mod jobs;
mod lifecycle;
mod log;
mod rate_limit;
mod schedule;
mod secret;
mod server;
mod sessions;
mod sources;
mod storage;
mod uploads;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use audit::Audit;
pub use auth::{Auth, Claims};
pub use cors::Cors;
pub use database::Database;
pub use downloads::Downloads;
pub use embedded::Embedded;
use error::Complaints;
pub use error::Error;
pub use feed::Feed;
pub use jobs::Jobs;
pub use lifecycle::Lifecycle;
pub use log::{Log, LogFormat};
pub use rate_limit::RateLimit;
pub use schedule::Schedule;
pub use secret::Secret;
pub use server::Server;
pub use sessions::Sessions;
use sources::Sources;
pub use storage::{Provider, ProvisionStrategy, Storage};
pub use uploads::UploadProfile;

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub server: Server,
    pub log: Log,
    pub cors: Cors,
    pub auth: Auth,
    pub rate_limit: RateLimit,
    pub database: Database,
    pub storage: Storage,
    pub embedded: Embedded,
    pub sessions: Sessions,
    pub lifecycle: Lifecycle,
    pub schedule: Schedule,
    pub jobs: Jobs,
    /// The whole section may be left out.
    #[serde(default)]
    pub audit: Audit,
    pub feed: Feed,
    pub downloads: Downloads,
    /// By name; `default` always exists. A profile inherits from `default` what it leaves out.
    pub uploads: BTreeMap<String, UploadProfile>,
    /// Settings that are allowed but probably not intended; logged once logging is set up.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads the defaults, the file (or the one that `QUAYMASTER_CONFIG` names) and this process's environment.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a value of the wrong type, or values that contradict each other. Reports
    /// as many problems as could be found, each with its key.
    pub fn load(config_file: Option<&Path>) -> Result<Self, Error> {
        let environment = sources::process_environment()?;
        let named = || {
            let value = environment.iter().find(|(name, value)| name == "QUAYMASTER_CONFIG" && !value.is_empty());
            value.map(|(_, path)| PathBuf::from(path))
        };
        let text = match config_file.map(Path::to_path_buf).or_else(named) {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| format!("cannot read the configuration file {}: {error}", path.display()))?;
                Some(text)
            }
        };
        Self::parse(text.as_deref(), environment)
    }

    /// Like [`Settings::load`], but from the given texts.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn parse(file: Option<&str>, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let mut complaints = Complaints::default();
        let sources = Sources::read(file, environment, &mut complaints);
        complaints.finish()?;

        let (mut settings, warnings): (Self, _) = sources.into_settings()?;
        settings.warnings = warnings;
        settings.check()?;
        settings.warn();
        Ok(settings)
    }

    /// Returns the limits of uploads that name no profile.
    pub fn default_profile(&self) -> &UploadProfile {
        self.uploads.get("default").expect("config/default.toml has it, and no source can take a key away")
    }

    fn check(&self) -> Result<(), Error> {
        let mut complaints = Complaints::default();
        self.server.check(&mut complaints);
        self.log.check(&mut complaints);
        self.cors.check(&mut complaints);
        self.auth.check(&mut complaints);
        self.rate_limit.check(&mut complaints);
        self.database.check(&mut complaints);
        self.storage.check(&mut complaints);
        self.embedded.check(&mut complaints);
        self.sessions.check(&mut complaints);
        self.lifecycle.check(&self.uploads, &self.storage, &mut complaints);
        self.schedule.check(&mut complaints);
        self.jobs.check(&mut complaints);
        self.audit.check(&mut complaints);
        self.feed.check(&mut complaints);
        self.downloads.check(&mut complaints);
        for (name, profile) in &self.uploads {
            profile.check(name, &self.sessions, &self.storage, &mut complaints);
        }
        // The embedded deployment creates its own secret. With an external database there may be several replicas, and each
        // would create a different one.
        complaints.unless(self.database.url.is_none() || self.auth.has_key(), || {
            "database.url (DATABASE_URL) is set without a key for tokens: set auth.jwt_secret (JWT_SECRET), \
             auth.public_key_file or auth.jwks_url"
                .into()
        });
        complaints.unless(self.database.url.is_none() || self.audit.key.is_some(), || {
            "database.url (DATABASE_URL) is set without audit.key (AUDIT_KEY), which all replicas share; \
             `openssl rand -hex 32` makes a good one"
                .into()
        });
        let embedded_store = self.storage.bucket.is_none();
        complaints.unless(!embedded_store || self.server.port != self.embedded.port || self.server.port == 0, || {
            format!("server.port and embedded.port are both {}; they must be different", self.server.port)
        });
        complaints.finish()
    }

    fn warn(&mut self) {
        // A server that listens for other machines is meant to take their uploads.
        let everywhere = |host: &str| host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
        let here =
            |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let embedded = &self.embedded;
        let only_here = everywhere(&embedded.host) || (everywhere(&self.server.host) && here(&embedded.host));
        if self.storage.bucket.is_none() && embedded.public_url.is_none() && only_here {
            self.warnings.push(format!(
                "embedded.host is {} without embedded.public_url: the URLs for uploads and downloads work only on this \
                 machine; set embedded.public_url to the store's address as browsers see it",
                embedded.host
            ));
        }
        if self.auth.jwks_url.is_some() && self.auth.audience.is_none() {
            self.warnings.push(
                "auth.jwks_url is set without auth.audience: tokens that the identity provider issues for other \
                 services are accepted too"
                    .into(),
            );
        }
        if self.auth.jwks_url.as_deref().is_some_and(|url| url.starts_with("http:")) {
            self.warnings.push("auth.jwks_url is not https: anyone on the network path can replace the keys".into());
        }
    }
}

#[cfg(test)]
mod tests;
