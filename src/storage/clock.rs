//! The time by the store's clock, which may differ from ours.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::DateTime as SdkTime;
use chrono::{DateTime, Utc};

use super::error::{Error, Op};

/// Records the `Date` of the last answer, which the SDK does not expose. It has whole seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct StoreClock(Arc<Mutex<Option<DateTime<Utc>>>>);

impl StoreClock {
    pub(super) fn time(&self, op: Op) -> Result<DateTime<Utc>, Error> {
        let time = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        time.ok_or_else(|| Error::nonsense(op, "an answer without a date"))
    }
}

impl Intercept for StoreClock {
    fn name(&self) -> &'static str {
        "StoreClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(|date| DateTime::parse_from_rfc2822(date).ok());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date.map(|date| date.to_utc());
        Ok(())
    }
}

pub(super) fn utc(time: &SdkTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.secs(), time.subsec_nanos())
}
