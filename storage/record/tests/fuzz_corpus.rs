//! Replays the fuzzer's committed seeds, so that what it once found stays fixed without it.

use std::path::Path;

#[test]
#[allow(clippy::disallowed_methods)] // a test's own input, no data of a node
fn every_seed_of_the_batch_decoder_is_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/batch_decoder");
    let mut seeds = 0;
    for seed in std::fs::read_dir(corpus).unwrap() {
        strandline_record::fuzzing::batch_decoder(&std::fs::read(seed.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds >= 10, "{seeds} seeds");
}
