//! Being asked to stop: by Ctrl-C, or by SIGTERM, which service managers, containers and `timeout` send.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears the two signals. From here on they do not end the process by themselves.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// # Errors
    /// The system takes no handler.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next of them. Answers the exit code for it, as shells have it: 128 and the signal's number.
    pub(super) async fn asked(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}
