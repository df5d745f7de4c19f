//! Sizes and times, and how they are written.

use std::time::Duration;

use super::ValueError;

fn size(text: &str) -> Result<u64, ValueError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        _ => None,
    };
    let bytes = number
        .parse::<u64>()
        .ok()
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit));
    bytes.ok_or_else(|| ValueError::Size(text.to_owned()))
}

/// The least is that of hyper's read buffer for HTTP/1, whose builder panics below it.
pub(super) fn header_bytes(text: &str) -> Result<u32, ValueError> {
    let bytes = u32::try_from(size(text)?)
        .ok()
        .filter(|bytes| (8 << 10..=16 << 20).contains(bytes));
    bytes.ok_or_else(|| ValueError::SizeRange {
        size: text.to_owned(),
        expected: "8KiB to 16MiB",
    })
}

/// `none` is a limit that no body reaches. Zero is refused: other servers take it for no limit.
pub(super) fn body_size(text: &str) -> Result<u64, ValueError> {
    match text {
        "none" => Ok(u64::MAX),
        _ => match size(text)? {
            0 => Err(ValueError::SizeRange {
                size: text.to_owned(),
                expected: "at least 1, or none for no limit",
            }),
            bytes => Ok(bytes),
        },
    }
}

/// At most a year: adding a longer time to a clock may overflow.
pub(crate) fn duration(text: &str) -> Result<Duration, ValueError> {
    let time = humantime::parse_duration(text).map_err(|reason| ValueError::Time {
        text: text.to_owned(),
        reason,
    })?;
    if time > Duration::from_secs(365 * 24 * 60 * 60) {
        return Err(ValueError::TimeRange {
            time: text.to_owned(),
            expected: "at most 365days",
        });
    }
    Ok(time)
}

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
    fn sizes_have_units() {
        let table = [
            ("1", 1),
            ("16384B", 16384),
            ("16KiB", 16384),
            ("2 mib", 2 << 20),
            ("1GiB", 1 << 30),
        ];
        for (text, bytes) in table {
            assert_eq!(body_size(text), Ok(bytes));
        }
        assert_eq!(body_size("none"), Ok(u64::MAX));
        for bad in ["", "KiB", "1KB", "1.5MiB", "-1", "99999999999GiB", "None"] {
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
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for bad in ["", "30", "-1s", "soon"] {
            assert!(
                matches!(positive_duration(bad), Err(ValueError::Time { .. })),
                "{bad}"
            );
        }
        for bad in ["0s", "2years"] {
            assert!(
                matches!(positive_duration(bad), Err(ValueError::TimeRange { .. })),
                "{bad}"
            );
        }
    }
}
