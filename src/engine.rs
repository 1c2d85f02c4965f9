//! The engine: what every verb needs, and the first argument of each.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::database::Database;
use crate::feed::Hub;
use crate::keys::Keys;
use crate::settings::{Secret, Settings};
use crate::storage::Storage;
use crate::tenant::Known;
use crate::{asset, jobs, session};

#[derive(Clone, Debug)]
pub struct Engine {
    pub db: Database,
    pub storage: Storage,
    pub clock: Clock,
    pub settings: Arc<Settings>,
    pub known: Arc<Known>,
    pub keys: Keys,
    /// Notified when a job was enqueued, so that a worker of this process need not wait for its next poll.
    pub wake: Arc<Notify>,
    pub hub: Arc<Hub>,
    /// Batches sessions that are opened at the same time.
    pub openings: session::Openings,
    /// Batches assets that become READY at the same time.
    pub promotions: asset::Steps,
    /// Batches jobs that end at the same time.
    pub ended: jobs::Ended,
}

impl Engine {
    pub fn new(db: Database, storage: Storage, clock: Clock, settings: Arc<Settings>) -> Self {
        let keys = Keys::new(settings.audit.key.as_ref().map(Secret::expose).unwrap_or_default());
        Self {
            db,
            storage,
            clock,
            settings,
            known: Arc::default(),
            keys,
            wake: Arc::default(),
            hub: Arc::default(),
            openings: session::Openings::default(),
            promotions: asset::Steps::default(),
            ended: jobs::Ended::default(),
        }
    }
}
