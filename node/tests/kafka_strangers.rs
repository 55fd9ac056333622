//! Clients that send nonsense: what fuzzing began with, and as much again with bytes changed by a fixed seed.
#![allow(clippy::disallowed_methods, reason = "the seeds of the fuzzer lie in files")]

mod common;

use common::strangers::connection;

fn corpus() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/kafka_connection");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn the_fuzzing_corpus_of_connections_is_answered_or_closed() {
    let seeds = corpus();
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| connection(seed));
}

#[test]
fn connections_with_bytes_changed_are_answered_or_closed() {
    // xorshift64: the same bytes in every run.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below
    };
    for mut seed in corpus() {
        for _ in 0..1 + draw(8) {
            // Behind the first byte and the first request's length and kind.
            if seed.len() > 5 {
                let at = 5 + draw(seed.len() - 5);
                seed[at] = [0, 1, 2, 0x7f, 0x80, 0xff][draw(6)];
            }
        }
        connection(&seed);
    }
}
