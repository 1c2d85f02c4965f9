use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::clock::Clock;

/// A valid cron string and its times, in UTC.
#[derive(Clone, Debug)]
pub struct Timetable {
    cron: Cron,
    wakes: Vec<String>,
}

impl Timetable {
    /// Parses five fields as in crontab(5), or six with seconds first. As in crontab, if both the day of the month and the
    /// day of the week are restricted (neither contains `*` or `?`), it is enough that one of them matches.
    ///
    /// # Errors
    /// A message for the author of the string. A valid string whose time never comes is an error too.
    pub fn parse(text: &str) -> Result<Self, String> {
        let six_fields = match text.split_whitespace().count() {
            5 => format!("0 {}", text.trim()),
            6 => text.trim().to_owned(),
            fields => return Err(format!("{fields} fields; a cron string must have five, or six with seconds first")),
        };
        let wakes = wakes(&six_fields);
        // A single string is read as the scheduler reads it: both days must match. With two strings, one of the days is
        // enough.
        let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed);
        let parser = parser.dom_and_dow(wakes.len() == 1).build();
        let cron = parser.parse(&six_fields).map_err(|error| error.to_string())?;
        let timetable = Self { cron, wakes };
        match timetable.next(Clock::default().now()) {
            Some(_) => Ok(timetable),
            None => Err("no such time ever comes".to_owned()),
        }
    }

    /// The strings for the scheduler, which always requires both days to match. All of them together cover every time.
    pub fn wakes(&self) -> &[String] {
        &self.wakes
    }

    /// Returns the first time after `after`.
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.cron.find_next_occurrence(&whole_seconds(after)?, false).ok()
    }

    /// Returns the last time that is not after `now`.
    pub fn last(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.cron.find_previous_occurrence(&whole_seconds(now)?, true).ok()
    }
}

fn wakes(six_fields: &str) -> Vec<String> {
    let is_given = |field: &str| !field.contains(['*', '?']);
    match six_fields.split_whitespace().collect::<Vec<_>>()[..] {
        [second, minute, hour, day, month, weekday] if is_given(day) && is_given(weekday) => {
            [(day, "*"), ("*", weekday)]
                .map(|(day, weekday)| [second, minute, hour, day, month, weekday].join(" "))
                .to_vec()
        }
        _ => vec![six_fields.to_owned()],
    }
}

/// Croner keeps the fraction of a second in its results, so two processes would find different slots.
fn whole_seconds(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.timestamp(), 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn five_fields_and_six_are_read() {
        let now = at("2026-11-21T05:07:08.123456Z");
        for (cron, last, next) in [
            ("0 * * * *", "2026-11-21T05:00:00Z", "2026-11-21T06:00:00Z"),
            ("*/5 * * * *", "2026-11-21T05:05:00Z", "2026-11-21T05:10:00Z"),
            ("0 */6 * * *", "2026-11-21T00:00:00Z", "2026-11-21T06:00:00Z"),
            ("0 3 * * *", "2026-11-21T03:00:00Z", "2026-11-22T03:00:00Z"),
            ("  30 2 * * MON ", "2026-11-16T02:30:00Z", "2026-11-23T02:30:00Z"),
            ("*/10 * * * * *", "2026-11-21T05:07:00Z", "2026-11-21T05:07:10Z"),
            ("8 7 5 * * *", "2026-11-21T05:07:08Z", "2026-11-22T05:07:08Z"),
            ("0 0 29 2 *", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"),
            // The 20th was a Friday, the 23rd is a Monday.
            ("0 0 20 * MON", "2026-11-20T00:00:00Z", "2026-11-23T00:00:00Z"),
            ("0 0 24 * MON", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
            ("0 0 */3 * MON", "2026-11-16T00:00:00Z", "2026-12-07T00:00:00Z"),
        ] {
            let timetable = Timetable::parse(cron).unwrap();
            assert_eq!(timetable.last(now), Some(at(last)), "{cron}");
            assert_eq!(timetable.next(now), Some(at(next)), "{cron}");
        }
    }

    #[test]
    fn the_scheduler_wakes_for_either_day() {
        let wakes = |cron| Timetable::parse(cron).unwrap().wakes().to_vec();
        assert_eq!(wakes("0 3 1,15 * MON-FRI"), ["0 0 3 1,15 * *", "0 0 3 * * MON-FRI"]);
        assert_eq!(wakes("0 3 */2 * MON"), ["0 0 3 */2 * MON"]);
        assert_eq!(wakes("30 0 3 1 * *"), ["30 0 3 1 * *"]);
    }

    #[test]
    fn a_time_is_its_own_last_one_and_not_its_next() {
        let timetable = Timetable::parse("0 * * * *").unwrap();
        let hour = at("2026-11-21T05:00:00Z");
        assert_eq!(timetable.last(hour), Some(hour));
        assert_eq!(timetable.next(hour), Some(at("2026-11-21T06:00:00Z")));
        assert_eq!(timetable.last(hour - chrono::TimeDelta::microseconds(1)), Some(at("2026-11-21T04:00:00Z")));
    }

    #[test]
    fn what_is_wrong_or_never_comes_is_refused() {
        for (cron, says) in [
            ("", "0 fields"),
            ("hourly", "1 fields"),
            ("@daily", "1 fields"),
            ("* * * *", "4 fields"),
            ("0 0 0 1 1 * 2030", "7 fields"),
            ("61 * * * *", ""),
            ("* 25 * * *", ""),
            ("x * * * *", ""),
            ("0 0 30 2 *", "no such time"),
            ("0 0 31 2,4,6,9,11 *", "no such time"),
        ] {
            let wrong = Timetable::parse(cron).unwrap_err();
            assert!(wrong.contains(says), "{cron:?}: {wrong}");
        }
    }
}
