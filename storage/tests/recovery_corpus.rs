//! What fuzzing started from, and made-up directories besides: recovery answers, whatever lies there, and compaction
//! filters whatever batch it is given.

use proptest::prelude::*;
use strandline_storage::fuzzing::{compaction, recovery};

#[test]
#[allow(clippy::disallowed_methods)] // The corpus lies in files of the repository.
fn the_fuzzing_corpus_of_recovery_is_answered() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/recovery");
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus is there") {
        recovery(&std::fs::read(entry.expect("an entry").path()).expect("a seed"));
        inputs += 1;
    }
    assert!(inputs >= 10);
}

#[test]
#[allow(clippy::disallowed_methods)] // The corpus lies in files of the repository.
fn the_fuzzing_corpus_of_batches_is_filtered() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/compaction");
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus is there") {
        let seed = std::fs::read(entry.expect("an entry").path()).expect("a seed");
        compaction(&seed);
        // The same batch under other circumstances.
        for n in 0..64u8 {
            compaction(&[&[n % 4, n / 4 * 16, n / 16, n], &seed[4..]].concat());
        }
        inputs += 1;
    }
    assert!(inputs >= 8);
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let small = proptest::collection::vec(0..12u8, 0..60);
    let wild = proptest::collection::vec(any::<u8>(), 0..60);
    let body = prop_oneof![4 => small, 1 => wild];
    (prop_oneof![1 => 0..9u8, 6 => Just(5u8), 2 => Just(6u8)], body).prop_map(|(command, body)| {
        let mut bytes = vec![command];
        bytes.extend_from_slice(&(body.len() as u16).to_le_bytes());
        bytes.extend(body);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn made_up_directories_are_answered(commands in proptest::collection::vec(command(), 0..8)) {
        recovery(&commands.concat());
    }
}
