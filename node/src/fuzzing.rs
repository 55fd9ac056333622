//! What fuzzing and its corpus test call (`node/fuzz`): the parts of the Kafka listener that read bytes of strangers.

use crate::front::kafka::frame::{Budget, FrameError, Frames};
pub use crate::front::kafka::versions::Served;
use crate::front::kafka::{shape, versions};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// Reads a request as the fuzzer writes it: a byte that picks the request, one that picks its version, and the body.
pub fn row(data: &[u8]) -> Option<(&'static Served, i16, &[u8])> {
    let (&[key, version], body) = data.split_first_chunk::<2>()?;
    let served = &versions::SERVED[usize::from(key) % versions::SERVED.len()];
    Some((served, served.min + i16::from(version) % (served.max - served.min + 1), body))
}

/// Whether the listener would go on to decode this body.
pub fn checked(served: &Served, version: i16, body: &[u8]) -> bool {
    shape::check(served.shape, version, served.is_flexible(version), body).is_ok()
}

/// Bytes that arrive in pieces: before each piece a byte says how long it is, 0 that nothing is there yet.
struct Pieces<'a> {
    rest: &'a [u8],
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some((&length, rest)) = self.rest.split_first() else { return Poll::Ready(Ok(())) };
        self.rest = rest;
        if length == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let (piece, rest) = rest.split_at(usize::from(length).min(rest.len()).min(into.remaining()));
        self.rest = rest;
        into.put_slice(piece);
        Poll::Ready(Ok(()))
    }
}

/// All pieces one behind another.
fn joined(mut rest: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some((&length, behind)) = rest.split_first() {
        let (piece, behind) = behind.split_at(usize::from(length).min(behind.len()));
        all.extend_from_slice(piece);
        rest = behind;
    }
    all
}

/// However bytes arrive, the same frames are read, up to the first that is too large or not whole.
///
/// # Panics
/// When they are not.
pub fn kafka_frames(data: &[u8]) {
    const LIMIT: usize = 300;
    let all = joined(data);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    let mut frames = Frames::new(Pieces { rest: data }, LIMIT, Budget::new(64 << 10));
    let mut rest = &all[..];
    runtime.block_on(async {
        loop {
            let ended = frames.fill().await;
            let declared = rest.first_chunk::<4>().map(|length| i32::from_be_bytes(*length));
            match (ended, declared) {
                (Ok(()), Some(length)) => {
                    let (frame, _held) = frames.take().expect("a frame that is whole");
                    let length = usize::try_from(length).expect("a frame of negative length was read");
                    assert!(length <= LIMIT, "a frame of {length} bytes was read");
                    assert_eq!(frame, rest[4..4 + length], "a frame is not what was sent");
                    rest = &rest[4 + length..];
                }
                (Err(FrameError::TooLarge { .. }), Some(length)) => {
                    assert!(usize::try_from(length).is_ok_and(|length| length > LIMIT) || length < 0);
                    return;
                }
                (Err(FrameError::Closed), declared) => {
                    let whole = declared.is_some_and(|length| rest.len() - 4 >= length as usize);
                    assert!(!whole, "the connection ended before a frame that was sent whole");
                    return;
                }
                (ended, declared) => panic!("{ended:?} with {declared:?} declared"),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        #[allow(clippy::disallowed_methods, reason = "the seeds of the fuzzer lie in files")]
        let seeds: Vec<_> = std::fs::read_dir(folder)
            .expect("the corpus")
            .map(|seed| std::fs::read(seed.expect("an entry").path()).expect("a seed"))
            .collect();
        assert!(!seeds.is_empty(), "no seed for {target}");
        seeds
    }

    #[test]
    fn the_fuzzing_corpus_of_frames_is_read_as_it_was_sent() {
        corpus("kafka_frames").iter().for_each(|seed| kafka_frames(seed));
    }

    #[test]
    fn the_fuzzing_corpus_of_requests_has_every_request_and_is_looked_through() {
        let seeds = corpus("kafka_request");
        let seen: std::collections::BTreeSet<_> =
            seeds.iter().filter_map(|seed| row(seed)).map(|(served, ..)| served.key as i16).collect();
        assert_eq!(seen.len(), versions::SERVED.len(), "some request has no seed: {seen:?}");
        assert!(
            seeds
                .iter()
                .filter_map(|seed| row(seed))
                .any(|(served, version, body)| checked(served, version, body))
        );
    }
}
