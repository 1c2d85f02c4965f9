//! Threads of its own for a part of the server. What is woken on threads that it shares with others waits for all that
//! these have to do first; and where it holds something meanwhile, the database's writer for one, others wait with it.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Until it is dropped; what still runs then is dropped too.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// # Errors
    /// The system gives no threads.
    pub(crate) fn new(name: &str, number: usize) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(number.max(1)).thread_name(name).enable_all().build().map(|runtime| Self(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.0.as_ref().expect("it lasts as long as this value").handle()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Whatever drops it, a thread of another runtime perhaps, must not wait there.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
