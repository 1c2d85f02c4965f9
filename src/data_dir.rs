//! The data folder of the embedded default: the database, the objects and the secrets, all in one place.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

const RESERVE: &str = ".reserve";
/// The sizes to try, in order. Two databases need 32 KiB each for the index of the log, and a few pages for the log itself.
const RESERVE_BYTES: [usize; 3] = [1 << 20, 512 << 10, 256 << 10];

/// A secret of the deployment, in a file of its own.
#[derive(Debug)]
pub struct SecretFile {
    name: &'static str,
    /// Minimum number of characters. A file with fewer was cut short or made by hand, and is refused.
    least: usize,
    make: fn() -> String,
}

/// For HS256. As long as `auth.jwt_secret` must be.
pub const JWT_SECRET: SecretFile = SecretFile { name: "jwt-secret", least: 32, make: || random_hex(32) };
/// As long as `audit.key` must be.
pub const AUDIT_KEY: SecretFile = SecretFile { name: "audit-key", least: 32, make: || random_hex(32) };
/// As long as `embedded.access_key_id` must be.
pub const STORE_ACCESS_KEY_ID: SecretFile =
    SecretFile { name: "store-access-key-id", least: 16, make: || format!("QM{}", random_hex(9).to_uppercase()) };
/// As long as `embedded.secret_access_key` must be.
pub const STORE_SECRET_ACCESS_KEY: SecretFile =
    SecretFile { name: "store-secret-access-key", least: 32, make: || random_hex(32) };

const SECRETS: [&SecretFile; 4] = [&JWT_SECRET, &AUDIT_KEY, &STORE_ACCESS_KEY_ID, &STORE_SECRET_ACCESS_KEY];

const DATABASE: &str = "quaymaster.db";
/// The files that SQLite creates beside its database, with the database's mode.
const BESIDE_DATABASE: [&str; 3] = ["quaymaster.db-wal", "quaymaster.db-shm", "quaymaster.db-journal"];
const STORE: &str = "store";

/// Why the data folder cannot be used. Each text names the file, and shows nothing of its content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{} holds {chars} characters, but a secret must have at least {least}: restore it from a backup, or remove it \
         to have the server make a new one at its next start",
        path.display()
    )]
    Short { path: PathBuf, chars: usize, least: usize },
    #[error(
        "{} is missing, but the database beside it was written with it: restore it from a backup, or set audit.key \
         (AUDIT_KEY) to the same key",
        .0.display()
    )]
    AuditKeyLost(PathBuf),
    #[error("{} is missing: start the server, which makes it", .0.display())]
    Missing(PathBuf),
}

/// A folder whose contents only this user can read.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Returns the folder as it is; makes and changes nothing. `None` if there is none.
    pub fn open(path: &Path) -> Option<Self> {
        path.is_dir().then(|| Self { path: path.to_owned() })
    }

    /// Makes the folder if it is missing, with mode 0700. In an existing folder, access for others is removed from the
    /// server's own files and folders: mode 0600 and 0700. The folder itself stays as it is, because it may hold other
    /// things.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn make(path: &Path) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| at(path, source))?;
        let dir = Self { path: path.to_owned() };
        let secrets = SECRETS.map(|secret| secret.name);
        for name in BESIDE_DATABASE.into_iter().chain(secrets).chain([DATABASE, STORE]) {
            dir.close_to_others(name);
        }
        Ok(dir)
    }

    /// Removes access for others, best effort: a volume may not support modes, or may give files to another user, and the
    /// server must still work there.
    fn close_to_others(&self, name: &str) {
        let path = self.path.join(name);
        let closed = std::fs::metadata(&path).and_then(|found| match found.mode() & 0o7777 {
            mode if mode & 0o077 == 0 => Ok(()),
            mode => std::fs::set_permissions(&path, Permissions::from_mode(mode & 0o700)),
        });
        match closed {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "others may be able to read this file"),
        }
    }

    pub fn database_file(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Makes the database's file, empty, if it is missing, so that its mode is 0600 and not what the umask leaves.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn make_database_file(&self) -> Result<(), Error> {
        let path = self.database_file();
        let made = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        made.map(drop).map_err(|source| at(&path, source))
    }

    /// Returns whether a database has been written here.
    pub fn has_database(&self) -> bool {
        std::fs::metadata(self.database_file()).is_ok_and(|found| found.len() > 0)
    }

    pub fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Reserves a little disk space for a start on a full disk: SQLite needs a few pages for its log even to open a database
    /// that was closed cleanly. Best effort; an existing reserve is left as it is.
    pub fn keep_reserve(&self) {
        let path = self.path.join(RESERVE);
        for bytes in RESERVE_BYTES {
            match write_reserve(&path, bytes) {
                Ok(()) => return,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return,
                // A partial reserve is useless: it would take what the next start needs.
                Err(error) => {
                    debug!(%error, bytes, "no reserve of this size fits on the disk");
                    self.release_reserve();
                }
            }
        }
        warn!(folder = %self.path.display(), "the disk is full: writes will be refused");
    }

    /// Frees the space that [`Self::keep_reserve`] took, before the databases are opened.
    pub fn release_reserve(&self) {
        match std::fs::remove_file(self.path.join(RESERVE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                warn!(%error, "the reserve of disk space cannot be freed");
            }
            _ => {}
        }
    }

    /// Makes the store's folder if it is missing, with mode 0700, and syncs it to disk, so that a power cut does not remove
    /// it with its content.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn make_store(&self) -> Result<(), Error> {
        let path = self.store();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.and_then(|()| File::open(&self.path)?.sync_all()).map_err(|source| at(&path, source))
    }

    pub fn path_of(&self, secret: &SecretFile) -> PathBuf {
        self.path.join(secret.name)
    }

    /// Returns the stored secret; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is too short for such a secret.
    pub fn secret(&self, secret: &SecretFile) -> Result<Option<String>, Error> {
        let path = self.path_of(secret);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { path, source }),
        };
        let chars = text.chars().count();
        if chars < secret.least {
            return Err(Error::Short { path, chars, least: secret.least });
        }
        Ok(Some(text))
    }

    /// Returns the stored secret. It is made at the first call, with mode 0600, and stays the same from then on.
    ///
    /// Any number of processes and threads may call this at once: all get the stored one.
    ///
    /// # Errors
    /// As [`DataDir::secret`]; the file cannot be written.
    pub fn secret_or_new(&self, secret: &SecretFile) -> Result<String, Error> {
        if let Some(kept) = self.secret(secret)? {
            return Ok(kept);
        }
        let path = self.path_of(secret);
        self.keep(secret, &path).map_err(|source| at(&path, source))?;
        self.secret(secret)?.ok_or_else(|| at(&path, ErrorKind::NotFound.into()))
    }

    fn keep(&self, secret: &SecretFile, path: &Path) -> io::Result<()> {
        // First written completely under another name: a crash leaves no partial secret under the secret's own name, and
        // a link, unlike a rename, does not replace a secret that another process has just made. The draft's name is
        // random: in two containers on one volume, both processes may have the id 1.
        let draft = self.path.join(format!(".{}.{}", secret.name, random_hex(8)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let linked = writeln!(file, "{}", (secret.make)())
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::hard_link(&draft, path));
        std::fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        File::open(&self.path)?.sync_all()
    }
}

/// Writes random bytes: zeros would be a hole on some file systems.
fn write_reserve(path: &Path, bytes: usize) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    file.write_all(&random)?;
    file.sync_all()
}

fn at(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

/// Returns `bytes` random bytes in hex.
pub fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).expect("the operating system's random source does not fail");
    hex::encode(random)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Barrier;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_secret_is_made_once_and_for_its_owner_only() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::make(&parent.path().join("data")).unwrap();
        assert_eq!(dir.secret(&AUDIT_KEY).unwrap(), None);
        let first = dir.secret_or_new(&AUDIT_KEY).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(dir.secret_or_new(&AUDIT_KEY).unwrap(), first);
        assert_eq!(dir.secret(&AUDIT_KEY).unwrap(), Some(first));
        assert_eq!(mode(&parent.path().join("data/audit-key")), 0o600);
        assert_eq!(mode(&parent.path().join("data")), 0o700);
    }

    #[test]
    fn every_secret_is_as_long_as_it_must_be() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::make(parent.path()).unwrap();
        for secret in SECRETS {
            let made = dir.secret_or_new(secret).unwrap();
            for short in ["", "\n", "  \n", &made[..secret.least - 1]] {
                std::fs::write(dir.path_of(secret), short).unwrap();
                for refused in [dir.secret(secret).map(drop), dir.secret_or_new(secret).map(drop)] {
                    let text = refused.unwrap_err().to_string();
                    assert!(text.contains(secret.name) && text.contains("at least"), "{text}");
                    assert!(short.trim().is_empty() || !text.contains(short.trim()), "{text}");
                }
            }
        }
    }

    #[test]
    fn all_who_ask_at_once_get_the_one_that_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let dir = DataDir::make(&parent.path().join(round.to_string())).unwrap();
            let begin = Barrier::new(8);
            let secrets: Vec<String> = std::thread::scope(|scope| {
                let ask = || {
                    begin.wait();
                    dir.secret_or_new(&JWT_SECRET).unwrap()
                };
                let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
                asking.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let kept = dir.secret(&JWT_SECRET).unwrap().unwrap();
            assert!(secrets.iter().all(|secret| *secret == kept), "{secrets:?}");
            let files = std::fs::read_dir(parent.path().join(round.to_string())).unwrap();
            assert_eq!(files.count(), 1, "a draft is left over");
        }
    }

    #[test]
    fn what_is_kept_in_a_folder_that_lets_others_in_is_closed_to_them() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(path.join(STORE)).unwrap();
        std::fs::set_permissions(path.join(STORE), Permissions::from_mode(0o755)).unwrap();
        for name in [DATABASE, "quaymaster.db-wal", "audit-key", "somebody-elses"] {
            std::fs::write(path.join(name), "x").unwrap();
            std::fs::set_permissions(path.join(name), Permissions::from_mode(0o644)).unwrap();
        }
        let dir = DataDir::make(&path).unwrap();
        for name in [DATABASE, "quaymaster.db-wal", "audit-key"] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        assert_eq!(mode(&path.join(STORE)), 0o700);
        assert_eq!((mode(&path), mode(&path.join("somebody-elses"))), (0o755, 0o644), "not the server's own");

        std::fs::remove_file(dir.database_file()).unwrap();
        dir.make_database_file().unwrap();
        dir.make_database_file().unwrap();
        assert_eq!(mode(&dir.database_file()), 0o600);
        assert!(!dir.has_database());
    }

    #[test]
    fn to_open_makes_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        assert!(DataDir::open(&path).is_none());
        assert!(!path.exists());
    }
}
