//! An S3 endpoint over a folder, for one process.
//!
//! ```no_run
//! # async fn run() -> Result<(), embedded_s3::Error> {
//! let server = embedded_s3::start(embedded_s3::Config {
//!     root: "data/store".into(),
//!     listen: ([127, 0, 0, 1], 9000).into(),
//!     region: "us-east-1".into(),
//!     access_key_id: "AKIDEXAMPLE".into(),
//!     secret_access_key: "a long random secret".into(),
//!     buckets: vec!["assets".into()],
//!     ..Default::default()
//! })
//! .await?;
//! println!("http://{}", server.addr());
//! server.shutdown(std::time::Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # What it is
//!
//! `s3s` implements the protocol and verifies signatures; this crate implements the storage:
//!
//! - **Blobs** (`blob.rs`) are files with random names. A key never becomes a path.
//! - **Rows** (`rows/`) in SQLite map buckets and keys to objects, and objects to *segments* of blobs. So
//!   CompleteMultipartUpload and CopyObject are one transaction each and copy no bytes.
//! - **Verbs** (`object.rs`, `multipart.rs`, `complete.rs`, `copy.rs`, `list.rs`, `bucket.rs`) are methods of `Store`.
//!
//! # What it promises
//!
//! A write that was answered with 200 survives a power cut. The steps of a write: write the blob, fsync the file, fsync
//! its folder, check the digests, COMMIT (WAL, `synchronous=FULL`), answer. A blob that loses its last row is unlinked
//! after the commit, once it has no readers; a blob that no row names is removed at the next start. A GET reads one
//! version to its end, even if the key is overwritten meanwhile. Conditions are checked before a body is read and again
//! in the transaction that commits.
//!
//! The memory of a request does not grow with its body: two batches of 256 KiB, and hyper's buffer.
//!
//! A client that is silent, slow or greedy does not block other clients for long ([`Limits`]). No client blocks the
//! process around the store, which uses a separate address ([`Server::own_addr`]).
//!
//! # What it leaves out, on purpose
//!
//! Versioning, ACLs, policies, lifecycle rules, tags, encryption, HTML forms, Signature Version 2, virtual-hosted
//! addresses: `s3s` answers 501, or this crate refuses the request. The Host header is signed, so a URL made for
//! `localhost` does not work at `127.0.0.1`. There is one key, which may do everything: it is meant for the process
//! around the store, which hands out presigned URLs. The store has no TLS; terminate it in front of the store.
//!
//! `s3s` holds one chunk of an `aws-chunked` body in memory. Only the holder of the key can send such a body;
//! presigned URLs do not accept one.
//!
//! # The log
//!
//! The crate logs through `tracing`, at target `embedded_s3`: `error` for failures of the store (disk, metadata, a missing
//! blob), `debug` for each request, with its method and path but never its query. The log lines of `s3s` are dropped:
//! they would contain whole presigned URLs.

mod auth;
mod blob;
mod bucket;
mod checksum;
mod complete;
mod condition;
mod copy;
mod cors;
mod fault;
mod headers;
mod idle;
mod list;
mod list_uploads;
mod multipart;
mod object;
mod places;
mod range;
mod read;
mod receive;
mod rows;
mod s3;
mod serve;
pub mod sqlite;
mod start;
mod store;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use places::peer_of;
pub use start::{Error, Server, start};

/// Where the store keeps its data and listens, the key to it, and its limits.
#[derive(Clone)]
pub struct Config {
    /// The store's folder; created with mode 0700 if it is missing. One process at a time may use it.
    pub root: PathBuf,
    /// Port 0 selects a free port; [`Server::addr`] returns it.
    pub listen: SocketAddr,
    /// The region that GetBucketLocation and HeadBucket report. Signatures for any region are accepted.
    pub region: String,
    /// Store the id and the secret safely: with new ones, every presigned URL handed out before is invalid.
    pub access_key_id: String,
    pub secret_access_key: String,
    /// Created at start if they are missing.
    pub buckets: Vec<String>,
    pub limits: Limits,
}

impl Default for Config {
    /// Listens on a free port of the loopback interface. `root`, `access_key_id` and `secret_access_key` have no default:
    /// [`start`] refuses empty ones.
    fn default() -> Self {
        Self {
            root: PathBuf::new(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            region: "us-east-1".to_owned(),
            access_key_id: String::new(),
            secret_access_key: String::new(),
            buckets: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("root", &self.root)
            .field("listen", &self.listen)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("buckets", &self.buckets)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Limits on what clients may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time limit for receiving the head of a request, and for waiting for a place. 30 seconds.
    pub header_timeout: Duration,
    /// Longest silence between two requests of a connection. 75 seconds, more than the 60 of most load balancers: one that
    /// sends a request on a connection that is being closed answers its client with 502 (Bad Gateway).
    pub keep_alive: Duration,
    /// Longest silence inside a body, in both directions. 60 seconds.
    pub idle_timeout: Duration,
    /// Minimum rate of a body in bytes per second, in both directions, averaged over [`Self::idle_timeout`]; 0 for no
    /// minimum. A body of `n` bytes may take `idle_timeout` plus one second for each `rate_min` bytes. 4 KiB, so that ten
    /// bodies can share half a megabit per second.
    pub rate_min: u32,
    /// Maximum number of connections. 512, each with at most about 1 MiB of memory. As many more may wait for a place, up
    /// to [`Self::header_timeout`]; then they are answered 503 (SlowDown). An idle connection is closed to make room.
    pub connections_max: usize,
    /// Maximum number of connections of one peer: an IPv4 address or an IPv6 /64 network. 128. Behind a proxy all clients
    /// are one peer.
    pub connections_per_peer_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            idle_timeout: Duration::from_secs(60),
            rate_min: 4096,
            connections_max: 512,
            connections_per_peer_max: 128,
        }
    }
}
