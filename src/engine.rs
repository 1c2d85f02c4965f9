//! What every verb needs: the first argument of each.

use std::sync::Arc;

use crate::clock::Clock;
use crate::database::Database;
use crate::event::{Hub, Keys};
use crate::settings::{Secret, Settings};
use crate::storage::Storage;
use crate::tenant::Known;

#[derive(Clone, Debug)]
pub struct Engine {
    pub db: Database,
    pub storage: Storage,
    pub clock: Clock,
    pub settings: Arc<Settings>,
    pub known: Arc<Known>,
    pub keys: Keys,
    pub hub: Arc<Hub>,
}

impl Engine {
    pub fn new(db: Database, storage: Storage, clock: Clock, settings: Arc<Settings>) -> Self {
        let keys = Keys::new(settings.audit.key.as_ref().map(Secret::expose).unwrap_or_default());
        Self { db, storage, clock, settings, known: Arc::default(), keys, hub: Arc::default() }
    }
}
