//! The limit of open files (sockets included) of this process, and whether the settings may need more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::Settings;

/// Open files that no setting counts: the program's own files, the log, calls to an outside store.
const OTHERS: u64 = 256;

/// SQLite opens the database, its write-ahead log and the index of that.
const FILES_OF_SQLITE: u64 = 3;

/// Raises the soft limit of open files to the hard one: most systems start a process with 1,024, for programs that use
/// select(2), and allow far more. Logs a warning if even the hard limit is less than what the settings add up to.
pub(crate) fn raise(settings: &Settings) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the soft limit of open files (RLIMIT_NOFILE) cannot be raised to the hard one");
    }
    let needed = needed(settings);
    // `None` is no limit at all, which is enough.
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "the limit of open files (RLIMIT_NOFILE) is less than the settings may need: under load, connections wait \
             or fail; raise it (LimitNOFILE of systemd, --ulimit nofile of Docker, ulimit -n), or lower \
             server.max_connections (for each worker), embedded.max_connections or database.max_connections"
        );
    }
}

/// Returns how many files would be open if everything that the settings allow were in use at a time. Live readers are
/// connections of the server, too.
fn needed(settings: &Settings) -> u64 {
    let server = (settings.server.worker_threads() as u64).saturating_mul(settings.server.max_connections as u64);
    let database = u64::from(settings.database.max_connections);
    let database = if settings.database.url.is_some() { database } else { database * FILES_OF_SQLITE };
    // For each: a connection, the file that it reads or writes, and another connection that waits for its place.
    let store = if settings.storage.bucket.is_none() { settings.embedded.max_connections as u64 } else { 0 };
    server.saturating_add(database).saturating_add(store.saturating_mul(3)).saturating_add(OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed_with(set: &[(&str, &str)]) -> u64 {
        let always = [("QUAYMASTER_SERVER__WORKERS", "2"), ("QUAYMASTER_SERVER__MAX_CONNECTIONS", "1000")];
        let set = always.iter().chain(set).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        needed(&Settings::parse(None, set).expect("good settings"))
    }

    #[test]
    fn what_is_needed_is_the_sum_of_what_is_allowed() {
        assert_eq!(needed_with(&[]), 2 * 1000 + 12 * 3 + 512 * 3 + OTHERS);
        let outside = [
            ("DATABASE_URL", "postgres://localhost/x"),
            ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
            ("AUDIT_KEY", "0123456789abcdef0123456789abcdef"),
            ("AWS_BUCKET", "b"),
        ];
        assert_eq!(needed_with(&outside), 2 * 1000 + 12 + OTHERS);
        assert_eq!(needed_with(&[("QUAYMASTER_SERVER__MAX_CONNECTIONS", &i64::MAX.to_string())]), u64::MAX);
    }
}
