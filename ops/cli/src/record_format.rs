//! The `--format` of `strandline consume`: text with `%` fields and backslash escapes, written as bytes (keys
//! and values need not be text).
//!
//! ```text
//! %t topic  %p partition  %o offset  %T timestamp (ms)  %k key  %v value  %h headers (a=1,b=2)
//! %K length of the key, %V of the value (-1: none)  %% a percent sign     \n \t \r \0 \\ \xHH
//! ```

use std::str::FromStr;
use strandline_client::ConsumerRecord;

/// For help texts.
pub const HELP: &str = "%t topic, %p partition, %o offset, %T timestamp in milliseconds, %k key, %v value, %h headers, \
                        %K and %V length of key and value (-1 for none), %% a percent sign; \\n \\t \\r \\0 \\\\ \\xHH";

/// A parsed format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFormat(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    Value,
    Headers,
    KeyLength,
    ValueLength,
}

impl FromStr for RecordFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let field = match c {
                '%' => match rest.next() {
                    Some('%') => {
                        plain.push(b'%');
                        continue;
                    }
                    Some('t') => Piece::Topic,
                    Some('p') => Piece::Partition,
                    Some('o') => Piece::Offset,
                    Some('T') => Piece::Timestamp,
                    Some('k') => Piece::Key,
                    Some('v') => Piece::Value,
                    Some('h') => Piece::Headers,
                    Some('K') => Piece::KeyLength,
                    Some('V') => Piece::ValueLength,
                    Some(other) => return Err(format!("`%{other}` is no field; there are {HELP}")),
                    None => return Err("it ends with a single %; write %% for a percent sign".to_owned()),
                },
                '\\' => {
                    plain.push(escape(&mut rest)?);
                    continue;
                }
                other => {
                    plain.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(field);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(RecordFormat(pieces))
    }
}

fn escape(rest: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match rest.next() {
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some('r') => Ok(b'\r'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = rest.by_ref().take(2).collect();
            let complete = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let byte = complete.then(|| u8::from_str_radix(&digits, 16).ok()).flatten();
            byte.ok_or_else(|| format!("`\\x{digits}` needs two hexadecimal digits"))
        }
        Some(other) => Err(format!("`\\{other}` is no escape; write \\\\ for a backslash")),
        None => Err("it ends with a single backslash; write \\\\ for one".to_owned()),
    }
}

impl RecordFormat {
    /// Appends the record; the caller appends what separates records.
    pub fn write(&self, record: &ConsumerRecord, out: &mut Vec<u8>) {
        let bytes = |value: &Option<bytes::Bytes>, out: &mut Vec<u8>| {
            out.extend_from_slice(value.as_deref().unwrap_or(&[]))
        };
        let number = |value: i64, out: &mut Vec<u8>| out.extend_from_slice(value.to_string().as_bytes());
        let length = |value: &Option<bytes::Bytes>| value.as_ref().map_or(-1, |value| value.len() as i64);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Topic => out.extend_from_slice(record.topic.as_bytes()),
                Piece::Partition => number(i64::from(record.partition), out),
                Piece::Offset => number(record.offset, out),
                Piece::Timestamp => number(record.timestamp_ms, out),
                Piece::Key => bytes(&record.key, out),
                Piece::Value => bytes(&record.value, out),
                Piece::KeyLength => number(length(&record.key), out),
                Piece::ValueLength => number(length(&record.value), out),
                Piece::Headers => {
                    for (i, header) in record.headers.iter().enumerate() {
                        if i > 0 {
                            out.push(b',');
                        }
                        out.extend_from_slice(&header.key);
                        out.push(b'=');
                        bytes(&header.value, out);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use strandline_client::Header;

    fn record() -> ConsumerRecord {
        ConsumerRecord {
            topic: "orders".into(),
            partition: 3,
            offset: 42,
            timestamp_ms: 1_700_000_000_000,
            leader_epoch: 5,
            key: Some(Bytes::from_static(b"k\xff")),
            value: None,
            headers: vec![
                Header { key: "a".into(), value: Some(Bytes::from_static(b"1")) },
                Header { key: "b".into(), value: None },
            ],
        }
    }

    fn written(format: &str) -> Vec<u8> {
        let mut out = Vec::new();
        format.parse::<RecordFormat>().unwrap().write(&record(), &mut out);
        out
    }

    #[test]
    fn fields_and_escapes_are_replaced_and_bytes_are_kept() {
        assert_eq!(written("%p %o %k %v"), b"3 42 k\xff ");
        assert_eq!(written("%t@%T [%K/%V] {%h} 100%%"), b"orders@1700000000000 [2/-1] {a=1,b=} 100%");
        assert_eq!(written(r"\x41\t\n\\\0é"), b"A\t\n\\\0\xc3\xa9");
        assert_eq!(written(""), b"");
    }

    #[test]
    fn a_format_that_is_not_understood_is_refused() {
        for format in ["%", "%q", "\\", r"\q", r"\x4", r"\xzz", r"\x+1"] {
            assert!(format.parse::<RecordFormat>().is_err(), "{format}");
        }
    }
}
