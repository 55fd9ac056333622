//! What is sent: JSON documents of one size, each different. Pure.
//!
//! ```text
//!  {"n":00000000000000042,"pad":"…"}                                                a record's value
//!  {"clientId":"load-42","metric":"load","amount":42,"timestamp":…,"pad":"…"}       an event for the ingest pipeline
//! ```
//!
//! The event's timestamp is the start of the run plus its number in milliseconds, so that no two events, also of runs
//! that follow one another, are one event to the pipeline (which knows resends by client, metric, amount and time).

use std::io::Write;

/// Different clients among the events.
const CLIENTS: u64 = 100;
/// An event in JSON with as many digits as any has, and nothing to fill it.
const LEAST_EVENT: usize = 100;
const LEAST_VALUE: usize = 40;

/// How records are put into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The documents themselves, one a record.
    Value,
    /// `{"value":…}`, or an array of them: `POST /produce`.
    Produce,
    /// Events for the ingest pipeline, or an array of them.
    Ingest,
}

/// Makes documents.
#[derive(Clone, Debug)]
pub struct Events {
    pub shape: Shape,
    /// Bytes of a document.
    size: usize,
    /// Milliseconds since 1970.
    started_ms: i64,
    /// Different keys, for records with a key.
    pub keys: u64,
}

impl Events {
    /// Documents of `size` bytes.
    ///
    /// # Errors
    /// Says the least that `size` may be.
    pub fn new(shape: Shape, size: usize, keys: u64, started_ms: i64) -> Result<Events, String> {
        let least = if shape == Shape::Ingest { LEAST_EVENT } else { LEAST_VALUE };
        if size < least {
            return Err(format!("--size must be at least {least}: less has no room for a number of its own"));
        }
        Ok(Events { shape, size, started_ms, keys })
    }

    /// Bytes of a document.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The key of all records of request `n`, if records have one.
    pub fn key(&self, n: u64) -> Option<String> {
        (self.keys > 0).then(|| format!("key-{:08}", n % self.keys))
    }

    /// Adds document `n`, exactly `size` bytes.
    pub fn document(&self, n: u64, out: &mut Vec<u8>) {
        let begun = out.len();
        // Writing to memory does not fail.
        let _ = match self.shape {
            Shape::Value | Shape::Produce => write!(out, r#"{{"n":{n},"pad":""#),
            Shape::Ingest => write!(
                out,
                r#"{{"clientId":"load-{}","metric":"load","amount":{},"timestamp":{},"pad":""#,
                n % CLIENTS,
                n % 1_000_000,
                self.started_ms.saturating_add_unsigned(n),
            ),
        };
        out.resize((begun + self.size).saturating_sub(2).max(out.len()), b'x');
        out.extend_from_slice(br#""}"#);
    }

    /// Adds the body of request `n` with `count` records, at least 1.
    pub fn body(&self, n: u64, count: u64, out: &mut Vec<u8>) {
        let key = self.key(n);
        if count > 1 {
            out.push(b'[');
        }
        for i in 0..count {
            if i > 0 {
                out.push(b',');
            }
            if self.shape == Shape::Produce {
                out.extend_from_slice(b"{");
                if let Some(key) = &key {
                    let _ = write!(out, r#""key":"{key}","#);
                }
                out.extend_from_slice(br#""value":"#);
                self.document(n * count + i, out);
                out.push(b'}');
            } else {
                self.document(n * count + i, out);
            }
        }
        if count > 1 {
            out.push(b']');
        }
    }

    /// Bytes of each body with so many records.
    pub fn body_bytes(&self, count: u64) -> usize {
        let mut body = Vec::new();
        self.body(0, count, &mut body);
        body.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    const STARTED: i64 = 1_795_460_000_000;

    #[test]
    fn documents_are_json_of_one_size_and_all_different() {
        for (shape, size) in [(Shape::Value, 40), (Shape::Produce, 200), (Shape::Ingest, 100)] {
            let events = Events::new(shape, size, 0, STARTED).unwrap();
            let numbers = [0, 1, 99, 100, 1_000_000, 12_345_678_901];
            let all: BTreeSet<Vec<u8>> = numbers
                .iter()
                .map(|n| {
                    let mut document = Vec::new();
                    events.document(*n, &mut document);
                    assert_eq!(document.len(), size, "{}", String::from_utf8_lossy(&document));
                    serde_json::from_slice::<Value>(&document).unwrap();
                    document
                })
                .collect();
            assert_eq!(all.len(), numbers.len());
            assert!(Events::new(shape, 39, 0, STARTED).unwrap_err().contains("--size"));
        }
    }

    #[test]
    fn bodies_are_what_the_gateway_takes_and_have_one_length() {
        let events = Events::new(Shape::Produce, 200, 7, STARTED).unwrap();
        for (request, count) in [(0, 1), (123_456, 1), (5, 3), (99_999, 3)] {
            let mut body = Vec::new();
            events.body(request, count, &mut body);
            assert_eq!(body.len(), events.body_bytes(count));
            let found: Value = serde_json::from_slice(&body).unwrap();
            let all = if count == 1 { vec![found] } else { found.as_array().unwrap().clone() };
            assert_eq!(all.len() as u64, count);
            for (event, n) in all.iter().zip(request * count..) {
                assert_eq!(event["value"]["n"], n);
                assert_eq!(event["key"], format!("key-{:08}", request % 7));
            }
        }
        let events = Events::new(Shape::Ingest, 150, 0, STARTED).unwrap();
        let mut body = Vec::new();
        events.body(41, 2, &mut body);
        let found: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&found[1]["amount"], &found[1]["timestamp"]), (&83.into(), &(STARTED + 83).into()));
    }
}
