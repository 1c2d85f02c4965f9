//! Dedicated threads for a part of the server. A task that is woken on shared threads waits first for all other work there;
//! and if it holds something meanwhile, such as the database's writer, others wait with it.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::turns::ActiveTenants;
use crate::yielding;

/// The system has no more threads for this process.
#[derive(Debug, thiserror::Error)]
#[error("the system refuses to create threads; check its limit (ulimit -u)")]
pub struct ThreadsError(#[source] io::Error);

/// Threads that run until this is dropped; tasks that still run then are dropped too.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// # Errors
    /// [`ThreadsError`].
    pub(crate) fn new(name: &str, number: usize) -> Result<Self, ThreadsError> {
        Self::starting_with(name, number, || ())
    }

    /// For work that takes long: see [`yielding`].
    ///
    /// # Errors
    /// [`ThreadsError`].
    pub(crate) fn for_long_work(name: &str, number: usize, active: &ActiveTenants) -> Result<Self, ThreadsError> {
        let active = active.clone();
        Self::starting_with(name, number, move || yielding::start_on_this_thread(&active))
    }

    fn starting_with(
        name: &str,
        number: usize,
        first: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, ThreadsError> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(number.max(1)).thread_name(name).enable_all().on_thread_start(first);
        builder.build().map(|runtime| Self(Some(runtime))).map_err(ThreadsError)
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
