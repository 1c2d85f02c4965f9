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
//! `s3s` speaks the protocol and checks signatures; the disk is ours:
//!
//! - **Blobs** (`blob.rs`) are files with random names. A key never becomes a path.
//! - **Rows** (`rows/`) in SQLite say which bucket holds which key, and of which *segments* of which blobs it
//!   consists. So CompleteMultipartUpload and CopyObject are one transaction: no byte is copied.
//! - **Verbs** (`object.rs`, `multipart.rs`, `complete.rs`, `copy.rs`, `list.rs`, `bucket.rs`) are methods of `Store`.
//!
//! # What it promises
//!
//! What was answered with 200 survives a power cut. A write goes: blob, fsync of the file, fsync of its folder, digests
//! checked, COMMIT (WAL, `synchronous=FULL`), answer. Blobs that lose their last row are unlinked after
//! the commit, once nobody reads them; blobs that no row names are removed at the next start. A GET reads one version
//! to its end, whatever is written meanwhile. Conditions are checked before a body is read and again in the commit.
//!
//! The memory of a request does not grow with its body: two batches of 256 KiB, and hyper's buffer.
//!
//! No client holds up another for long by saying nothing, by being slow or by asking for much ([`Limits`]), and none
//! holds up the process around the store, which has an address of its own ([`Server::own_addr`]).
//!
//! # What it leaves out, on purpose
//!
//! Versioning, ACLs, policies, lifecycle rules, tags, encryption, HTML forms, Signature Version 2, virtual-hosted
//! addresses: `s3s` answers 501, or we refuse. The Host header is signed, so a URL made for
//! `localhost` does not work at `127.0.0.1`. One key may do everything: it is meant for the process around the store,
//! which hands out presigned URLs. TLS ends in front of it.
//!
//! `s3s` holds one chunk of an `aws-chunked` body in memory. Only the holder of the key can send such a body;
//! presigned URLs do not take them.
//!
//! # The log
//!
//! Through `tracing`, at target `embedded_s3`: `error` for what is ours (disk, metadata, a blob that is missing), `debug`
//! for each request, with method and path, never the query. `s3s` itself is kept out of the log: it would
//! write whole presigned URLs.

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

/// Where the store lives, and who may use it.
#[derive(Clone)]
pub struct Config {
    /// The folder; made (mode 0700) where it is missing. One process at a time.
    pub root: PathBuf,
    /// Port 0 takes a free one; [`Server::addr`] says which.
    pub listen: SocketAddr,
    /// What GetBucketLocation answers. Signatures for any region are taken.
    pub region: String,
    /// Keep the two in a safe place: with new ones, every URL handed out is void.
    pub access_key_id: String,
    pub secret_access_key: String,
    /// Made at start where missing.
    pub buckets: Vec<String>,
    pub limits: Limits,
}

impl Default for Config {
    /// A free port of the loopback interface. The root and the two keys have no default: [`start`] refuses empty ones.
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

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the head of a request, and for the wait for a place. 30 seconds.
    pub header_timeout: Duration,
    /// For the silence between two requests of a connection. 75 seconds, more than the 60 of most balancers: one that
    /// sends a request into a connection that ends tells its client of a bad gateway.
    pub keep_alive: Duration,
    /// For the silence inside a body, in both directions. 60 seconds.
    pub idle_timeout: Duration,
    /// Bytes a second of a body, in both directions, on average over [`Self::idle_timeout`]; 0 for no minimum. A body of
    /// `n` bytes has `idle_timeout` and a second for each `rate_min` bytes. 4 KiB: half a megabit shared by ten bodies.
    pub rate_min: u32,
    /// Connections at a time. 512, each at most about 1 MiB of memory. As many more wait up to
    /// [`Self::header_timeout`] for a place, then they are answered 503 (SlowDown). One without a request makes room.
    pub connections_max: usize,
    /// Connections at a time of one peer, an IPv4 address or an IPv6 network of 64 bits. 128. Behind a proxy all clients
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
