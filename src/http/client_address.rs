//! The client's address, also behind proxies.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{HeaderMap, X_FORWARDED_FOR};
use ipnet::IpNet;

/// The proxies in front of this server. Addresses that any other peer reports are ignored.
///
/// Only `X-Forwarded-For` is read, not `Forwarded` (RFC 7239): a proxy that maintains one of them passes the other on as
/// the client wrote it, so a server that reads both lets clients choose their address.
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Returns the nearest address that is not a trusted proxy's: the last entry that only trusted proxies can have
    /// written. `None` if the peer has no address (a Unix socket).
    pub fn client(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let mut nearest = peer?.ip().to_canonical();
        let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).filter_map(|line| line.to_str().ok()).collect();
        let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
        while self.trust(nearest) {
            match hops.next().and_then(address) {
                Some(hop) => nearest = hop,
                // No further entry, or an unreadable one: the proxy's own address is the best that is known.
                None => break,
            }
        }
        Some(nearest)
    }

    /// Whether the address is a trusted proxy's.
    pub fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// An address, with a port or without one; IPv6 in brackets or bare.
fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry.parse().or_else(|_| entry.parse::<SocketAddr>().map(|with_port| with_port.ip()));
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare.ok().or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use actix_web::http::header::HeaderValue;

    use super::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        proxies.client(Some(SocketAddr::new(peer.parse().unwrap(), 443)), &headers).unwrap().to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(client("192.0.2.1", &["203.0.113.9"]), "192.0.2.1");
    }

    #[test]
    fn the_nearest_hop_that_is_no_proxy_counts() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["198.51.100.7", "203.0.113.9, 10.0.0.2"]), "203.0.113.9");
        assert_eq!(client("fd00::1", &["[2001:db8::1]:1234"]), "2001:db8::1");
        assert_eq!(client("::ffff:10.0.0.1", &["203.0.113.9:80"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["[2001:db8::2]"]), "2001:db8::2");
    }

    #[test]
    fn where_nothing_readable_follows_the_proxy_itself_counts() {
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["203.0.113.9, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.3"]), "10.0.0.3");
    }
}
