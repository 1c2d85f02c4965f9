/// Parses a number of bytes such as `1048576`, `512MiB`, `10 GiB` or `1.5TB`. Units count by 1024 with an `i`, by 1000
/// without.
///
/// # Errors
/// A message that says what is expected.
pub(super) fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || "must be a number of bytes, with or without a unit: 512MiB, 10GiB, 1.5TB".to_owned();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "pib" => 1 << 50,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        _ => return Err(wrong()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    // Nine digits after the point, computed with integers, so that floating point loses nothing.
    if part.len() > 9 || part.is_empty() {
        return Err(wrong());
    }
    let whole: u128 = whole.parse().map_err(|_| wrong())?;
    let billionths: u128 = format!("{part:0<9}").parse().map_err(|_| wrong())?;
    let bytes = whole.checked_mul(unit.into()).ok_or_else(wrong)? + billionths * u128::from(unit) / 1_000_000_000;
    i64::try_from(bytes).map_err(|_| "must be less than 8 EiB".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, expected) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("7b", 7),
            ("10GiB", 10 << 30),
            ("10 gib", 10 << 30),
            ("1.5TB", 1_500_000_000_000),
            ("0.5KiB", 512),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(bytes(text).unwrap(), expected, "{text:?}");
        }
        for wrong in [
            "",
            "GiB",
            "-1",
            "1e9",
            "10 parsecs",
            "1.",
            ".5GiB",
            "1..5",
            "9223372036854775808",
            "8192PiB",
            "1,5GB",
            "١GiB",
        ] {
            assert!(bytes(wrong).is_err(), "{wrong:?}");
        }
    }
}
