//! The addresses on which this process listens.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {0}")]
pub struct ListenError(pub String, #[source] pub io::Error);

/// Returns the URL at which this machine itself reaches a server that listens on `host` and `port`.
pub(crate) fn http_url(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => format!("http://{}:{port}", Ipv4Addr::LOCALHOST),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => format!("http://[{}]:{port}", Ipv6Addr::LOCALHOST),
        Ok(IpAddr::V6(ip)) => format!("http://[{ip}]:{port}"),
        _ => format!("http://{host}:{port}"),
    }
}

/// Returns the address to listen on.
///
/// # Errors
/// The name has no address.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<SocketAddr, ListenError> {
    let failed = |error| ListenError(format!("{host}:{port}"), error);
    let found = tokio::net::lookup_host((host, port)).await.map_err(failed)?.next();
    found.ok_or_else(|| failed(io::Error::other("the name has no address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_where_this_machine_reaches_itself() {
        for (host, url) in [
            ("127.0.0.1", "http://127.0.0.1:80"),
            ("0.0.0.0", "http://127.0.0.1:80"),
            ("::", "http://[::1]:80"),
            ("::1", "http://[::1]:80"),
            ("fd00::7", "http://[fd00::7]:80"),
            ("store.internal", "http://store.internal:80"),
        ] {
            assert_eq!(http_url(host, 80), url);
        }
    }
}
