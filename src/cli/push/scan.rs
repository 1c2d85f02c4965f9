//! What to push: the files that the arguments name, and how a later run recognizes each.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};

use super::error::Error;

/// Files up to this size are read completely before they are announced: they are recognized by their content, and announced
/// with their SHA-256. A server with default settings takes files up to this size in one PUT.
pub const HASHED_MAX_BYTES: u64 = 5 * 1024 * 1024;
/// How much of each end of a larger file goes into its fingerprint.
const END_BYTES: u64 = 64 * 1024;
/// Longest name that the server accepts, in Unicode scalar values.
const NAME_MAX: usize = 255;

/// A file as it was found. It is sent only while size and time of change stay as they are here.
#[derive(Clone, Debug)]
pub struct LocalFile {
    /// As named on the command line, or below a folder that was.
    pub path: PathBuf,
    pub name: String,
    pub size: u64,
    pub modified: SystemTime,
}

/// How a later run recognizes a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// 64 hex digits; [`LocalFile::identify`] says what they depend on.
    pub fingerprint: String,
    /// Only for files up to [`HASHED_MAX_BYTES`].
    pub sha256: Option<String>,
}

/// All that the arguments name, in their order; folders sorted by name.
#[derive(Debug, Default)]
pub struct Scan {
    pub found: Vec<(PathBuf, Result<LocalFile, Error>)>,
    /// Hidden entries left out inside folders.
    pub hidden: usize,
    /// Symbolic links, devices, sockets and pipes left out inside folders.
    pub special: usize,
}

/// Reads the arguments. Blocks on the file system.
///
/// Arguments are always taken: a link is followed, a hidden file is sent. Inside folders links are not followed, and names
/// that begin with a dot are left out unless `hidden`. A file that is reached twice is taken once.
pub fn scan(arguments: &[PathBuf], hidden: bool) -> Scan {
    let mut scan = Scan::default();
    for path in arguments {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => scan.folder(path, hidden),
            Ok(meta) if meta.is_file() => scan.file(path, &meta),
            Ok(_) => scan.fail(path, Error::Unacceptable("neither a file nor a folder".into())),
            Err(error) => scan.fail(path, error.into()),
        }
    }
    let mut seen = std::collections::HashSet::new();
    scan.found.retain(|(path, _)| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    scan
}

impl Scan {
    fn folder(&mut self, folder: &Path, hidden: bool) {
        let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.fail(folder, error.into()),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if !hidden && entry.file_name().as_encoded_bytes().starts_with(b".") {
                self.hidden += 1;
                continue;
            }
            // The metadata of the entry itself: a link is seen as a link.
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => self.folder(&path, hidden),
                Ok(meta) if meta.is_file() => self.file(&path, &meta),
                Ok(_) => self.special += 1,
                Err(error) => self.fail(&path, error.into()),
            }
        }
    }

    fn file(&mut self, path: &Path, meta: &Metadata) {
        self.found.push((path.to_owned(), LocalFile::new(path, meta)));
    }

    fn fail(&mut self, path: &Path, error: Error) {
        self.found.push((path.to_owned(), Err(error)));
    }
}

impl LocalFile {
    fn new(path: &Path, meta: &Metadata) -> Result<Self, Error> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::Unacceptable("its name is not Unicode text; rename it".into()))?;
        if let Some(why) = name_problem(name) {
            return Err(Error::Unacceptable(format!("its name {why}; rename it")));
        }
        Ok(Self { path: path.to_owned(), name: name.to_owned(), size: meta.len(), modified: meta.modified()? })
    }

    /// Guesses the type by the extension.
    pub fn mime_type(&self) -> String {
        mime_guess::from_path(&self.name).first_or_octet_stream().essence_str().to_owned()
    }

    /// # Errors
    /// [`Error::Changed`] if size or modification time differ from the file that was found.
    pub fn must_be(&self, meta: &Metadata) -> Result<(), Error> {
        if meta.len() == self.size && meta.modified()? == self.modified { Ok(()) } else { Err(Error::Changed) }
    }

    /// Reads up to [`HASHED_MAX_BYTES`]. Blocks on the file system.
    ///
    /// A small file is recognized by path, name, type, size and content. Of the content of a large file only both ends are
    /// read, where files differ most; the time of its last change stands in for the rest.
    ///
    /// # Errors
    /// [`Error::Unreadable`], or [`Error::Changed`] since it was found.
    pub fn identify(&self) -> Result<Identity, Error> {
        let mut file = File::open(&self.path)?;
        self.must_be(&file.metadata()?)?;
        let mut digest = Context::new(&SHA256);
        let mut field = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_be_bytes()); // so that no two lists of fields give the same bytes
            digest.update(bytes);
        };
        field(b"quaymaster push, version 1");
        field(self.path.canonicalize()?.as_os_str().as_encoded_bytes());
        field(self.name.as_bytes());
        // The server accepts a reference for one type only, and another version of this program may guess another type.
        field(self.mime_type().as_bytes());
        field(&self.size.to_be_bytes());
        let sha256 = if self.size <= HASHED_MAX_BYTES {
            let content = sha256_of(&mut file, self.size)?;
            field(content.as_bytes());
            Some(content)
        } else {
            let since_1970 = self.modified.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
            field(&since_1970.to_be_bytes());
            field(sha256_of(&mut file, END_BYTES)?.as_bytes());
            file.seek(SeekFrom::Start(self.size - END_BYTES))?;
            field(sha256_of(&mut file, END_BYTES)?.as_bytes());
            None
        };
        Ok(Identity { fingerprint: hex::encode(digest.finish()), sha256 })
    }
}

/// Hex SHA-256 of exactly the next `size` bytes.
fn sha256_of(file: &mut File, size: u64) -> Result<String, Error> {
    let mut digest = Context::new(&SHA256);
    let mut frame = vec![0; END_BYTES as usize];
    let mut left = file.take(size);
    loop {
        let read = left.read(&mut frame)?;
        if read == 0 {
            break;
        }
        digest.update(&frame[..read]);
    }
    if left.limit() > 0 { Err(Error::Changed) } else { Ok(hex::encode(digest.finish())) }
}

/// Why the server would refuse this name.
fn name_problem(name: &str) -> Option<&'static str> {
    if name.chars().count() > NAME_MAX {
        Some("is longer than 255 characters")
    } else if name.chars().any(char::is_control) {
        Some("holds a control character")
    } else if name.contains(['/', '\\']) {
        Some("holds a slash or a backslash")
    } else {
        None
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Unreadable(error.to_string())
    }
}

#[cfg(test)]
#[path = "scan_test.rs"]
mod tests;
