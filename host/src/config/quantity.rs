//! Parsers of numbers, sizes, times and booleans in settings.

use std::{ops::RangeInclusive, time::Duration};

use super::ValueError;

/// Returns a parser of whole numbers in `range`.
pub(super) fn number<N: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<N, ValueError> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text
            .parse()
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| N::try_from(number).ok());
        number.ok_or_else(|| ValueError::Number {
            text: text.to_owned(),
            least: *range.start(),
            most: *range.end(),
        })
    }
}

/// Parses a boolean. Accepts the four usual pairs of words, because people and tools write booleans in
/// different ways in environment variables and files.
pub(super) fn boolean(text: &str) -> Result<bool, ValueError> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(ValueError::Boolean(text.to_owned())),
    }
}

/// Parses a number of bytes. The units are the units of GNU's tools (`info coreutils 'Block size'`): K and
/// KiB are 1024 bytes, KB is 1000 bytes. In the settings of servers such as nginx `k` is also 1024. The
/// published crates for sizes read `k` as 1000, so the host has a parser of its own.
fn parse_size(text: &str) -> Result<u64, ValueError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: Option<u64> = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kib" => Some(1 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        "kb" => Some(1000),
        "mb" => Some(1000 * 1000),
        "gb" => Some(1000 * 1000 * 1000),
        _ => None,
    };
    let bytes = number
        .parse::<u64>()
        .ok()
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit));
    bytes.ok_or_else(|| ValueError::Size(text.to_owned()))
}

/// Parses a limit on the bytes of a request's head. The minimum is 8 KiB, because hyper's HTTP/1 builder
/// panics at a smaller read buffer.
pub(super) fn header_bytes(text: &str) -> Result<u32, ValueError> {
    let bytes = u32::try_from(parse_size(text)?)
        .ok()
        .filter(|bytes| (8 << 10..=16 << 20).contains(bytes));
    bytes.ok_or_else(|| ValueError::SizeRange {
        size: text.to_owned(),
        expected: "8KiB to 16MiB",
    })
}

/// Parses a size limit. `none` becomes `u64::MAX`, which no size reaches. Zero is rejected, because zero means
/// "no limit" in the settings of other servers.
pub(super) fn body_size(text: &str) -> Result<u64, ValueError> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(u64::MAX);
    }
    match parse_size(text)? {
        0 => Err(ValueError::SizeRange {
            size: text.to_owned(),
            expected: "at least 1, or none for no limit",
        }),
        bytes => Ok(bytes),
    }
}

/// Parses a duration. A number without a unit is in seconds, as in the settings of most servers. The maximum
/// is 365 days, because the sum of an `Instant` and a very long duration could overflow.
pub(crate) fn duration(text: &str) -> Result<Duration, ValueError> {
    // humantime rejects a number without a unit, other than 0.
    let time = match text.parse().map(Duration::from_secs) {
        Ok(time) => time,
        Err(_) => humantime::parse_duration(text).map_err(|reason| ValueError::Time {
            text: text.to_owned(),
            reason,
        })?,
    };
    if time > Duration::from_secs(365 * 24 * 60 * 60) {
        return Err(ValueError::TimeRange {
            time: text.to_owned(),
            expected: "at most 365days",
        });
    }
    Ok(time)
}

/// Parses a duration that is not zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, ValueError> {
    match duration(text)? {
        Duration::ZERO => Err(ValueError::TimeRange {
            time: text.to_owned(),
            expected: "more than 0s",
        }),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bounds() {
        let parse = number::<u16>(1..=1024);
        assert_eq!((parse("1"), parse("1024")), (Ok(1), Ok(1024)));
        for bad in ["", "0", "1025", "-1", "x", "1.5", "99999999999999999999"] {
            let error = parse(bad).unwrap_err().to_string();
            let expected = format!("{bad:?} is not a number from 1 to 1024");
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn yes_and_no_have_many_words() {
        for yes in ["true", "TRUE", "yes", "Yes", "on", "1"] {
            assert_eq!(boolean(yes), Ok(true), "{yes}");
        }
        for no in ["false", "False", "no", "OFF", "0"] {
            assert_eq!(boolean(no), Ok(false), "{no}");
        }
        for bad in ["", "2", "ja", "enable"] {
            assert_eq!(boolean(bad), Err(ValueError::Boolean(bad.to_owned())));
        }
    }

    #[test]
    fn sizes_have_units() {
        let table = [
            ("1", 1),
            ("16384B", 16384),
            ("16KiB", 16384),
            ("16K", 16384),
            ("16k", 16384),
            ("16kB", 16000),
            ("1MB", 1_000_000),
            ("2 mib", 2 << 20),
            ("2m", 2 << 20),
            ("1GiB", 1 << 30),
        ];
        for (text, bytes) in table {
            assert_eq!(body_size(text), Ok(bytes), "{text}");
        }
        for text in ["none", "None", "NONE"] {
            assert_eq!(body_size(text), Ok(u64::MAX));
        }
        for bad in ["", "KiB", "1TiB", "1.5MiB", "-1", "99999999999GiB"] {
            assert_eq!(body_size(bad), Err(ValueError::Size(bad.to_owned())));
        }
        assert!(matches!(
            body_size("0KiB"),
            Err(ValueError::SizeRange { .. })
        ));
        assert_eq!(header_bytes("8KiB"), Ok(8192));
        for bad in ["8191", "17MiB", "8GiB"] {
            assert!(
                matches!(header_bytes(bad), Err(ValueError::SizeRange { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "-1", "-1s", "soon", "1.5"] {
            assert!(
                matches!(positive_duration(bad), Err(ValueError::Time { .. })),
                "{bad}"
            );
        }
        for bad in ["0s", "0", "2years", "99999999999"] {
            assert!(
                matches!(positive_duration(bad), Err(ValueError::TimeRange { .. })),
                "{bad}"
            );
        }
    }
}
