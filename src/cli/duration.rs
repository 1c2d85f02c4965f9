use std::time::Duration;

/// Parses a span of time such as `90s`, `15m`, `24h`, `7d` or `1h 30m`: whole seconds, up to a hundred years, so that no sum
/// overflows.
///
/// # Errors
/// A message that says what is expected.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).ok().filter(|span| span.as_secs() <= 3_155_760_000);
    let span = span.ok_or_else(|| "must be a duration such as 90s, 15m, 24h or 7d, up to 36525d".to_owned())?;
    if span.subsec_nanos() == 0 { Ok(span) } else { Err("must be whole seconds".to_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, secs) in [
            ("0s", 0),
            ("90s", 90),
            ("15m", 900),
            ("24h", 86_400),
            ("30d", 2_592_000),
            ("1h 30m", 5_400),
            ("1.5h", 5_400),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(secs), "{text}");
        }
        for wrong in ["", "7", "h", "d", "-1h", "500ms", "1ü", "99999999999d", "99999999999999999999h", "300y"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
