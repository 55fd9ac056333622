use super::*;
use proptest::prelude::*;
use std::pin::Pin;
use std::task::{Context, Poll};
use strandline_wire::peer::ReplicaData;
use tokio::io::ReadBuf;

const LIMITS: Limits = Limits { head: 300, body: 100_000 };

/// Gives what it has in pieces of these sizes, each behind a pause at which a caller may be dropped.
struct Pieces {
    bytes: Bytes,
    sizes: Vec<usize>,
    at: usize,
    paused: bool,
    /// The most that was offered to be filled at once.
    widest: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.paused = !self.paused;
        if self.paused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.widest = self.widest.max(buf.remaining());
        let size = self.sizes[self.at % self.sizes.len()];
        self.at += 1;
        let count = size.min(buf.remaining()).min(self.bytes.len());
        let piece = self.bytes.split_to(count);
        buf.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

fn reader(bytes: Bytes, sizes: Vec<usize>) -> FrameReader<Pieces> {
    FrameReader::new(Pieces { bytes, sizes, at: 0, paused: false, widest: 0 }, LIMITS)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// A message whose encoding is as long as the text, and a little more.
fn head(text: &str) -> ReplicaData {
    ReplicaData { refusal: text.to_owned(), ..Default::default() }
}

fn written(frames: &[(ReplicaData, Vec<Bytes>)]) -> Bytes {
    runtime().block_on(async {
        let mut writer = FrameWriter::new(Vec::new());
        for (head, body) in frames {
            writer.send(head, body.clone()).await.unwrap();
        }
        writer.io.into()
    })
}

proptest! {
    #[test]
    fn frames_arrive_as_they_were_sent_however_the_stream_is_cut_and_the_reader_interrupted(
        frames in proptest::collection::vec(
            ("[a-z]{0,250}", proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9000), 0..5)), 0..5),
        sizes in proptest::collection::vec(1_usize..40_000, 1..6),
    ) {
        let frames: Vec<(ReplicaData, Vec<Bytes>)> = frames
            .into_iter()
            .map(|(text, body)| (head(&text), body.into_iter().map(Bytes::from).collect()))
            .collect();
        let mut reader = reader(written(&frames), sizes);
        runtime().block_on(async {
            for (head, body) in &frames {
                // Each poll is a call of its own: what was read before must not be lost with it.
                let frame = loop {
                    tokio::select! {
                        biased;
                        frame = reader.next() => break frame.unwrap().unwrap(),
                        () = std::future::ready(()) => {}
                    }
                };
                prop_assert_eq!(&<ReplicaData as prost::Message>::decode(frame.head).unwrap(), head);
                prop_assert_eq!(frame.body, body.concat());
            }
            prop_assert_eq!(reader.next().await.unwrap(), None);
            Ok(())
        })?;
    }

    #[test]
    fn whatever_arrives_is_frames_within_the_limits_or_an_error_and_never_more_memory_than_a_frame(
        bytes in proptest::collection::vec(prop_oneof![8 => Just(0_u8), 1 => any::<u8>()], 0..3000),
        sizes in proptest::collection::vec(1_usize..5000, 1..4),
    ) {
        let total = bytes.len();
        let mut reader = reader(bytes.into(), sizes);
        let mut seen = 0;
        let ended = runtime().block_on(async {
            loop {
                match reader.next().await {
                    Ok(Some(frame)) => {
                        assert!(frame.head.len() <= LIMITS.head && frame.body.len() <= LIMITS.body);
                        seen += LENGTHS + frame.head.len() + frame.body.len();
                    }
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            }
        });
        prop_assert!(seen <= total && (!ended || seen == total));
        prop_assert!(reader.io.widest <= LIMITS.body.max(SMALL_READ));
    }
}

#[test]
fn a_length_above_its_limit_ends_the_stream_before_anything_is_reserved_for_it() {
    for lengths in [[LIMITS.head as u32 + 1, 0], [0, LIMITS.body as u32 + 1], [u32::MAX, u32::MAX]] {
        let bytes: Vec<u8> = lengths.iter().flat_map(|length| length.to_be_bytes()).collect();
        let mut reader = reader(bytes.into(), vec![8]);
        let error = runtime().block_on(reader.next()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(reader.buffer.capacity() <= SMALL_READ);
    }
}

#[test]
fn an_end_inside_a_frame_is_an_error() {
    let whole = written(&[(head("x"), vec![Bytes::from_static(b"body")])]);
    for end in 1..whole.len() {
        let error = runtime().block_on(reader(whole.slice(..end), vec![3]).next()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "after {end} bytes");
    }
}
