//! `Idempotency-Key`: a retry of a request returns the first answer.
//!
//! ```text
//!            first ──► running ──┬── acknowledged, or its outcome is unknown ──► kept, given again
//!  a retry meanwhile waits for it└── certainly nothing was written ──► forgotten: a retry does it
//! ```
//!
//! Kept in this gateway's memory: for a time, for so many keys and bytes, and not over its restart; other gateways do
//! not know it. Whether a key is known is asked at one place ([`Answers::begin`]): a topic whose log says so itself
//! (`dedup.key`) needs nothing else.
//!
//! Invariant: while a key is known, its request is carried out once.

use super::problem::Problem;
use axum::http::StatusCode;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Memory for answers that are kept.
const MAX_BYTES: usize = 32 << 20;
/// What an entry costs besides its key and its answer.
const ENTRY_BYTES: usize = 200;
/// Longer keys are refused.
pub(crate) const MAX_KEY: usize = 255;

/// The JSON of an answer of 200, or a problem.
pub(crate) type Outcome = Result<Bytes, Problem>;
/// SHA-256 of the request.
pub(crate) type Digest = [u8; 32];
type Shared = watch::Receiver<Option<Outcome>>;

/// A key, within the topic or path that it was used for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) scope: Arc<str>,
    pub(crate) key: Arc<str>,
}

/// Answers by key.
#[derive(Debug)]
pub(crate) struct Answers {
    window: Duration,
    max_keys: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<Key, Entry>,
    /// Entries whose answer is there, by when it came, oldest first.
    done: VecDeque<(Instant, Key)>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    digest: Digest,
    outcome: Shared,
    bytes: usize,
}

/// What a key means now.
pub(crate) enum Begin {
    /// It is new: carry the request out, and tell the ticket how it went.
    First(Ticket),
    /// It is known: the answer, when it is there.
    Again(Shared),
    /// It is known for another request.
    Conflict,
}

/// The duty to say how the first request went. Dropped without a word, its outcome is unknown.
#[derive(Debug)]
pub(crate) struct Ticket {
    key: Key,
    answer: watch::Sender<Option<Outcome>>,
}

impl Answers {
    pub(crate) fn new(window: Duration, max_keys: usize) -> Answers {
        Answers { window, max_keys, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, key: Key, digest: Digest) -> Begin {
        let mut known = self.known();
        known.forget(Instant::now(), self.window, self.max_keys);
        if let Some(entry) = known.entries.get(&key) {
            return match entry.digest == digest {
                true => Begin::Again(entry.outcome.clone()),
                false => Begin::Conflict,
            };
        }
        let (answer, outcome) = watch::channel(None);
        let bytes = ENTRY_BYTES + 2 * key.key.len();
        known.bytes += bytes;
        known.entries.insert(key.clone(), Entry { digest, outcome, bytes });
        Begin::First(Ticket { key, answer })
    }

    /// How the first request went, for those that wait and those that come later.
    pub(crate) fn finish(&self, ticket: Ticket, outcome: Outcome) {
        let mut known = self.known();
        let keep = match &outcome {
            Ok(_) => true,
            Err(problem) => problem.is_in_doubt(),
        };
        if keep {
            let bytes = outcome.as_ref().map_or(0, Bytes::len);
            if let Some(entry) = known.entries.get_mut(&ticket.key) {
                entry.bytes += bytes;
                known.bytes += bytes;
            }
            known.done.push_back((Instant::now(), ticket.key.clone()));
        } else {
            known.remove(&ticket.key);
        }
        ticket.answer.send_replace(Some(outcome));
    }
}

impl Known {
    fn forget(&mut self, now: Instant, window: Duration, max_keys: usize) {
        while let Some((at, _)) = self.done.front() {
            let old = now.saturating_duration_since(*at) >= window;
            if !old && self.entries.len() < max_keys && self.bytes < MAX_BYTES {
                break;
            }
            let (_, key) = self.done.pop_front().expect("it was looked at");
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
    }
}

/// The answer of the first request, however it went.
pub(crate) async fn first_answer(mut outcome: Shared) -> Outcome {
    let found = outcome.wait_for(Option::is_some).await;
    match found.ok().and_then(|outcome| outcome.clone()) {
        Some(outcome) => outcome,
        None => Err(Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "outcome-unknown",
            "the first request with this key broke off",
        )
        .hint("it may or may not have happened: look before you do it again")
        .may_have_happened(true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn key(name: &str) -> Key {
        Key { scope: "t".into(), key: name.into() }
    }

    fn first(answers: &Answers, name: &str) -> Ticket {
        match answers.begin(key(name), [1; 32]) {
            Begin::First(ticket) => ticket,
            _ => panic!("{name} is known"),
        }
    }

    async fn again(answers: &Answers, name: &str) -> Outcome {
        match answers.begin(key(name), [1; 32]) {
            Begin::Again(outcome) => first_answer(outcome).await,
            _ => panic!("{name} is not known"),
        }
    }

    fn failed(doubt: bool) -> Outcome {
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "x", "y").may_have_happened(doubt))
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_returns_the_first_answer_also_while_the_first_runs() {
        let answers = Answers::new(WINDOW, 10);
        let ticket = first(&answers, "a");
        let Begin::Again(waiting) = answers.begin(key("a"), [1; 32]) else { panic!("it runs") };
        assert!(matches!(answers.begin(key("a"), [2; 32]), Begin::Conflict));
        answers.finish(ticket, Ok(Bytes::from_static(b"1")));
        assert_eq!(first_answer(waiting).await.unwrap(), "1");
        assert_eq!(again(&answers, "a").await.unwrap(), "1");
        assert!(matches!(answers.begin(key("a"), [2; 32]), Begin::Conflict));
        tokio::time::advance(WINDOW).await;
        first(&answers, "a");
    }

    #[tokio::test]
    async fn what_certainly_did_not_happen_is_done_by_the_retry_and_what_is_in_doubt_is_not() {
        let answers = Answers::new(WINDOW, 10);
        answers.finish(first(&answers, "a"), failed(false));
        answers.finish(first(&answers, "a"), failed(true));
        assert!(again(&answers, "a").await.unwrap_err().is_in_doubt());
        drop(first(&answers, "broken off"));
        assert!(again(&answers, "broken off").await.unwrap_err().is_in_doubt());
    }

    #[tokio::test]
    async fn the_oldest_answers_make_room() {
        let answers = Answers::new(WINDOW, 2);
        for name in ["a", "b", "c"] {
            answers.finish(first(&answers, name), Ok(Bytes::from_static(b"1")));
        }
        assert!(again(&answers, "c").await.is_ok());
        first(&answers, "a");
        assert_eq!(answers.known().entries.len(), 2);
        let large = Bytes::from(vec![0; MAX_BYTES]);
        answers.finish(first(&answers, "large"), Ok(large));
        first(&answers, "next");
        assert!(answers.known().bytes < 1000, "{}", answers.known().bytes);
    }
}
