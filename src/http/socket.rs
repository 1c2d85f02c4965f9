//! The options that are set on every connection before anything is read from it.

use std::time::Duration;

use actix_web::rt::net::TcpStream;

/// Makes the kernel close a connection whose client has taken none of the sent data for `timeout`: it has neither
/// acknowledged data nor opened a closed window (`TCP_USER_TIMEOUT`, tcp(7)). actix waits without a limit and does not poll
/// the body meanwhile, so a timeout of ours would not run.
pub(super) fn bound_writes(stream: &TcpStream, timeout: Duration) {
    if let Err(error) = set(stream, timeout) {
        tracing::warn!(%error, "server.write_timeout_secs cannot be set on a connection");
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
