use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::Complaints;

/// The HTTP server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub host: String,
    /// 0 selects a free port.
    pub port: u16,
    /// 0 starts one for each core.
    pub workers: usize,
    /// How long a shutdown waits for requests that are being answered.
    pub shutdown_grace_secs: u64,
    /// A client has this long to send a request's line and headers.
    pub head_timeout_secs: u64,
    /// The largest line and headers of a request, in bytes.
    pub head_max_bytes: usize,
    /// Maximum number of connections of one address, other than a trusted proxy's, that have not sent a whole request head
    /// yet.
    pub silent_connections_per_address_max: usize,
    /// A client has this long to send the whole request body.
    pub body_timeout_secs: u64,
    /// A client may leave sent data unacknowledged, or keep its receive window closed, for this long.
    pub write_timeout_secs: u64,
    /// An idle connection is kept open for this long.
    pub keep_alive_secs: u64,
    /// Maximum number of open connections for each worker; more wait in the listen queue.
    pub max_connections: usize,
    /// Maximum bytes of large request bodies that are being read or parsed: in total, and of one tenant.
    pub bodies_max_bytes: usize,
    pub bodies_per_tenant_max_bytes: usize,
    /// The same for large answers that clients have not taken yet.
    pub answers_max_bytes: usize,
    pub answers_per_tenant_max_bytes: usize,
    /// Addresses and networks whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<String>,
}

impl Server {
    /// Returns the number of worker threads to start.
    pub fn worker_threads(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }

    /// Parses `trusted_proxies`; a bare address is a network of one address.
    ///
    /// # Errors
    /// The entry that is neither an address nor a network in CIDR form.
    pub fn trusted_networks(&self) -> Result<Vec<IpNet>, String> {
        let network = |entry: &String| {
            let entry = entry.trim();
            entry.parse().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                format!("server.trusted_proxies: {entry:?} is neither an IP address nor a network such as 10.0.0.0/8")
            })
        };
        self.trusted_proxies.iter().map(network).collect()
    }

    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.unless(!self.host.trim().is_empty(), || "server.host is empty".into());
        complaints.at_least_one("server.head_timeout_secs", self.head_timeout_secs);
        complaints.at_least_one("server.body_timeout_secs", self.body_timeout_secs);
        complaints.unless((1..=86_400).contains(&self.write_timeout_secs), || {
            format!("server.write_timeout_secs ({}) must be 1 to 86400 (one day)", self.write_timeout_secs)
        });
        complaints.unless((1..=86_400).contains(&self.keep_alive_secs), || {
            format!("server.keep_alive_secs ({}) must be 1 to 86400 (one day)", self.keep_alive_secs)
        });
        complaints.at_least_one("server.max_connections", self.max_connections as u64);
        complaints.unless((1 << 10..=1 << 17).contains(&self.head_max_bytes), || {
            format!("server.head_max_bytes ({}) must be 1024 to 131072 (128 KiB)", self.head_max_bytes)
        });
        complaints
            .at_least_one("server.silent_connections_per_address_max", self.silent_connections_per_address_max as u64);
        for (what, all, share) in [
            ("bodies", self.bodies_max_bytes, self.bodies_per_tenant_max_bytes),
            ("answers", self.answers_max_bytes, self.answers_per_tenant_max_bytes),
        ] {
            complaints.unless((1 << 20..=1 << 40).contains(&all), || {
                format!("server.{what}_max_bytes ({all}) must be 1048576 to 1099511627776 (1 MiB to 1 TiB)")
            });
            complaints.unless((1 << 20..=all).contains(&share), || {
                format!(
                    "server.{what}_per_tenant_max_bytes ({share}) must be 1048576 (1 MiB) to server.{what}_max_bytes \
                     ({all})"
                )
            });
        }
        if let Err(complaint) = self.trusted_networks() {
            complaints.add(complaint);
        }
    }
}
