//! Requests to stop: Ctrl-C, or SIGTERM, which service managers, containers and `timeout` send.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for the two signals. From then on they do not end the process by themselves.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// # Errors
    /// The system does not accept a signal handler.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next signal. Returns the exit code for it, as in shells: 128 plus the signal's number.
    pub(super) async fn asked(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}
