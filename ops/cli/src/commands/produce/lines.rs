//! Standard input as blocks of whole lines. A block is read in one thread, handed over whole, and its lines are
//! slices of it: nothing is copied for a line.

use bytes::Bytes;
use std::io::{self, BufRead, BufReader, Read};
use tokio::sync::mpsc;

/// Whole lines (the last of the input may lack its end), or why reading failed.
pub type Block = io::Result<Bytes>;

/// How much is read at once, where the input has that much.
const BLOCK_BYTES: usize = 256 << 10;

/// Reads blocks until the end of the input, an error, or until nobody listens.
pub fn read_in_background(input: impl Read + Send + 'static, blocks: mpsc::Sender<Block>) {
    let read = move || {
        let mut reader = Blocks::new(input);
        loop {
            let Some(block) = reader.next().transpose() else { return };
            let failed = block.is_err();
            if blocks.blocking_send(block).is_err() || failed {
                return;
            }
        }
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(read).expect("a thread can be started");
}

struct Blocks<R> {
    input: BufReader<R>,
    /// Beginning of a line whose end has not been read yet.
    begun: Vec<u8>,
}

impl<R: Read> Blocks<R> {
    fn new(input: R) -> Self {
        Blocks { input: BufReader::with_capacity(BLOCK_BYTES, input), begun: Vec::new() }
    }

    /// The next block, as soon as a read ended at least one line; `None` at the end.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let read = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let length = read.len();
            if length == 0 {
                let rest = std::mem::take(&mut self.begun);
                return Ok((!rest.is_empty()).then(|| rest.into()));
            }
            let Some(last_end) = memchr::memrchr(b'\n', read) else {
                self.begun.extend_from_slice(read);
                self.input.consume(length);
                continue;
            };
            let mut block = std::mem::take(&mut self.begun);
            block.extend_from_slice(&read[..=last_end]);
            self.begun.extend_from_slice(&read[last_end + 1..]);
            self.input.consume(length);
            return Ok(Some(block.into()));
        }
    }
}

/// Takes blocks apart into keys and values.
pub struct Splitter {
    separator: Option<memchr::memmem::Finder<'static>>,
}

impl Splitter {
    pub fn new(separator: Option<&[u8]>) -> Self {
        Splitter { separator: separator.map(|bytes| memchr::memmem::Finder::new(bytes).into_owned()) }
    }

    /// Key (if the line has one) and value of each line.
    pub fn split<'a>(&'a self, block: &'a Bytes) -> impl Iterator<Item = (Option<Bytes>, Bytes)> + 'a {
        let mut at = 0;
        std::iter::from_fn(move || {
            if at == block.len() {
                return None;
            }
            let end = memchr::memchr(b'\n', &block[at..]).map_or(block.len(), |length| at + length);
            let line = at..end;
            at = (end + 1).min(block.len());
            let separator = self.separator.as_ref();
            let found = separator
                .and_then(|finder| Some((finder.find(&block[line.clone()])?, finder.needle().len())));
            Some(match found {
                Some((key, width)) => (
                    Some(block.slice(line.start..line.start + key)),
                    block.slice(line.start + key + width..line.end),
                ),
                None => (None, block.slice(line)),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(splitter: &Splitter, blocks: &[Bytes]) -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
        let of = |block| {
            splitter.split(block).map(|(k, v)| (k.map(|k| k.to_vec()), v.to_vec())).collect::<Vec<_>>()
        };
        blocks.iter().flat_map(of).collect()
    }

    /// Gives at most so many bytes a read.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn blocks(input: &[u8], a_read: usize) -> Vec<Bytes> {
        let mut reader = Blocks::new(Trickle(input, a_read));
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    #[test]
    fn the_key_stands_before_the_first_separator() {
        let splitter = Splitter::new(Some(b"::"));
        let block = Bytes::from_static(b"k::v\nplain\n::only value\nkey::\na::b::c\n\n");
        let expected: Vec<(Option<&[u8]>, &[u8])> = vec![
            (Some(b"k"), b"v"),
            (None, b"plain"),
            (Some(b""), b"only value"),
            (Some(b"key"), b""),
            (Some(b"a"), b"b::c"),
            (None, b""),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(k, v)| (k.map(<[u8]>::to_vec), v.to_vec())).collect();
        assert_eq!(lines(&splitter, &[block]), expected);
    }

    #[test]
    fn a_line_is_handed_over_when_it_ends_and_not_when_the_block_is_full() {
        assert_eq!(blocks(b"one\ntwo\nthr", 6), [&b"one\n"[..], b"two\n", b"thr"]);
        assert_eq!(blocks(b"", 6), [&b""[..]; 0]);
    }

    proptest! {
        #[test]
        fn however_it_is_read_every_line_comes_once_in_order_and_unchanged(
            input in proptest::collection::vec(prop_oneof![4 => Just(b'\n'), 8 => any::<u8>()], 0..200),
            a_read in 1_usize..20,
        ) {
            let blocks = blocks(&input, a_read);
            let mut expected: Vec<Vec<u8>> = input.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            // What follows the last line end is a line only if there is something.
            if expected.last().is_some_and(Vec::is_empty) {
                expected.pop();
            }
            let found: Vec<Vec<u8>> = lines(&Splitter::new(None), &blocks).into_iter().map(|(_, v)| v).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
