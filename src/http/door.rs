//! The state that extractors and middleware share: built once at the start, stored in the application's data.

use std::time::Duration;

use actix_web::{HttpRequest, web};

use super::client_address::TrustedProxies;
use super::heavy_work::HeavyWork;
use super::in_flight::InFlight;
use super::rate_limit::RateLimit;
use crate::clock::Clock;
use crate::deployment::ReadinessCache;
use crate::settings::Settings;
use crate::token::{self, Verifier};

/// Belongs in `App::app_data` as `web::Data<Door>`, one for all workers, so that they share the fetched keys and the counts
/// of each user's requests.
pub struct Door {
    pub(super) verifier: Verifier,
    pub(super) proxies: TrustedProxies,
    /// `None` if it is off.
    pub(super) rate_limit: Option<RateLimit>,
    /// For answers.
    pub(super) in_flight: InFlight,
    pub(super) bodies: InFlight,
    pub(super) heavy: HeavyWork,
    pub(super) readiness: ReadinessCache,
    body_timeout: Duration,
}

impl Door {
    /// # Errors
    /// No key for tokens is set, one cannot be read, or the trusted networks are not valid.
    pub fn new(settings: &Settings, clock: Clock, heavy: HeavyWork) -> Result<Self, token::StartError> {
        let server = &settings.server;
        Ok(Self {
            verifier: Verifier::new(&settings.auth, clock.clone())?,
            proxies: TrustedProxies::new(server.trusted_networks().map_err(token::StartError::Settings)?),
            rate_limit: RateLimit::new(&settings.rate_limit, clock),
            in_flight: InFlight::new(server.answers_max_bytes, server.answers_per_tenant_max_bytes),
            bodies: InFlight::new(server.bodies_max_bytes, server.bodies_per_tenant_max_bytes),
            heavy,
            readiness: ReadinessCache::default(),
            body_timeout: Duration::from_secs(server.body_timeout_secs),
        })
    }

    pub(super) fn of(req: &HttpRequest) -> &Self {
        req.app_data::<web::Data<Self>>().expect("the server is assembled with a door")
    }

    pub(super) fn body_timeout(&self) -> Duration {
        self.body_timeout
    }
}
