//! Dedicated threads for a part of the server. A task that is woken on shared threads waits first for all other work there;
//! and if it holds something meanwhile, such as the database's writer, others wait with it.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::turns::Company;
use crate::yielding;

/// Threads that run until this is dropped; tasks that still run then are dropped too.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// # Errors
    /// The system refuses to create threads.
    pub(crate) fn new(name: &str, number: usize) -> io::Result<Self> {
        Self::starting_with(name, number, || ())
    }

    /// For work that takes long: see [`yielding`].
    ///
    /// # Errors
    /// The system refuses to create threads.
    pub(crate) fn for_long_work(name: &str, number: usize, company: &Company) -> io::Result<Self> {
        let company = company.clone();
        Self::starting_with(name, number, move || yielding::start_on_this_thread(&company))
    }

    fn starting_with(name: &str, number: usize, first: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(number.max(1)).thread_name(name).enable_all().on_thread_start(first);
        builder.build().map(|runtime| Self(Some(runtime)))
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
