//! A disk that fails on order, under the server that runs as a program: a small library stands before the C library of
//! that process, and what it is told to fail stands in a file that both have mapped or written.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `errno`, as Linux numbers it.
#[derive(Clone, Copy, Debug)]
pub enum Errno {
    /// EIO
    Io = 5,
    /// ENOSPC
    NoSpace = 28,
    /// EROFS
    ReadOnly = 30,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub enum Calls {
    Writes = 1,
    Syncs = 2,
}

/// The size of `struct orders` in disk.c, and where its counter stands.
const BYTES: u64 = 256;
const SEEN_AT: u64 = 24;
const PATH_BYTES: usize = 224;

/// The orders for one process, or for several one after the other.
#[derive(Debug)]
pub struct Disk {
    file: File,
    path: PathBuf,
}

impl Disk {
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("disk-orders");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(BYTES).unwrap();
        Self { file, path }
    }

    /// What the program's environment must have for its disk to obey.
    pub fn env(&self) -> [(&'static str, String); 2] {
        let text = |path: &Path| path.to_str().expect("a temporary folder's name is UTF-8").to_owned();
        [("LD_PRELOAD", text(library())), ("DISK_ORDERS", text(&self.path))]
    }

    /// From now on, of the calls on files whose path contains `path`, `pass` go through and then `fail` fail.
    pub fn fail(&self, path: &str, calls: Calls, errno: Errno, pass: u32, fail: u32) {
        self.heal();
        let mut name = [0; PATH_BYTES];
        name[..path.len()].copy_from_slice(path.as_bytes());
        self.file.write_all_at(&(calls as u32).to_ne_bytes(), 4).unwrap();
        self.file.write_all_at(&i64::from(pass).to_ne_bytes(), 8).unwrap();
        self.file.write_all_at(&i64::from(fail).to_ne_bytes(), 16).unwrap();
        self.file.write_all_at(&0_i64.to_ne_bytes(), SEEN_AT).unwrap();
        self.file.write_all_at(&name, 32).unwrap();
        // Last: from here on it holds.
        self.file.write_all_at(&(errno as u32).to_ne_bytes(), 0).unwrap();
    }

    pub fn heal(&self) {
        self.file.write_all_at(&0_u32.to_ne_bytes(), 0).unwrap();
    }

    /// How many calls have met the last order, failed or not.
    pub fn seen(&self) -> i64 {
        let mut seen = [0; 8];
        self.file.read_exact_at(&mut seen, SEEN_AT).unwrap();
        i64::from_ne_bytes(seen)
    }
}

/// The compiled disk.c, made once for each process that runs tests.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/kit/disk.c");
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("disk-{}.so", std::process::id()));
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&made).args([source, "-ldl"]).output();
        let compiled = compiled.expect("there is a C compiler: scripts/setup toolchain");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        made
    })
}
