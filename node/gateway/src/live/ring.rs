//! The last messages of a run, and the places of those who read them. Pure.
//!
//! A message on the wire (server-sent events, as the HTML standard has them):
//!
//! ```text
//! id: 9f3a2c01b4d5e6f7-128      run, number of the message
//! event: tick
//! data: {…}                     one line of JSON
//! ```

use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;

/// Messages kept at most: about five minutes.
const MESSAGES: usize = 400;
/// Bytes of messages kept at most.
const BYTES: usize = 1 << 20;

/// Where a reader is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It has nothing.
    Nowhere,
    /// It has everything of `run` up to and including the message `last`.
    After { run: u64, last: u64 },
}

impl Place {
    /// What a browser says in `Last-Event-ID`; anything else is nowhere.
    pub(super) fn parse(id: &str) -> Place {
        let place = id.split_once('-').and_then(|(run, last)| {
            Some(Place::After { run: u64::from_str_radix(run, 16).ok()?, last: last.parse().ok()? })
        });
        place.unwrap_or(Place::Nowhere)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Nowhere => Ok(()),
            Place::After { run, last } => write!(f, "{run:016x}-{last}"),
        }
    }
}

/// The last messages, oldest first; their numbers have no gaps.
#[derive(Debug)]
pub(super) struct Ring {
    run: u64,
    /// Number of the message after the last one; the first is 1.
    next: u64,
    messages: VecDeque<Bytes>,
    bytes: usize,
}

impl Ring {
    pub(super) fn new(run: u64) -> Ring {
        Ring { run, next: 1, messages: VecDeque::new(), bytes: 0 }
    }

    /// Which run it belongs to.
    pub(super) fn run(&self) -> u64 {
        self.run
    }

    /// Adds a message; the oldest make room.
    pub(super) fn push(&mut self, kind: &str, json: &[u8]) {
        let place = Place::After { run: self.run, last: self.next };
        let message = message(&place, kind, json);
        self.next += 1;
        self.bytes += message.len();
        self.messages.push_back(message);
        while self.messages.len() > MESSAGES || (self.bytes > BYTES && self.messages.len() > 1) {
            self.bytes -= self.messages.pop_front().map_or(0, |oldest| oldest.len());
        }
    }

    /// Whoever is here has everything.
    pub(super) fn end(&self) -> Place {
        Place::After { run: self.run, last: self.next - 1 }
    }

    /// All messages after `place`, in their order; `None` if some of them are no longer there, or it is of another run.
    pub(super) fn after(&self, place: &Place) -> Option<Bytes> {
        let Place::After { run, last } = *place else { return None };
        let first = self.next - self.messages.len() as u64;
        if run != self.run || last >= self.next || last + 1 < first {
            return None;
        }
        let passed = usize::try_from(last + 1 - first).ok()?;
        let mut messages = self.messages.iter().skip(passed);
        match (messages.next(), messages.len()) {
            (None, _) => Some(Bytes::new()),
            // As a rule there is one, which all readers share.
            (Some(only), 0) => Some(only.clone()),
            (Some(_), _) => {
                let all: Vec<&[u8]> = self.messages.iter().skip(passed).map(|m| &m[..]).collect();
                Some(all.concat().into())
            }
        }
    }
}

/// A message on the wire. JSON has no line breaks of its own.
pub(super) fn message(place: &Place, kind: &str, json: &[u8]) -> Bytes {
    let mut text = format!("id: {place}\nevent: {kind}\ndata: ").into_bytes();
    text.extend_from_slice(json);
    text.extend_from_slice(b"\n\n");
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(last: u64) -> Place {
        Place::After { run: 7, last }
    }

    #[test]
    fn who_comes_back_gets_what_was_missed_and_nothing_twice() {
        let mut ring = Ring::new(7);
        assert_eq!(ring.after(&place(0)), Some(Bytes::new()), "nothing was sent so far");
        (1..=5).for_each(|n| ring.push("tick", format!("{n}").as_bytes()));
        assert_eq!(ring.after(&place(5)), Some(Bytes::new()));
        assert_eq!(ring.after(&place(4)).unwrap(), "id: 0000000000000007-5\nevent: tick\ndata: 5\n\n");
        let missed = String::from_utf8(ring.after(&place(2)).unwrap().to_vec()).unwrap();
        let data: Vec<_> = missed.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data, ["3", "4", "5"]);
        assert_eq!(ring.end(), place(5));
        assert_eq!(Place::parse(&ring.end().to_string()), ring.end());
    }

    #[test]
    fn a_place_of_another_run_or_of_the_future_or_no_place_at_all_is_none() {
        let mut ring = Ring::new(7);
        ring.push("tick", b"1");
        assert_eq!(ring.after(&Place::After { run: 8, last: 1 }), None);
        assert_eq!(ring.after(&place(2)), None);
        for id in ["", "x", "7", "7-", "-1", "7-x", "zz-1", "7-99999999999999999999"] {
            assert_eq!(Place::parse(id), Place::Nowhere, "{id}");
        }
        assert_eq!(ring.after(&Place::Nowhere), None);
        assert_eq!(ring.after(&place(u64::MAX)), None);
    }

    #[test]
    fn old_messages_make_room_by_number_and_by_size() {
        let mut ring = Ring::new(7);
        (0..MESSAGES + 10).for_each(|_| ring.push("tick", b"1"));
        assert_eq!(ring.messages.len(), MESSAGES);
        assert_eq!(ring.after(&place(9)), None, "message 10 is gone");
        assert!(ring.after(&place(10)).is_some());
        let large = vec![b'1'; BYTES / 4];
        (0..10).for_each(|_| ring.push("cluster", &large));
        assert!(ring.bytes <= BYTES && ring.messages.len() == 3, "{} bytes", ring.bytes);
        ring.push("cluster", &vec![b'1'; 2 * BYTES]);
        assert_eq!(ring.messages.len(), 1, "one that is larger than the ring stands alone");
    }
}
