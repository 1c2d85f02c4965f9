use std::collections::BTreeMap;
use std::ops::Range;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, Utc};
use entity::TenantId;

use super::rows::{self, Count};
use crate::engine::Engine;
use crate::error::{Error, Field, Result};
use crate::input::Wrong;

/// The longest span, in days.
pub const DAYS_MAX: u64 = 92;
/// The default span, in days; it ends today.
pub const DAYS_DEFAULT: u64 = 30;

/// Counts of a tenant's uploads on one UTC day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Day {
    pub opened: i64,
    pub completed: i64,
    pub failed: i64,
    pub cancelled: i64,
    pub bytes_completed: i64,
}

/// Returns the counts of every day of the span, oldest first, including both ends and days without uploads.
///
/// `to` defaults to today, and `from` to 29 days before `to`. Sessions that have been deleted since are not counted, except
/// completed ones, which are counted by their assets.
///
/// # Errors
/// [`Error::Invalid`] for a span that ends before it begins, is longer than [`DAYS_MAX`], or leaves the years 1970 to 9998.
pub async fn daily(
    engine: &Engine,
    tenant: TenantId,
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
) -> Result<BTreeMap<NaiveDate, Day>> {
    let to = to.unwrap_or_else(|| today(engine));
    let from = from.unwrap_or_else(|| back(to, DAYS_DEFAULT));
    let span = span(from, to)?;
    let mut days: BTreeMap<NaiveDate, Day> =
        from.iter_days().take_while(|day| *day <= to).map(|day| (day, Day::default())).collect();
    let conn = engine.db.count_conn().of(tenant);
    for count in [Count::Opened, Count::Completed, Count::Failed, Count::Cancelled] {
        for row in rows::counts(&conn, tenant, count, &span).await? {
            let Some(day) = row.day.parse().ok().and_then(|day: NaiveDate| days.get_mut(&day)) else { continue };
            match count {
                Count::Opened => day.opened = row.uploads,
                Count::Completed => (day.completed, day.bytes_completed) = (row.uploads, row.bytes()),
                Count::Failed => day.failed = row.uploads,
                Count::Cancelled => day.cancelled = row.uploads,
            }
        }
    }
    Ok(days)
}

/// Returns the first and the last day, in UTC, of a span of `days` that ends today.
pub fn last_days(engine: &Engine, days: u64) -> (NaiveDate, NaiveDate) {
    let today = today(engine);
    (back(today, days), today)
}

fn today(engine: &Engine) -> NaiveDate {
    engine.clock.now().date_naive()
}

/// Returns the first day of a span of `days` that ends on `to`.
fn back(to: NaiveDate, days: u64) -> NaiveDate {
    to.checked_sub_days(Days::new(days - 1)).unwrap_or(to)
}

fn span(from: NaiveDate, to: NaiveDate) -> Result<Range<DateTime<Utc>>> {
    let invalid = |wrong| Error::wrong(Field::FirstDay, wrong);
    // Databases do not support all of chrono's years, and dates stored as text sort correctly only with four-digit years.
    if [from, to].iter().any(|day| !(1970..=9998).contains(&day.year())) {
        return Err(invalid(Wrong::YearsOutOfRange));
    }
    let days = (to - from).num_days() + 1;
    if !u64::try_from(days).is_ok_and(|days| (1..=DAYS_MAX).contains(&days)) {
        return Err(invalid(Wrong::Days { days, most: DAYS_MAX }));
    }
    let start = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
    let end = to.succ_opt().ok_or_else(|| invalid(Wrong::YearsOutOfRange))?;
    Ok(start(from)..start(end))
}
