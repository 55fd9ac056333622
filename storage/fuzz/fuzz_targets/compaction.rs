#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strandline_storage::fuzzing::compaction(data));
