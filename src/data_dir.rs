//! The folder of the embedded default: the database, the objects and the secrets, all in one place.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

const RESERVE: &str = ".reserve";
/// Two databases need 32 KiB each for the index of the log, and a few pages for the log itself.
const RESERVE_BYTES: [usize; 3] = [1 << 20, 512 << 10, 256 << 10];

/// A folder that only this user can read.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Makes the folder where missing, mode 0700.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self { path: path.to_owned() })
    }

    pub fn database_file(&self) -> PathBuf {
        self.path.join("quaymaster.db")
    }

    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Keeps a little of the disk for a start on a full one: SQLite cannot open a database that was closed well without
    /// a few pages for its log. Best effort; what is there already is left as it is.
    pub fn keep_reserve(&self) {
        let path = self.path.join(RESERVE);
        for bytes in RESERVE_BYTES {
            match write_reserve(&path, bytes) {
                Ok(()) => return,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return,
                // Half a reserve is none: it would take what the next start needs.
                Err(error) => {
                    debug!(%error, bytes, "no reserve of this size fits on the disk");
                    self.release_reserve();
                }
            }
        }
        warn!(folder = %self.path.display(), "the disk is full: what is written will be refused");
    }

    /// Gives the space back that [`Self::keep_reserve`] took, before the databases are opened.
    pub fn release_reserve(&self) {
        match std::fs::remove_file(self.path.join(RESERVE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                warn!(%error, "the reserve of disk space cannot be given back");
            }
            _ => {}
        }
    }

    /// The secret kept under `name`, made by `make` at the first call and the same ever after, mode 0600.
    ///
    /// Two processes may ask at once: both get the one that is kept.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn secret(&self, name: &str, make: impl FnOnce() -> String) -> io::Result<String> {
        let path = self.path.join(name);
        match std::fs::read_to_string(&path) {
            Ok(secret) => return Ok(secret.trim().to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Written whole under another name first: a crash leaves no half a secret under its own name, and a link,
        // unlike a rename, does not replace the one that another process was quicker to make.
        let draft = self.path.join(format!(".{name}.{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        writeln!(file, "{}", make())?;
        file.sync_all()?;
        let linked = std::fs::hard_link(&draft, &path);
        std::fs::remove_file(&draft)?;
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        File::open(&self.path)?.sync_all()?;
        Ok(std::fs::read_to_string(&path)?.trim().to_owned())
    }
}

/// Zeros would be a hole on some file systems.
fn write_reserve(path: &Path, bytes: usize) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    file.write_all(&random)?;
    file.sync_all()
}

/// `bytes` random bytes in hex.
pub fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).expect("the operating system's random source does not fail");
    hex::encode(random)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_for_its_owner_only() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&parent.path().join("data")).unwrap();
        let first = dir.secret("key", || random_hex(32)).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(dir.secret("key", || unreachable!("it is there")).unwrap(), first);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&parent.path().join("data/key")), 0o600);
        assert_eq!(mode(&parent.path().join("data")), 0o700);
    }
}
