//! What is set on every connection before anything is read from it.

use std::time::Duration;

use actix_web::rt::net::TcpStream;

/// Has the kernel end a connection whose client has taken nothing for `timeout` of what was sent to it: neither
/// acknowledged it, nor opened a window that was shut (`TCP_USER_TIMEOUT`, tcp(7)). actix waits for as long as it takes,
/// and asks the body for nothing meanwhile, so no time-out of ours would run.
pub(super) fn bound_writes(stream: &TcpStream, timeout: Duration) {
    if let Err(error) = set(stream, timeout) {
        tracing::warn!(%error, "a connection is without server.write_timeout_secs");
    }
}

#[cfg(target_os = "linux")]
fn set(stream: &TcpStream, timeout: Duration) -> std::io::Result<()> {
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(timeout))
}

#[cfg(not(target_os = "linux"))]
fn set(_: &TcpStream, _: Duration) -> std::io::Result<()> {
    Ok(())
}
