#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strandline_node::fuzzing::kafka_frames(data));
