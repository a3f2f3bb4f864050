//! Durations and sizes as people write and read them: `1h30m`, `14d`, `4 MiB`.
//!
//! It does not know what a month is: 28 to 31 days are no unit for a promise.

use std::fmt::Write as _;
use std::time::Duration;

use crate::error::{Code, Diagnostic};

/// No duration is longer than this (a century): what is longer is a slip of the finger.
pub const MAX_DURATION: Duration = Duration::from_secs(36_525 * DAY_SECONDS);

const MINUTE_SECONDS: u64 = 60;
const HOUR_SECONDS: u64 = 60 * MINUTE_SECONDS;
const DAY_SECONDS: u64 = 24 * HOUR_SECONDS;
const WEEK_SECONDS: u64 = 7 * DAY_SECONDS;

/// Why a text is not a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing is there.
    #[error("an empty text is not a {what}; write it like {example}")]
    Empty {
        /// `duration`, `size`.
        what: &'static str,
        /// How one looks.
        example: &'static str,
    },
    /// Something else stands where a number should.
    #[error("{text:?} is not a {what}: a number is missing before {rest:?}; write it like {example}")]
    Number {
        /// `duration`, `size`.
        what: &'static str,
        /// What was given.
        text: String,
        /// Where it went wrong.
        rest: String,
        /// How one looks.
        example: &'static str,
    },
    /// A number without a unit could be anything.
    #[error("{text:?} has no unit; write \"{number}s\", \"{number}m\", \"{number}h\", \"{number}d\" or \"{number}w\"")]
    UnitMissing {
        /// What was given.
        text: String,
        /// The number without its unit.
        number: String,
    },
    /// The unit is none of ours.
    #[error("{text:?}: {unit:?} is not a unit of a {what}; units are {units}")]
    UnitUnknown {
        /// `duration`, `size`.
        what: &'static str,
        /// What was given.
        text: String,
        /// The unit.
        unit: String,
        /// The units that there are.
        units: &'static str,
    },
    /// A month or a year.
    #[error(
        "{text:?}: a {unit} has no fixed length, so a promise cannot be measured in it; write days, such as {days}"
    )]
    Calendar {
        /// What was given.
        text: String,
        /// `month`, `year`.
        unit: &'static str,
        /// About as long.
        days: &'static str,
    },
    /// `M` is a month to some and a minute to others.
    #[error("{text:?}: `M` could be minutes or months; write `m` for minutes, or days")]
    Ambiguous {
        /// What was given.
        text: String,
    },
    /// `30m1h`, `1h1h`.
    #[error("{text:?}: units must get smaller from left to right, each at most once, as in \"1h30m\"")]
    Order {
        /// What was given.
        text: String,
    },
    /// Longer than [`MAX_DURATION`], or more bytes than 64 bits count.
    #[error("{text:?} is too large a {what}; the most is {most}")]
    TooLarge {
        /// `duration`, `size`.
        what: &'static str,
        /// What was given.
        text: String,
        /// The most that is taken.
        most: &'static str,
    },
}

impl Diagnostic for QuantityError {
    fn code(&self) -> Code {
        Code::ConfigInvalid
    }
}

const DURATION_EXAMPLE: &str = "\"90s\", \"15m\", \"6h\", \"14d\" or \"1h30m\"";
const SIZE_EXAMPLE: &str = "\"4MiB\", \"10 GB\" or \"512k\"";

/// Reads a duration: numbers (`1.5` too) with units from weeks down to milliseconds, the larger first.
///
/// # Errors
/// [`QuantityError`], which shows what would have been right.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(QuantityError::Empty { what: "duration", example: DURATION_EXAMPLE });
    }
    let mut total_nanos: u128 = 0;
    let mut last_unit_nanos = u128::MAX;
    while !rest.is_empty() {
        let (number, unit, after) = take_term(rest);
        if number.is_empty() {
            return Err(not_a_number("duration", text, rest, DURATION_EXAMPLE));
        }
        if unit.is_empty() && after.starts_with(|c: char| !c.is_ascii_digit()) {
            return Err(not_a_number("duration", text, after, DURATION_EXAMPLE));
        }
        let unit_nanos = duration_unit_nanos(text, number, unit)?;
        if unit_nanos >= last_unit_nanos {
            return Err(QuantityError::Order { text: text.to_owned() });
        }
        last_unit_nanos = unit_nanos;
        let too_large = || QuantityError::TooLarge { what: "duration", text: text.to_owned(), most: "a century" };
        let nanos =
            scale(number, unit_nanos).ok_or_else(|| not_a_number("duration", text, number, DURATION_EXAMPLE))?;
        total_nanos = nanos.and_then(|nanos| total_nanos.checked_add(nanos)).ok_or_else(too_large)?;
        if total_nanos > MAX_DURATION.as_nanos() {
            return Err(too_large());
        }
        rest = after;
    }
    let seconds = u64::try_from(total_nanos / NANOS).unwrap_or(u64::MAX);
    let nanos = u32::try_from(total_nanos % NANOS).unwrap_or_default();
    Ok(Duration::new(seconds, nanos))
}

const NANOS: u128 = 1_000_000_000;

/// Splits off one number and its unit, and the blanks around them.
fn take_term(text: &str) -> (&str, &str, &str) {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(number_end);
    let rest = rest.trim_start();
    let unit_end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    (number, unit, rest.trim_start())
}

fn not_a_number(what: &'static str, text: &str, rest: &str, example: &'static str) -> QuantityError {
    QuantityError::Number { what, text: text.to_owned(), rest: rest.to_owned(), example }
}

/// `number` (digits with at most one point) times `unit`, exactly, cut to a whole. `None`: not a number;
/// `Some(None)`: too large.
fn scale(number: &str, unit: u128) -> Option<Option<u128>> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // Twelve digits after the point tell a nanosecond of a week and a byte of a TiB apart; more cannot matter.
    let fraction = &fraction[..fraction.len().min(12)];
    let Ok(whole) = whole.parse::<u128>() else { return Some(None) };
    let numerator = fraction.parse::<u128>().ok()?;
    let denominator = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(12));
    let part = unit.checked_mul(numerator).map(|product| product / denominator);
    Some(whole.checked_mul(unit).and_then(|product| product.checked_add(part?)))
}

fn duration_unit_nanos(text: &str, number: &str, unit: &str) -> Result<u128, QuantityError> {
    let calendar = |unit, days| QuantityError::Calendar { text: text.to_owned(), unit, days };
    if unit == "M" {
        return Err(QuantityError::Ambiguous { text: text.to_owned() });
    }
    let seconds = match unit.to_lowercase().as_str() {
        "" => return Err(QuantityError::UnitMissing { text: text.to_owned(), number: number.to_owned() }),
        "ms" | "millisecond" | "milliseconds" => return Ok(1_000_000),
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => MINUTE_SECONDS,
        "h" | "hr" | "hrs" | "hour" | "hours" => HOUR_SECONDS,
        "d" | "day" | "days" => DAY_SECONDS,
        "w" | "wk" | "week" | "weeks" => WEEK_SECONDS,
        "mo" | "mon" | "month" | "months" => return Err(calendar("month", "\"30d\"")),
        "y" | "yr" | "year" | "years" => return Err(calendar("year", "\"365d\"")),
        _ => {
            return Err(QuantityError::UnitUnknown {
                what: "duration",
                text: text.to_owned(),
                unit: unit.to_owned(),
                units: "s, m, h, d and w",
            });
        }
    };
    Ok(u128::from(seconds) * NANOS)
}

/// Reads a size in bytes. As in coreutils, a letter alone and the forms with `i` count by 1024 (`k`, `KiB`), the
/// forms with `B` alone by 1000 (`KB`); a bare number is bytes.
///
/// # Errors
/// [`QuantityError`], which shows what would have been right.
pub fn parse_size_bytes(text: &str) -> Result<u64, QuantityError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(QuantityError::Empty { what: "size", example: SIZE_EXAMPLE });
    }
    let (number, unit, rest) = take_term(trimmed);
    if number.is_empty() {
        return Err(not_a_number("size", text, trimmed, SIZE_EXAMPLE));
    }
    if !rest.is_empty() {
        return Err(not_a_number("size", text, rest, SIZE_EXAMPLE));
    }
    let lower = unit.to_lowercase();
    let (letter, base): (&str, u128) = match lower.as_str() {
        "" | "b" | "byte" | "bytes" => ("", 1024),
        other if other.len() == 1 => (other, 1024),
        other if other.ends_with("ib") => (&other[..other.len() - 2], 1024),
        other if other.ends_with('i') => (&other[..other.len() - 1], 1024),
        other if other.ends_with('b') => (&other[..other.len() - 1], 1000),
        _ => ("?", 0),
    };
    let power = match letter {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => {
            return Err(QuantityError::UnitUnknown {
                what: "size",
                text: text.to_owned(),
                unit: unit.to_owned(),
                units: "B, KiB, MiB, GiB, TiB (by 1024; also k, M, G, T) and KB, MB, GB, TB (by 1000)",
            });
        }
    };
    let bytes = scale(number, base.pow(power)).ok_or_else(|| not_a_number("size", text, number, SIZE_EXAMPLE))?;
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(|| QuantityError::TooLarge {
        what: "size",
        text: text.to_owned(),
        most: "16 EiB",
    })
}

/// A duration for people, two units at most: `850 ms`, `12.3s`, `4m 07s`, `1h 05m`, `3d 04h`.
#[must_use]
pub fn human_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1_000 {
        return format!("{millis} ms");
    }
    // Rounded before a unit is chosen: 59.96 s are a minute, not 60.0 s.
    let tenths = (millis + 50) / 100;
    if tenths < 600 {
        return format!("{}.{}s", tenths / 10, tenths % 10);
    }
    let seconds = (millis + 500) / 1_000;
    if seconds < 3_600 {
        return format!("{}m {:02}s", seconds / 60, seconds % 60);
    }
    let minutes = (seconds + 30) / 60;
    if minutes < 24 * 60 {
        return format!("{}h {:02}m", minutes / 60, minutes % 60);
    }
    let hours = (minutes + 30) / 60;
    format!("{}d {:02}h", hours / 24, hours % 24)
}

/// Seconds for people, as [`human_duration`] writes them. Infinity is `unbounded`: what an RPO is without a backup.
#[must_use]
pub fn human_seconds(seconds: f64) -> String {
    if seconds.is_nan() {
        return "unknown".to_owned();
    }
    match Duration::try_from_secs_f64(seconds.abs()) {
        Ok(duration) if seconds < 0.0 => format!("-{}", human_duration(duration)),
        Ok(duration) => human_duration(duration),
        Err(_) => "unbounded".to_owned(),
    }
}

/// A size for people: `512 B`, `3.2 GiB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit_bytes: u128 = 1024;
    for (place, unit) in UNITS.iter().enumerate() {
        // Rounded before a unit is chosen: 1,048,575 bytes are 1.0 MiB, not 1024.0 KiB.
        let tenths = (u128::from(bytes) * 10 + unit_bytes / 2) / unit_bytes;
        if tenths < 10_240 || place + 1 == UNITS.len() {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        unit_bytes *= 1024;
    }
    unreachable!("the loop returns at its last unit")
}

/// A duration as a config takes it, exact to the millisecond: `1h30m`, `25h`, `14d`. Days count from the second on.
#[must_use]
pub fn exact_duration(duration: Duration) -> String {
    let mut text = String::new();
    let mut seconds = duration.as_secs();
    let in_days = seconds >= 2 * DAY_SECONDS;
    for (unit_seconds, unit) in [(DAY_SECONDS, "d"), (HOUR_SECONDS, "h"), (MINUTE_SECONDS, "m"), (1, "s")] {
        if seconds >= unit_seconds && (in_days || unit_seconds < DAY_SECONDS) {
            // Writing to a String does not fail.
            let _ = write!(text, "{}{unit}", seconds / unit_seconds);
            seconds %= unit_seconds;
        }
    }
    if duration.subsec_millis() > 0 {
        let _ = write!(text, "{}ms", duration.subsec_millis());
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("15 min", 900),
            ("6h", 21_600),
            ("6 Hours", 21_600),
            ("14d", 1_209_600),
            ("2w", 1_209_600),
            ("1h30m", 5_400),
            ("1h 30m 5s", 5_405),
            (" 1.5h ", 5_400),
            ("0s", 0),
            ("1500ms", 1),
        ] {
            assert_eq!(parse_duration(text).unwrap().as_secs(), seconds, "{text:?}");
        }
        assert_eq!(parse_duration("1500ms").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_duration("0.0015s").unwrap(), Duration::from_micros(1500));
    }

    #[test]
    fn a_wrong_duration_says_what_is_right() {
        for (text, fragment) in [
            ("", "\"14d\""),
            ("h", "a number is missing before \"h\""),
            ("24", "\"24h\""),
            ("1h30", "\"30h\""),
            ("1month", "no fixed length"),
            ("1y", "\"365d\""),
            ("6M", "write `m` for minutes"),
            ("6 fortnights", "units are s, m, h, d and w"),
            ("30m1h", "get smaller"),
            ("1h1h", "at most once"),
            ("-1h", "a number is missing"),
            ("1..5h", "a number is missing"),
            (".5h", "a number is missing"),
            ("1,5h", "\",5h\""),
            ("200000d", "a century"),
            ("99999999999999999999999999999999999999999999w", "a century"),
            ("1h\u{a0}und", "a number is missing"),
            ("٣h", "a number is missing"),
        ] {
            let message = parse_duration(text).unwrap_err().to_string();
            assert!(message.contains(fragment), "{text:?}: {message}");
        }
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("100B", 100),
            ("4MiB", 4 << 20),
            ("4 mib", 4 << 20),
            ("10 GB", 10_000_000_000),
            ("512k", 512 << 10),
            ("512Ki", 512 << 10),
            ("1.5GiB", 3 << 29),
            ("2T", 2 << 40),
            ("1kB", 1000),
        ] {
            assert_eq!(parse_size_bytes(text).unwrap(), bytes, "{text:?}");
        }
        for (text, fragment) in [
            ("", "\"4MiB\""),
            ("MiB", "a number is missing"),
            ("4 bananas", "by 1024"),
            ("1MiB 2KiB", "before \"2KiB\""),
            ("-1", "a number is missing"),
            ("99999999P", "16 EiB"),
            ("1ß", "not a unit"),
        ] {
            let message = parse_size_bytes(text).unwrap_err().to_string();
            assert!(message.contains(fragment), "{text:?}: {message}");
        }
    }

    #[test]
    fn printed_for_people() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (12_345, "12.3s"),
            (59_960, "1m 00s"),
            (247_000, "4m 07s"),
            (3_599_600, "1h 00m"),
            (3_900_000, "1h 05m"),
            (86_399_000, "1d 00h"),
            (273_600_000, "3d 04h"),
        ] {
            assert_eq!(human_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(human_seconds(-90.0), "-1m 30s");
        assert_eq!(human_seconds(f64::INFINITY), "unbounded");
        assert_eq!(human_seconds(f64::NAN), "unknown");
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (3_435_973_837, "3.2 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn printed_for_configs() {
        for text in ["0s", "90ms", "1m30s", "24h", "25h1s", "47h59m", "2d", "2d1h", "14d"] {
            assert_eq!(exact_duration(parse_duration(text).unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn an_exact_duration_reads_back(millis in 0_u64..3_155_760_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&exact_duration(duration)).unwrap(), duration);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,20}|[0-9.]{1,30}[a-zA-Z ]{0,6}") {
            let _ = parse_duration(&text);
            let _ = parse_size_bytes(&text);
        }
    }
}
