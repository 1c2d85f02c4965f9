//! Dedicated threads for a part of the server. A task that is woken on shared threads waits first for all other work there;
//! and if it holds something meanwhile, such as the database's writer, others wait with it.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that run until this is dropped; tasks that still run then are dropped too.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// # Errors
    /// The system refuses to create threads.
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
        // The thread that drops this, perhaps one of another runtime, must not wait here.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
