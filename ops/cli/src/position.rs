//! Where to read from: `earliest`, `latest`, an offset, or a point in time.

use std::str::FromStr;
use strandline_client::OffsetSpec;

/// As it is written after `--from` and `--to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position(pub OffsetSpec);

/// For help texts.
pub const HELP: &str = "`earliest`, `latest`, an offset, or a time: 2026-01-31T12:00:00Z (UTC unless it says otherwise), \
                        2026-01-31, @1767182400000 (milliseconds since 1970)";

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let spec = match text {
            "earliest" | "beginning" => OffsetSpec::Earliest,
            "latest" | "end" => OffsetSpec::Latest,
            _ if text.starts_with('@') => {
                OffsetSpec::Timestamp(natural(&text[1..]).ok_or_else(|| wrong(text))?)
            }
            _ => match natural(text) {
                Some(offset) => OffsetSpec::Offset(offset),
                None => OffsetSpec::Timestamp(milliseconds(text).ok_or_else(|| wrong(text))?),
            },
        };
        Ok(Position(spec))
    }
}

fn wrong(text: &str) -> String {
    format!("`{text}` is none of: {HELP}")
}

fn natural(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number| *number >= 0)
}

fn milliseconds(text: &str) -> Option<i64> {
    let time = match text.parse::<jiff::Timestamp>() {
        Ok(time) => time,
        // Without an offset: UTC. A date alone is its midnight.
        Err(_) => {
            let civil: jiff::civil::DateTime = text.parse().ok()?;
            civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp()
        }
    };
    Some(time.as_millisecond()).filter(|ms| *ms >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_words_offsets_and_times() {
        let read = |text: &str| text.parse::<Position>().map(|position| position.0);
        assert_eq!(read("earliest"), Ok(OffsetSpec::Earliest));
        assert_eq!(read("latest"), Ok(OffsetSpec::Latest));
        assert_eq!(read("2026"), Ok(OffsetSpec::Offset(2026)));
        assert_eq!(read("@1700000000123"), Ok(OffsetSpec::Timestamp(1_700_000_000_123)));
        assert_eq!(read("2023-11-14T22:13:20Z"), Ok(OffsetSpec::Timestamp(1_700_000_000_000)));
        assert_eq!(read("2023-11-14T22:13:20"), Ok(OffsetSpec::Timestamp(1_700_000_000_000)));
        assert_eq!(read("2023-11-15T00:13:20+02:00"), Ok(OffsetSpec::Timestamp(1_700_000_000_000)));
        assert_eq!(read("2023-11-14"), Ok(OffsetSpec::Timestamp(1_699_920_000_000)));
        for text in ["", "-5", "soon", "@", "@-1", "2023-13-01", "1.5", "99999999999999999999"] {
            assert!(read(text).unwrap_err().contains("none of"), "{text}");
        }
    }
}
