//! Work that takes a processor for longer than a moment: to understand a body of megabytes, to write an answer of as many.
//! On a thread that serves connections it would hold up all of them. Here it has threads of its own, fewer than there are
//! processors, and tenants take turns.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use entity::TenantId;
use tokio::task::spawn_blocking;

use super::problem::Problem;
use crate::turns::{Place, Turns};

/// What is done where it is asked for, in bytes of a body or an answer: a millisecond or so.
const SMALL: usize = 64 << 10;

/// How long work waits for its turn.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Apart {
    turns: Arc<Turns>,
}

impl Apart {
    /// Half of the processors, and half of these for one tenant.
    pub(super) fn new(processors: usize) -> Self {
        let places = (processors / 2).max(1);
        Self { turns: Turns::new(places, places / 2, PATIENCE) }
    }

    /// Does what so many bytes ask for once it is the tenant's turn. Work that has begun goes on where the asker is gone,
    /// and keeps its place until it is done.
    ///
    /// # Errors
    /// 429 where the tenant's other requests leave it no turn in three seconds.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        if bytes <= SMALL {
            return Ok(work());
        }
        let place = self.turns.enter(Some(tenant)).await.ok_or_else(|| Problem::no_turn(PATIENCE))?;
        Ok(on_a_thread(Some(place), work).await)
    }

    /// The same for an answer to what has been done, which cannot be refused any more: it waits as long, and no longer.
    pub(super) async fn finish<T: Send + 'static>(
        &self,
        tenant: TenantId,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if bytes <= SMALL {
            return work();
        }
        on_a_thread(self.turns.enter(Some(tenant)).await, work).await
    }
}

async fn on_a_thread<T: Send + 'static>(place: Option<Place>, work: impl FnOnce() -> T + Send + 'static) -> T {
    let working = spawn_blocking(move || {
        let _place = place;
        work()
    });
    // Only a panic ends it early, and that is the asker's.
    working.await.unwrap_or_else(|panic| resume_unwind(panic.into_panic()))
}
