//! Times as people and programs write them, to milliseconds since the Unix epoch.

use super::amount::Amount;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Numbers below this are seconds (until the year 5138), from it on milliseconds (since March 1973).
const FIRST_MILLISECONDS: i64 = 100_000_000_000;

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999Z.
const RANGE_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// A Unix time in seconds or milliseconds, by its size; fractions below a millisecond are cut off.
pub(super) fn from_number(text: &str) -> Option<i64> {
    let plain = Amount::from_event(text).ok()?.to_string();
    let (sign, digits) = plain.strip_prefix('-').map_or((1, plain.as_str()), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: i64 = whole.parse().ok()?;
    let ms = if whole >= FIRST_MILLISECONDS {
        whole
    } else {
        let thousandths: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
        whole * 1000 + thousandths
    };
    Some(sign * ms).filter(|ms| RANGE_MS.contains(ms))
}

/// A time in words: ISO 8601 (without an offset it is UTC), `2024/01/01 10:30`, `2024.01.01`, RFC 2822, or one of
/// `formats` (as in strftime).
pub(super) fn from_text(text: &str, formats: &[String]) -> Option<i64> {
    let iso = dashed(text);
    let timestamp = iso
        .parse::<Timestamp>()
        .ok()
        .or_else(|| utc(iso.parse::<DateTime>().ok()?))
        .or_else(|| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok())
        .or_else(|| formats.iter().find_map(|format| with_format(format, text)))?;
    Some(timestamp.as_millisecond()).filter(|ms| RANGE_MS.contains(ms))
}

fn with_format(format: &str, text: &str) -> Option<Timestamp> {
    let parsed = jiff::fmt::strtime::parse(format, text).ok()?;
    match parsed.to_timestamp() {
        Ok(timestamp) => Some(timestamp),
        Err(_) => match parsed.to_datetime() {
            Ok(datetime) => utc(datetime),
            Err(_) => utc(parsed.to_date().ok()?.at(0, 0, 0, 0)),
        },
    }
}

fn utc(datetime: DateTime) -> Option<Timestamp> {
    TimeZone::UTC.to_timestamp(datetime).ok()
}

/// `2024/1/5 …` and `2024.1.5 …` as `2024-01-05 …`; everything else as it is.
fn dashed(text: &str) -> String {
    let as_is = || text.to_owned();
    let end = text.find(|c: char| !c.is_ascii_digit() && !"/.-".contains(c)).unwrap_or(text.len());
    let (date, rest) = text.split_at(end);
    let parts: Vec<&str> = date.split(['/', '.', '-']).collect();
    match parts[..] {
        [year, month, day]
            if year.len() == 4 && (1..=2).contains(&month.len()) && (1..=2).contains(&day.len()) =>
        {
            format!("{year}-{month:0>2}-{day:0>2}{rest}")
        }
        _ => as_is(),
    }
}

/// As answers and canonical forms have it: `2024-01-15T10:30:00.000Z`.
pub fn format_time(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => ms.to_string(),
    }
}

/// One end of a range that a question names: the first millisecond that it covers and the first after it. A date
/// without a time covers its whole day (UTC).
pub fn parse_bound(text: &str) -> Option<(i64, i64)> {
    let text = text.trim();
    if let Some(ms) = from_number(text) {
        return Some((ms, ms + 1));
    }
    let first = from_text(text, &[])?;
    let whole_day = dashed(text).len() == "2024-01-01".len();
    let next = match whole_day {
        true => Timestamp::from_millisecond(first).ok()?.checked_add(24.hours()).ok()?.as_millisecond(),
        false => first + 1,
    };
    Some((first, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<String> {
        from_text(text, &["%d %b %Y".into()]).map(format_time)
    }

    #[test]
    fn one_moment_in_many_spellings() {
        for spelling in [
            "2024-01-15T10:30:00Z",
            "2024-01-15T10:30:00.000Z",
            "2024-01-15t10:30:00z",
            "2024-01-15T11:30:00+01:00",
            "2024-01-15T05:30:00-0500",
            "2024-01-15T10:30:00",
            "2024-01-15 10:30:00",
            "2024-01-15 10:30",
            "2024/01/15 10:30:00",
            "2024/1/15 10:30",
            "2024.01.15 10:30",
            "20240115T103000Z",
            "Mon, 15 Jan 2024 10:30:00 GMT",
            "Mon, 15 Jan 2024 11:30:00 +0100",
        ] {
            assert_eq!(text(spelling).as_deref(), Some("2024-01-15T10:30:00.000Z"), "{spelling}");
        }
        for spelling in ["2024-01-01", "2024/01/01", "2024/1/1", "01 Jan 2024"] {
            assert_eq!(text(spelling).as_deref(), Some("2024-01-01T00:00:00.000Z"), "{spelling}");
        }
    }

    #[test]
    fn what_is_no_time_or_could_be_two_is_refused() {
        for spelling in
            ["", "yesterday", "01/02/2024", "2024-13-01", "2024-02-30", "10:30", "2024-01", "-1-1-1"]
        {
            assert_eq!(text(spelling), None, "{spelling}");
        }
    }

    #[test]
    fn a_number_is_seconds_or_milliseconds_by_its_size() {
        let number = |text| from_number(text).map(format_time);
        assert_eq!(number("1705314600").as_deref(), Some("2024-01-15T10:30:00.000Z"));
        assert_eq!(number("1705314600123").as_deref(), Some("2024-01-15T10:30:00.123Z"));
        assert_eq!(number("1705314600.1239").as_deref(), Some("2024-01-15T10:30:00.123Z"));
        assert_eq!(number("1.7053146e9").as_deref(), Some("2024-01-15T10:30:00.000Z"));
        assert_eq!(number("0").as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(number("-1.5").as_deref(), Some("1969-12-31T23:59:58.500Z"));
        assert_eq!(number("1705314600123000"), None, "microseconds");
        assert_eq!(number("many"), None);
    }

    #[test]
    fn a_date_bounds_its_whole_day_and_a_time_its_millisecond() {
        let day = from_text("2024-01-15", &[]).unwrap();
        assert_eq!(parse_bound("2024/1/15"), Some((day, day + 86_400_000)));
        assert_eq!(parse_bound("2024-01-15T00:00:00Z"), Some((day, day + 1)));
        assert_eq!(parse_bound("1705276800"), Some((day, day + 1)));
        assert_eq!(parse_bound("soon"), None);
    }
}
